from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lddgan.diffusion.schedule import Schedule

GOLDEN = Path(__file__).parents[1] / "golden" / "diffusion_schedule.safetensors"


@pytest.mark.parametrize("num_steps", [1, 2, 4, 8])
@pytest.mark.parametrize(("family", "ends"), [("vp", (0.1, 20.0)), ("geometric", (0.01, 0.99))])
def test_agrees_with_the_published_coefficients(num_steps, family, ends):
    golden = load_file(GOLDEN)
    schedule = Schedule(num_steps, *ends, geometric=family == "geometric")
    for name, ours in {
        "betas": schedule.betas[1:],
        "forward_scale": schedule.forward_scale,
        "forward_std": schedule.forward_std,
        "cumulative_scale": schedule.cumulative_scale,
        "cumulative_std": schedule.cumulative_std,
        "posterior_mean_coef_x0": schedule.coef_x0,
        "posterior_mean_coef_xt": schedule.coef_xt,
        "posterior_log_variance_clipped": schedule.posterior_log_variance,
    }.items():
        theirs = golden[f"{family}.T{num_steps}.{name}"]
        assert (ours - theirs).norm() <= 1e-6 * theirs.norm(), name


@pytest.mark.parametrize("num_steps", [1, 3, 4, 8])
def test_closed_form_of_the_variance_preserving_process(num_steps):
    schedule = Schedule(num_steps)  # loses digits where a beta is close to 1 in float32
    for i in range(1, num_steps + 1):
        u, start = 1e-3 + (1 - 1e-3) * i / num_steps, 1e-3
        log_mean = -0.25 * (u**2 - start**2) * 19.9 - 0.5 * (u - start) * 0.1
        assert schedule.cumulative_scale[i].item() == pytest.approx(math.exp(log_mean), rel=1e-3)
    total = schedule.cumulative_scale**2 + schedule.cumulative_std**2
    torch.testing.assert_close(total, torch.ones(num_steps + 1))


@pytest.mark.parametrize("schedule", [Schedule(4), Schedule(8), Schedule(5, 0.01, 0.99, geometric=True)])
def test_posterior_is_consistent_with_the_forward_process(schedule):
    """Drawing x_{t+1} given x_0 and then x_t from the posterior must give q(x_t | x_0) (mean and variance)."""
    scale, std = schedule.cumulative_scale.double(), schedule.cumulative_std.double()
    # The forward arrays also carry beta_0 = 1e-8, which the posterior leaves out; in float32 it is nothing.
    mean = schedule.coef_x0 + schedule.coef_xt * scale[1:]
    variance = schedule.posterior_std**2 + (schedule.coef_xt * std[1:]) ** 2
    torch.testing.assert_close(mean, scale[:-1], rtol=1e-4, atol=1e-4, check_dtype=False)
    torch.testing.assert_close(variance, std[:-1] ** 2, rtol=1e-3, atol=1e-3, check_dtype=False)


def test_pair_and_posterior_in_distribution():
    torch.manual_seed(0)
    schedule, count = Schedule(4), 100_000
    x_0 = torch.full((count, 1), 0.7)
    for step in range(4):
        t = torch.full((count,), step)
        x_t, x_next = schedule.pair(x_0, t, torch.randn_like(x_0), torch.randn_like(x_0))
        drawn = schedule.posterior_sample(x_0, x_next, t, torch.randn_like(x_0))
        for sample, i in ((x_t, step), (drawn, step), (x_next, step + 1)):
            scale, std = schedule.cumulative_scale[i].item(), schedule.cumulative_std[i].item()
            assert sample.mean().item() == pytest.approx(0.7 * scale, abs=0.015)
            assert sample.std().item() == pytest.approx(std, abs=0.015)
        # Not only the marginals: the posterior keeps the dependence between x_t and x_{t+1}.
        covariance = ((x_t - x_t.mean()) * (x_next - x_next.mean())).mean()
        drawn_covariance = ((drawn - drawn.mean()) * (x_next - x_next.mean())).mean()
        assert drawn_covariance.item() == pytest.approx(covariance.item(), abs=0.015)


def test_pair_without_noise_and_with_mixed_times():
    schedule = Schedule(4)
    x_0, t = torch.randn(3, 2, 4, 4), torch.tensor([0, 1, 3])
    zero = torch.zeros_like(x_0)
    x_t, x_next = schedule.pair(x_0, t, zero, zero)
    torch.testing.assert_close(x_t, x_0 * schedule.cumulative_scale[t].view(3, 1, 1, 1))
    torch.testing.assert_close(x_next, x_0 * schedule.cumulative_scale[t + 1].view(3, 1, 1, 1))
    noise = torch.ones_like(x_0)
    x_t, x_next = schedule.pair(zero, t, noise, zero)
    torch.testing.assert_close(x_t[:, 0, 0, 0], schedule.cumulative_std[t])
    torch.testing.assert_close(x_next[:, 0, 0, 0], (schedule.cumulative_std[t] * schedule.forward_scale[t + 1]))
    x_t, x_next = schedule.pair(zero, t, zero, noise)
    torch.testing.assert_close(x_next[:, 0, 0, 0], schedule.forward_std[t + 1])
    assert not x_t.any()


@pytest.mark.parametrize("num_steps", [1, 2, 4, 8])
def test_last_step_returns_the_prediction(num_steps):
    schedule = Schedule(num_steps)
    x_0, x_next, noise = torch.randn(3, 2, 4, 4, 4).unbind()
    t = torch.zeros(2, dtype=torch.long)
    mean, std = schedule.posterior_mean_std(x_0, x_next, t)
    torch.testing.assert_close(mean, x_0, rtol=3e-6, atol=0)
    assert not std.any()
    assert torch.equal(schedule.posterior_sample(x_0, x_next, t, noise), mean)


def test_to_moves_every_tensor_and_leaves_the_original():
    schedule = Schedule(2)
    moved = schedule.to("meta")
    assert {value.device.type for value in vars(moved).values() if isinstance(value, torch.Tensor)} == {"meta"}
    assert schedule.betas.device.type == "cpu" and moved.num_steps == 2


@pytest.mark.parametrize("arguments", [(0,), (-1,), (4, 0.0, 20.0), (4, 2.0, 1.0), (4, 0.1, 1e5), (4, 0.1, 1.0, True)])
def test_refuses_impossible_arguments(arguments):
    with pytest.raises(ValueError):
        Schedule(*arguments)
