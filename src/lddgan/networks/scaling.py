"""The generator's ways to half the resolution and back: FIR filters (DDGAN, LDDGAN) or Haar bands (WDDGAN).

A way down returns what goes on and what it hands to the way up at the same level: nothing where filters do it, the
three high bands where Haar does. Letters as in `lddgan.networks.layers`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lddgan.networks.haar import haar, inverse_haar
from lddgan.networks.layers import Conv2d, ResidualBlock, conv3x3, scaled_init
from lddgan.networks.resample import downsample2, smooth, upsample2


class FirDown(ResidualBlock):
    """A residual block that halves both branches with the FIR filter."""

    def __init__(self, channels: int, **common: Any) -> None:
        super().__init__(channels, channels, shortcut=True, **common)

    def forward(self, x: Tensor, time: Tensor, style: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """`[B, C, H, W]` to `[B, C, H / 2, W / 2]`."""
        h = self.conv_0(downsample2(F.silu(self.norm_0(x, style))))
        return self.finish(h, self.shortcut(downsample2(x)), time, style), None


class FirUp(ResidualBlock):
    """A residual block that doubles both branches with the FIR filter."""

    def __init__(self, channels: int, band_width: int, **common: Any) -> None:
        super().__init__(channels, channels, shortcut=True, **common)

    def forward(self, x: Tensor, bands: None, time: Tensor, style: Tensor) -> Tensor:  # type: ignore[override]
        """`[B, C, H, W]` to `[B, C, 2 H, 2 W]`."""
        h = self.conv_0(upsample2(F.silu(self.norm_0(x, style))))
        return self.finish(h, self.shortcut(upsample2(x)), time, style)


class FirPyramid(nn.Module):
    """The input pyramid's way down, by FIR filter and 3x3 convolution: `[B, in, H, W]` to `[B, out, H / 2, W / 2]`."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = scaled_init(Conv2d(in_channels, out_channels, 3, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(smooth(x))


class HaarDown(ResidualBlock):
    """A residual block that convolves both branches, then halves them to their LL band."""

    def __init__(self, channels: int, **common: Any) -> None:
        super().__init__(channels, channels, shortcut=True, **common)

    def forward(self, x: Tensor, time: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """`[B, C, H, W]` to `[B, C, H / 2, W / 2]` and the branch's high bands `[B, 3 C, H / 2, W / 2]`."""
        h, bands = halve(self.conv_0(F.silu(self.norm_0(x, style))))
        x, _ = halve(self.shortcut(x))
        return self.finish(h, x, time, style), bands


class HaarUp(ResidualBlock):
    """A residual block that convolves both branches, then doubles them with filtered high bands of the way down."""

    def __init__(self, channels: int, band_width: int, **common: Any) -> None:
        super().__init__(channels, channels, shortcut=True, **common)
        self.bands = scaled_init(Conv2d(3 * band_width, 3 * channels, 3, padding=1, groups=3))

    def forward(self, x: Tensor, bands: Tensor, time: Tensor, style: Tensor) -> Tensor:  # type: ignore[override]
        """`[B, C, H, W]` and the high bands `[B, 3 band_width, H, W]` to `[B, C, 2 H, 2 W]`."""
        bands = 2 * self.bands(bands / 2)  # [B, 3 C, H, W]
        h = double(self.conv_0(F.silu(self.norm_0(x, style))), bands)
        return self.finish(h, double(self.shortcut(x), bands), time, style)


class HaarPyramid(nn.Module):
    """The input pyramid's way down, by Haar bands and 3x3 convolution: `[B, in, H, W]` to `[B, out, H / 2, W / 2]`."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = scaled_init(conv3x3(4 * in_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(haar(x) / 2)


def halve(x: Tensor) -> tuple[Tensor, Tensor]:
    """`[B, C, H, W]` to the means of its 2x2 blocks, LL / 2 `[B, C, H / 2, W / 2]`, and its high bands."""
    bands = haar(x)
    channels = x.shape[1]
    return bands[:, :channels] / 2, bands[:, channels:]


def double(x: Tensor, bands: Tensor) -> Tensor:
    """The inverse of `halve`: means `[B, C, H, W]` and high bands `[B, 3 C, H, W]` to `[B, C, 2 H, 2 W]`."""
    return inverse_haar(torch.cat([2 * x, bands], dim=1))
