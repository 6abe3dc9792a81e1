"""A generator around a linear denoiser: the network adds what a linear map of its input cannot know."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lddgan.diffusion.schedule import Schedule


class Preconditioned(nn.Module):
    """`G(x, t, z) = keep[t] x + scale[t] F(x, t, z)` with the network F, per channel.

    For `x = a x_0 + s e` with x_0 of deviation d, `keep = a d^2 / v` is the best linear estimate of `x_0`, where
    `v = a^2 d^2 + s^2`, and `scale = s d / sqrt(v)` is the deviation of its error (Karras et al. 2022, Table 1, for a
    process that preserves variance): the network starts from a denoiser instead of learning to copy its input, and what
    it has to give is of unit size at every step.
    """

    keep: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, schedule: Schedule, channels: int) -> None:
        """Wrap `network` for x_0 of `channels` channels of unit deviation, until `set_deviation` says otherwise."""
        super().__init__()
        self.network = network
        self.register_buffer("keep", torch.empty(schedule.num_steps, channels))
        self.register_buffer("scale", torch.empty(schedule.num_steps, channels))
        self.set_deviation(schedule, torch.ones(channels))

    def set_deviation(self, schedule: Schedule, deviation: Tensor) -> None:
        """Take the deviation `[C]` of the channels of x_0; `schedule` is the one that `x` follows."""
        a = schedule.cumulative_scale[1:, None]
        s = schedule.cumulative_std[1:, None]
        variance = (a * deviation).square() + s.square()
        self.keep.copy_(a * deviation.square() / variance)
        self.scale.copy_(s * deviation / variance.sqrt())

    def forward(self, x_t: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """Predict `x_0` `[B, C, H, W]` from the noisier sample `x_t` of the same shape, `t` int64 `[B]` and z."""
        return self.keep[t][:, :, None, None] * x_t + self.scale[t][:, :, None, None] * self.network(x_t, t, z)
