"""A generator around a linear denoiser: the network adds what a linear map of its input cannot know."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lddgan.diffusion.schedule import Schedule


class Preconditioned(nn.Module):
    """`G(x, t, z) = keep x + scale F(x, t, z)` with the network F; `keep` and `scale` go by t and channel.

    For `x = a x_0 + s e` with x_0 of deviation d, `keep = a d^2 / v` is the best linear estimate of `x_0`, where
    `v = a^2 d^2 + s^2`, and `scale = s d / sqrt(v)` is the deviation of its error (Karras et al. 2022, Table 1, for a
    process that preserves variance): the network starts from a denoiser instead of learning to copy its input, and what
    it has to give is of unit size at every step.

    Attributes:
        deviation: of the channels of x_0, `[C]`; 1 until it is set, and kept with the weights.
    """

    deviation: Tensor
    a: Tensor
    s: Tensor

    def __init__(self, network: nn.Module, schedule: Schedule, channels: int) -> None:
        """Wrap `network`; `schedule` is the one that `x` follows."""
        super().__init__()
        self.network = network
        self.register_buffer("deviation", torch.ones(channels))
        self.register_buffer("a", schedule.cumulative_scale[1:, None], persistent=False)
        self.register_buffer("s", schedule.cumulative_std[1:, None], persistent=False)

    def forward(self, x_t: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """Predict `x_0` `[B, C, H, W]` from the noisier sample `x_t` of the same shape, `t` int64 `[B]` and z."""
        a, s, d = self.a[t], self.s[t], self.deviation
        variance = (a * d).square() + s.square()  # [B, C]
        keep, scale = a * d.square() / variance, s * d / variance.sqrt()
        return keep[:, :, None, None] * x_t + scale[:, :, None, None] * self.network(x_t, t, z)
