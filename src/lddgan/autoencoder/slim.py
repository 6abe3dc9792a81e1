"""A decoder that is not the bottleneck: plain convolutions at and below half the resolution, around a linear map.

Letters: B batch, C image channels, Z latent channels, R image side, r latent side, f = R / r.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lddgan.networks.layers import Conv2d


class PlainBlock(nn.Module):
    """ReLU, conv, twice; `x + h`; starts as the identity. No norm: the linear map sets the scale, norms cost time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(channels, channels, 3, padding=1)
        self.conv2 = Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class SlimDecoder(nn.Module):
    """x_0 `[B, Z, r, r]` (the normalised latent) to images `[B, C, R, R]`, about [-1, 1].

    The best linear map of a latent pixel to its f x f patch (`fit_shortcut`), plus a network that learns what the map
    lacks. The published decoder does most of its work at full resolution; this one never goes above R / 2 and gets to R
    by a pixel shuffle (Shi et al. 2016), which is where a decoder's time goes.

    Args:
        channels: C.
        latent_channels: Z.
        factor: f, a power of two.
        width: channels at R / 2, doubled at each level below, up to four times.
        num_blocks: residual blocks a level.
    """

    def __init__(self, *, channels: int, latent_channels: int, factor: int, width: int, num_blocks: int) -> None:
        super().__init__()
        num_levels = max(1, factor.bit_length() - 1)  # f = 1 and 2 have one level, f = 4 two
        widths = [width * min(2**level, 4) for level in reversed(range(num_levels))]
        self.factor, last_factor = factor, factor // 2 ** (num_levels - 1)
        self.conv_in = Conv2d(latent_channels, widths[0], 3, padding=1)
        self.levels, self.up = nn.ModuleList(), nn.ModuleList()
        for level, wide in enumerate(widths):
            self.levels.append(nn.Sequential(*[PlainBlock(wide) for _ in range(num_blocks)]))
            last = level == num_levels - 1
            self.up.append(nn.Identity() if last else _Shuffle(Conv2d(wide, 4 * widths[level + 1], 1)))
        self.conv_out = Conv2d(widths[-1], channels * last_factor**2, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]
        self.last_factor = last_factor
        self.shortcut = Conv2d(latent_channels, channels * factor**2, 1)

    @property
    def last_layer(self) -> Tensor:
        """The weight at which the adaptive weight compares gradient norms."""
        return self.conv_out.weight

    @torch.no_grad()
    def fit_shortcut(self, x_0: Tensor, images: Tensor) -> None:
        """Set the linear map by least squares from `x_0 [N, Z, r, r]` to the patches of `images [N, C, R, R]`."""
        given = x_0.permute(0, 2, 3, 1).flatten(0, 2).double()  # [N r^2, Z]
        given = torch.cat([given, torch.ones_like(given[:, :1])], 1)
        patches = F.unfold(images, self.factor, stride=self.factor).transpose(1, 2).flatten(0, 1).double()
        # Normal equations with a trace of ridge: a channel that hangs on the others leaves them singular.
        gram = given.T @ given
        gram.diagonal().add_(1e-6 * gram.diagonal().mean())
        solution = torch.linalg.solve(gram, given.T @ patches)  # [Z + 1, C f^2]
        self.shortcut.weight.copy_(solution[:-1].T.reshape(self.shortcut.weight.shape))
        assert self.shortcut.bias is not None
        self.shortcut.bias.copy_(solution[-1])

    def forward(self, x_0: Tensor) -> Tensor:
        h = self.conv_in(x_0)
        for level, up in zip(self.levels, self.up, strict=True):
            h = up(level(h))  # doubles the sides on all levels but the last
        h = self.conv_out(F.relu(h))
        return F.pixel_shuffle(h, self.last_factor) + F.pixel_shuffle(self.shortcut(x_0), self.factor)


class _Shuffle(nn.Module):
    """A 1x1 conv and a pixel shuffle by 2: `[B, C, H, W]` to `[B, C', 2H, 2W]`."""

    def __init__(self, conv: Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)
