from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lddgan.networks.ncsnpp import NCSNpp


def small(**changes) -> NCSNpp:
    sizes = {
        "channels": 3, "width": 8, "multipliers": (1, 2), "num_blocks": 1, "latent_dim": 5, "mapping_width": 6,
        "mapping_depth": 1,
    }  # fmt: skip
    return NCSNpp(**(sizes | changes))


def randomise(network: nn.Module) -> None:
    """Weights of ordinary size, so that no branch hides behind its near-zero start."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)


def test_starts_by_predicting_zero():
    x = torch.randn(2, 3, 8, 8)
    for tanh in (False, True):
        assert small(tanh=tanh)(x, torch.tensor([0, 1]), torch.randn(2, 5)).abs().max() < 1e-3


def test_tanh_is_applied_last():
    linear, squashed = small(), small(tanh=True)
    randomise(linear)
    squashed.load_state_dict(linear.state_dict())
    arguments = torch.randn(2, 3, 8, 8), torch.tensor([0, 1]), torch.randn(2, 5)
    torch.testing.assert_close(squashed(*arguments), linear(*arguments).tanh())


@pytest.mark.parametrize(
    "changes",
    [
        {"multipliers": (1,)},
        {"multipliers": (1, 1, 2), "num_blocks": 2, "attention_levels": (1, 2)},
        {"multipliers": (2, 1), "num_blocks": 3, "attention_levels": (0,), "channels": 4},
        {"multipliers": (1, 2), "num_blocks": 2, "attention_levels": (1,), "resampling": "haar"},
        {"multipliers": (1,), "resampling": "haar"},
    ],
)
def test_every_topology_uses_all_its_weights_and_keeps_the_shape(changes):
    network = small(**changes)
    randomise(network)
    x = torch.randn(2, changes.get("channels", 3), 8, 12)
    x_0 = network(x, torch.tensor([0, 1]), torch.randn(2, 5))
    assert x_0.shape == x.shape
    x_0.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        # The softmax does not see what adds the same to all keys of a query.
        if not name.endswith("key.bias"):
            assert parameter.grad.abs().max() > 0, name


def test_images_do_not_see_each_other():
    network = small(attention_levels=(1,)).eval()
    randomise(network)
    x, t, z = torch.randn(3, 3, 8, 8), torch.tensor([0, 1, 2]), torch.randn(3, 5)
    together = network(x, t, z)
    for i in range(3):
        alone = network(x[i : i + 1], t[i : i + 1], z[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network(x, t.flip(0), z), together)  # but time and z matter
    assert not torch.allclose(network(x, t, z.flip(0)), together)


def test_channels_last_and_autocast_agree():
    network = small(attention_levels=(0,)).eval()
    randomise(network)
    arguments = torch.randn(2, 3, 8, 8), torch.tensor([0, 1]), torch.randn(2, 5)
    expected = network(*arguments)
    network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(*arguments), expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        low = network(*arguments).float()
    assert (low - expected).norm() / expected.norm() < 0.05


def test_published_size_and_cost_on_cifar10():
    with torch.device("meta"):
        network = NCSNpp(
            channels=4,
            width=128,
            multipliers=(1, 2, 2),
            num_blocks=2,
            latent_dim=50,
            mapping_width=256,
            mapping_depth=4,
        )
        arguments = torch.randn(1, 4, 16, 16), torch.zeros(1, dtype=torch.long), torch.randn(1, 50)
        with FlopCounterMode(display=False) as counter:
            network(*arguments)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(33.33, abs=0.005)
    assert counter.get_total_flops() / 2e9 == pytest.approx(1.665, rel=0.01)


def test_refuses_what_cannot_be_built():
    for changes in (
        {"width": 7}, {"width": 2}, {"multipliers": ()}, {"multipliers": (1, 0)}, {"num_blocks": 0},
        {"attention_levels": (2,)},
    ):  # fmt: skip
        with pytest.raises(ValueError):
            small(**changes)
    with pytest.raises(ValueError, match="9x8"):
        small()(torch.randn(1, 3, 9, 8), torch.tensor([0]), torch.randn(1, 5))
    with pytest.raises(ValueError, match="10x8 input cannot be halved 2 times"):  # the middle halves once more
        small(resampling="haar")(torch.randn(1, 3, 10, 8), torch.tensor([0]), torch.randn(1, 5))
