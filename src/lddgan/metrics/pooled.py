"""Features without a network: the layout and the texture of images or latents, for quick measures while they train."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def least_images(channels: int) -> int:
    """How many maps of `channels` channels a measure takes at least."""
    return max(8, 4 * channels)


def pooled_features(x_0: Tensor, cells: int) -> Tensor:
    """Means and standard deviations of a grid of cells x cells per channel, `[B, 2 C cells^2]`."""
    mean = F.adaptive_avg_pool2d(x_0, cells)
    variance = F.adaptive_avg_pool2d(x_0.square(), cells) - mean.square()
    return torch.cat([mean, variance.clamp_min(0).sqrt()], 1).flatten(1).cpu()


def finest_grid(channels: int, side: int, count: int) -> int:
    """Cells a side for `count` maps `[channels, side, side]`: the most of 4, 2 and 1 with four pixels in a cell and
    twice as many maps as features."""
    return next((c for c in (4, 2) if 2 * c <= side and least_images(channels) * c**2 <= count), 1)
