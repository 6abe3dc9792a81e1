from __future__ import annotations

import pytest
import torch

from lddgan.diffusion.sampler import sample
from lddgan.diffusion.schedule import Schedule

SHAPE = (1, 2, 2)


def draws(batch: int, steps: int, latent_dim: int = 3):
    torch.manual_seed(0)
    return [(torch.randn(batch, latent_dim), torch.randn(batch, *SHAPE)) for _ in range(steps)]


def test_one_step_is_the_generators_prediction():
    x_T = torch.randn(4, *SHAPE)
    seen = []

    def generator(x, t, z):
        seen.append((x.clone(), t, z))
        return 3 * x

    noise = draws(4, 1)
    torch.testing.assert_close(sample(generator, Schedule(1), x_T, noise), 3 * x_T)
    assert torch.equal(seen[0][0], x_T) and seen[0][1].tolist() == [0] * 4 and seen[0][2] is noise[0][0]


def test_every_step_by_hand():
    schedule, x, noise = Schedule(4), torch.randn(2, *SHAPE), draws(2, 4)
    generator = lambda x, t, z: 0.5 * x + z.mean(1)[:, None, None, None]  # noqa: E731
    trace = []
    result = sample(generator, schedule, x, noise, on_step=lambda t, x_t: trace.append((t, x_t.clone())))
    for t, (z, e), (seen_t, seen_x) in zip((3, 2, 1, 0), noise, trace, strict=True):
        x_0 = generator(x, None, z)
        x = schedule.coef_x0[t] * x_0 + schedule.coef_xt[t] * x + (schedule.posterior_std[t] * e if t else 0)
        assert seen_t == t
        torch.testing.assert_close(seen_x, x)
    assert torch.equal(result, trace[-1][1])


def test_there_are_no_more_draws_than_steps():
    with pytest.raises(ValueError, match="4 draws are too many for 3 steps"):
        sample(lambda x, t, z: x, Schedule(3), torch.zeros(1, *SHAPE), draws(1, 4))


def test_fewer_draws_start_further_down_and_a_step_may_be_changed():
    schedule, noise, trace = Schedule(4), draws(2, 4), {}
    generator = lambda x, t, z: x * (1 + t[0]) + z.mean(1)[:, None, None, None]  # noqa: E731
    whole = sample(generator, schedule, torch.randn(2, *SHAPE), noise, lambda t, x: trace.update({t: x.clone()}))
    assert torch.equal(sample(generator, schedule, trace[2], noise[2:]), whole)
    assert torch.equal(sample(generator, schedule, trace[2], []), trace[2])
    changed = sample(generator, schedule, torch.randn(2, *SHAPE), noise, lambda t, x: trace[2] if t == 2 else None)
    assert torch.equal(changed, whole)


def test_a_perfect_generator_gives_the_datas_distribution():
    """Data N(1, 0.5^2); the generator draws from the true p(x_0 | x_{t+1}), so every x_t keeps q's moments."""
    schedule, count = Schedule(4), 40_000
    torch.manual_seed(0)

    def generator(x, t, z):
        scale, std = schedule.cumulative_scale[t[0] + 1], schedule.cumulative_std[t[0] + 1]
        variance = 1 / (1 / 0.25 + scale**2 / std**2)
        mean = variance * (1 / 0.25 + scale * x / std**2)
        return mean + variance.sqrt() * z[:, :1, None, None]

    # x_T as q has it (not quite a standard normal)
    x_T = schedule.cumulative_scale[4] * (1 + 0.5 * torch.randn(count, 1, 1, 1))
    x_T = x_T + schedule.cumulative_std[4] * torch.randn(count, 1, 1, 1)
    noise = [(torch.randn(count, 1), torch.randn(count, 1, 1, 1)) for _ in range(4)]
    trace = {}
    sample(generator, schedule, x_T, noise, on_step=lambda t, x: trace.update({t: x}))
    for t, x in trace.items():
        scale, std = schedule.cumulative_scale[t], schedule.cumulative_std[t]
        assert x.mean().item() == pytest.approx(scale.item(), abs=0.02)
        assert x.std().item() == pytest.approx((0.25 * scale**2 + std**2).sqrt().item(), abs=0.02)
