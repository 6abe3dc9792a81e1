from __future__ import annotations

import torch
from torch import nn

from lddgan.runtime.ema import Ema


def set_to(model: nn.Linear, value: float) -> None:
    with torch.no_grad():
        model.weight.fill_(value)
        model.bias.fill_(-value)


def test_starts_at_the_weights_after_the_first_update_then_closed_form():
    model = nn.Linear(2, 3)
    ema = Ema(model, 0.9, warm_up=False)
    values = [5.0, 7.0, -2.0, 4.0]
    expected = values[0]
    for i, value in enumerate(values):
        set_to(model, value)
        ema.update(model)
        expected = value if i == 0 else 0.9 * expected + 0.1 * value
        torch.testing.assert_close(ema.model.weight, torch.full((3, 2), expected))
        torch.testing.assert_close(ema.model.bias, torch.full((3,), -expected))
    assert model.weight[0, 0] == 4.0 and not any(p.requires_grad for p in ema.model.parameters())


def test_warm_up_forgets_the_first_weights_and_ends_at_the_decay():
    model = nn.Linear(2, 3)
    ema, plain = Ema(model, 0.9), Ema(model, 0.9, warm_up=False)
    expected = 1.0
    for n in range(100):
        set_to(model, 1.0 if n == 0 else 0.0)
        ema.update(model)
        plain.update(model)
        expected *= min(0.9, (1 + n) / (10 + n)) if n else 1.0
        torch.testing.assert_close(ema.model.weight, torch.full((3, 2), expected))
        if n == 20:
            assert plain.model.weight[0, 0] > 0.1 and ema.model.weight[0, 0] < 1e-5
    before = ema.model.weight[0, 0].item()  # from n = 80 on the decay itself holds
    ema.update(model)
    assert abs(ema.model.weight[0, 0].item() / before - 0.9) < 1e-5


def test_buffers_are_copied():
    model = nn.BatchNorm1d(3)
    ema = Ema(model, 0.9)
    for value in (1.0, 4.0):
        model.running_mean.fill_(value)
        ema.update(model)
        assert ema.model.running_mean.tolist() == [value] * 3


def test_goes_on_from_its_state_as_if_never_stopped():
    model = nn.Linear(2, 3)
    straight = Ema(model, 0.8)  # after one update it decays by 2 / 11
    set_to(model, 3.0)
    straight.update(model)
    resumed = Ema(nn.Linear(2, 3), 0.8)
    resumed.load_state_dict(straight.state_dict())
    set_to(model, 10.0)
    for ema in (straight, resumed):
        ema.update(model)
    assert torch.equal(straight.model.weight, resumed.model.weight)
    torch.testing.assert_close(resumed.model.weight, torch.full((3, 2), (2 * 3 + 9 * 10) / 11))
