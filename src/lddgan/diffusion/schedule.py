"""The noise schedule of the few-step diffusion: forward steps, training pairs and the posterior.

`T` is the number of denoising steps. An index `t` runs over 0 .. T-1: the generator sees the noisier `x_{t+1}`
(`x_next`), the discriminator judges `x_t`. All randomness is an argument.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

_FIRST_TIME = 1e-3  # time runs over [_FIRST_TIME, 1], because the variance is zero at time 0
_FIRST_BETA = 1e-8  # x_0 itself, seen as a diffused sample, carries practically no noise


class Schedule:
    """Coefficients of `q` for T steps, float32 (Denoising Diffusion GANs, Xiao et al. 2022, appendix B).

    Arrays over i = 0 .. T (length T + 1):
        betas: variance added by step i; `betas[0]` stands for "no step".
        forward_scale, forward_std: `x_i = forward_scale[i] x_{i-1} + forward_std[i] e`.
        cumulative_scale, cumulative_std: `x_i = cumulative_scale[i] x_0 + cumulative_std[i] e`.
    Arrays over t = 0 .. T-1 (length T), for `q(x_t | x_{t+1}, x_0)`:
        coef_x0, coef_xt: weights of `x_0` and of `x_{t+1}` in the mean.
        posterior_log_variance: clipped from below at log(1e-20).
        posterior_std: its standard deviation, exactly 0 at t = 0, where no noise is added.
    At t = 0 the mean is x_0, but for a rounding of `coef_x0[0]` (up to 3e-6) that the published systems have too.
    """

    def __init__(self, num_steps: int, beta_min: float = 0.1, beta_max: float = 20.0, geometric: bool = False) -> None:
        """Build the schedule.

        Args:
            num_steps: T, at least 1.
            beta_min, beta_max: rate of the variance-preserving diffusion at its ends, 0 < beta_min < beta_max;
                for the geometric schedule the variance itself at its ends, with beta_max < 1.
            geometric: let the variance grow geometrically instead.

        Raises:
            ValueError: for arguments out of these ranges.
        """
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}.")
        if not 0 < beta_min < beta_max:
            raise ValueError(f"beta_min and beta_max must satisfy 0 < beta_min < beta_max, got {beta_min}, {beta_max}.")
        if geometric and beta_max >= 1:
            raise ValueError(f"beta_max is a variance below 1 in the geometric schedule, got {beta_max}.")
        self.num_steps = num_steps

        # Only the betas are computed in float64: the published systems do the rest in float32, and with float64
        # throughout the coefficients differ by 1e-4.
        time = _FIRST_TIME + (1 - _FIRST_TIME) * torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
        if geometric:
            variance = beta_min * (beta_max / beta_min) ** time
        else:
            variance = 1 - torch.exp(2 * (-0.25 * time**2 * (beta_max - beta_min) - 0.5 * time * beta_min))
        remaining = 1 - variance
        betas = 1 - remaining[1:] / remaining[:-1]
        self.betas = torch.cat([torch.tensor([_FIRST_BETA], dtype=torch.float64), betas]).float()
        if not bool(((self.betas > 0) & (self.betas < 1)).all()):
            raise ValueError(f"beta_max = {beta_max} leaves no signal at the last step; take a smaller one.")

        self.forward_scale = torch.sqrt(1 - self.betas)
        self.forward_std = torch.sqrt(self.betas)
        self.cumulative_scale = torch.cumprod(self.forward_scale, 0)
        self.cumulative_std = torch.sqrt(1 - self.cumulative_scale**2)

        # The posterior leaves betas[0] out: index t belongs to the step from t to t + 1.
        beta = self.betas[1:]
        alpha = 1 - beta
        alpha_bar = torch.cumprod(alpha, 0)
        alpha_bar_previous = torch.cat([torch.ones(1), alpha_bar[:-1]])
        self.coef_x0 = beta * torch.sqrt(alpha_bar_previous) / (1 - alpha_bar)
        self.coef_xt = (1 - alpha_bar_previous) * torch.sqrt(alpha) / (1 - alpha_bar)
        variance = beta * (1 - alpha_bar_previous) / (1 - alpha_bar)
        self.posterior_log_variance = torch.log(variance.clamp(min=1e-20))
        self.posterior_std = torch.exp(0.5 * self.posterior_log_variance)
        self.posterior_std[0] = 0.0

    def to(self, device: torch.device | str) -> Schedule:
        """The same schedule with its tensors on `device`."""
        moved = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(moved, name, value.to(device))
        return moved

    def q_sample(self, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """`x_t` drawn from `q(x_t | x_0)`.

        Args:
            x_0: `[B, ...]`.
            t: int64 `[B]` in 0 .. T.
            noise: standard normal, like `x_0`.
        """
        return _at(self.cumulative_scale, t, x_0) * x_0 + _at(self.cumulative_std, t, x_0) * noise

    def pair(self, x_0: Tensor, t: Tensor, noise: Tensor, noise_next: Tensor) -> tuple[Tensor, Tensor]:
        """A training pair `(x_t, x_{t+1})`: `x_t` from `q(x_t | x_0)`, then one forward step from it.

        Args:
            x_0: `[B, ...]`.
            t: int64 `[B]` in 0 .. T-1.
            noise, noise_next: standard normal, like `x_0`, for `x_t` and for the step to `x_{t+1}`.
        """
        x_t = self.q_sample(x_0, t, noise)
        x_next = _at(self.forward_scale, t + 1, x_0) * x_t + _at(self.forward_std, t + 1, x_0) * noise_next
        return x_t, x_next

    def posterior_mean_std(self, x_0: Tensor, x_next: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean `[B, ...]` and standard deviation `[B, 1, ...]` of `q(x_t | x_{t+1}, x_0)` (paper, Eq. 3 and 4).

        Args:
            x_0, x_next: `[B, ...]`.
            t: int64 `[B]` in 0 .. T-1; at 0 the mean is `x_0` and the standard deviation is 0.
        """
        mean = _at(self.coef_x0, t, x_0) * x_0 + _at(self.coef_xt, t, x_0) * x_next
        return mean, _at(self.posterior_std, t, x_0)

    def posterior_sample(self, x_0: Tensor, x_next: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """`x_t` drawn from `q(x_t | x_{t+1}, x_0)`; arguments as above, `noise` standard normal like `x_0`."""
        mean, std = self.posterior_mean_std(x_0, x_next, t)
        return mean + std * noise


def _at(coefficients: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """`coefficients[t]` `[B]` shaped `[B, 1, ...]` to multiply `like` `[B, ...]`."""
    return coefficients[t].view(-1, *[1] * (like.ndim - 1))
