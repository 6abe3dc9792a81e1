"""The generator: an NCSN++ U-Net whose group norms are styled by a latent variable.

Letters: B batch, C channels, H and W pixels, S style width, E width of the time embedding.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lddgan.networks.layers import (
    SQRT_2,
    Attention,
    GroupNorm,
    Mapping,
    ResidualBlock,
    conv3x3,
    near_zero_init,
    scaled_init,
    sinusoid,
)
from lddgan.networks.scaling import FirDown, FirPyramid, FirUp, HaarDown, HaarPyramid, HaarUp, double, halve

Resampling = Literal["fir", "haar"]
_SCALING = {"fir": (FirDown, FirUp, FirPyramid), "haar": (HaarDown, HaarUp, HaarPyramid)}


class DownLevel(nn.Module):
    """Blocks at one resolution and, unless it is the lowest, the way to the next, where the input pyramid joins."""

    def __init__(
        self,
        blocks: list[ResidualBlock],
        attentions: list[Attention],
        down: FirDown | HaarDown | None,
        pyramid: FirPyramid | HaarPyramid | None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attentions = nn.ModuleList(attentions)  # one per block, or none
        self.down = down
        self.pyramid = pyramid

    def forward(
        self, h: Tensor, pyramid: Tensor, time: Tensor, style: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor], Tensor | None]:
        """Returns `h`, the pyramid for the next level, what this level hands to the blocks of the up path (oldest
        first), and what to its way up."""
        skips, bands = [], None
        for i, block in enumerate(self.blocks):
            h = block(h, time, style)
            if self.attentions:
                h = self.attentions[i](h)
            skips.append(h)
        if self.down is not None and self.pyramid is not None:
            h, bands = self.down(h, time, style)
            h = pyramid = (self.pyramid(pyramid) + h) / SQRT_2
            skips.append(h)
        return h, pyramid, skips, bands


class UpLevel(nn.Module):
    """Blocks at one resolution, each of which takes one skip, and, unless it is the highest, the way up."""

    def __init__(self, blocks: list[ResidualBlock], attention: Attention | None, up: FirUp | HaarUp | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attention = attention
        self.up = up

    def forward(self, h: Tensor, skips: list[Tensor], bands: Tensor | None, time: Tensor, style: Tensor) -> Tensor:
        for block in self.blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), time, style)
        if self.attention is not None:
            h = self.attention(h)
        return h if self.up is None else self.up(h, bands, time, style)


class NCSNpp(nn.Module):
    """`G(x_{t+1}, t, z)`: predicts `x_0`.

    Args:
        channels: channels of `x`, in and out.
        width: base width nf, even and at least 4.
        multipliers: width of each level in units of `width`, the highest resolution first.
        num_blocks: residual blocks per level.
        attention_levels: levels with attention, 0 = highest resolution; the middle always has it.
        latent_dim: width of `z` (nz).
        mapping_width: width of the mapped z (z_dim).
        mapping_depth: further layers of the mapping after the first (n_mlp).
        resampling: between the levels; "haar" is WDDGAN's wavelet generator, whose middle blocks see Haar bands too.
        dropout: inside the residual blocks, in [0, 1).
        tanh: squash the output into [-1, 1].

    Raises:
        ValueError: for sizes that cannot be built; in `forward`, for an image whose sides cannot be halved
            at every level.
    """

    def __init__(
        self,
        *,
        channels: int,
        width: int,
        multipliers: Sequence[int],
        num_blocks: int,
        attention_levels: Sequence[int] = (),
        latent_dim: int,
        mapping_width: int,
        mapping_depth: int,
        resampling: Resampling = "fir",
        dropout: float = 0.0,
        tanh: bool = False,
    ) -> None:
        super().__init__()
        if width < 4 or width % 2:
            raise ValueError(f"width must be even and at least 4, got {width}.")
        if not multipliers or min(multipliers) < 1 or num_blocks < 1:
            raise ValueError(f"multipliers and num_blocks must be at least 1, got {multipliers} and {num_blocks}.")
        if not all(0 <= level < len(multipliers) for level in attention_levels):
            raise ValueError(f"attention_levels must lie in 0 .. {len(multipliers) - 1}, got {attention_levels}.")
        self.width = width
        self.latent_dim = latent_dim
        self.resampling: Resampling = resampling
        self.tanh = tanh
        time_dim = 4 * width
        widths = [width * multiplier for multiplier in multipliers]
        last = len(widths) - 1

        # What all residual blocks have in common.
        common = {"time_dim": time_dim, "style_dim": mapping_width, "dropout": dropout}
        residual = functools.partial(ResidualBlock, **common)
        make_down, make_up, make_pyramid = _SCALING[resampling]

        self.mapping = Mapping(latent_dim, mapping_width, mapping_depth)
        self.time_0 = scaled_init(nn.Linear(width, time_dim))
        self.time_1 = scaled_init(nn.Linear(time_dim, time_dim))
        self.conv_in = scaled_init(conv3x3(channels, width))

        self.down_levels = nn.ModuleList()
        skip_widths = [width]
        current, pyramid_channels = width, channels
        for level, level_width in enumerate(widths):
            blocks = [residual(current if i == 0 else level_width, level_width) for i in range(num_blocks)]
            attentions = [Attention(level_width) for _ in blocks] if level in attention_levels else []
            skip_widths += [level_width] * num_blocks
            down = pyramid = None
            if level != last:
                down = make_down(level_width, **common)
                pyramid = make_pyramid(pyramid_channels, level_width)
                skip_widths.append(level_width)
            self.down_levels.append(DownLevel(blocks, attentions, down, pyramid))
            current = pyramid_channels = level_width

        self.middle_0 = residual(current, current)
        self.middle_attention = Attention(current)
        self.middle_1 = residual(current, current)

        self.up_levels = nn.ModuleList()  # lowest resolution first: the order of the walk
        for level in reversed(range(len(widths))):
            blocks = []
            for _ in range(num_blocks + 1):
                blocks.append(residual(current + skip_widths.pop(), widths[level]))
                current = widths[level]
            attention = Attention(current) if level in attention_levels else None
            up = make_up(current, widths[level - 1], **common) if level else None
            self.up_levels.append(UpLevel(blocks, attention, up))

        self.norm_out = GroupNorm(current)
        self.conv_out = near_zero_init(conv3x3(current, channels))

    def forward(self, x_t: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """Predict `x_0`.

        Args:
            x_t: the noisy sample `x_{t+1}`, `[B, C, H, W]`.
            t: int64 `[B]`, or `[1]` for all.
            z: standard normal `[B, latent_dim]`.
        """
        halvings = self.halvings
        if x_t.shape[2] % 2**halvings or x_t.shape[3] % 2**halvings:
            raise ValueError(
                f"A {x_t.shape[2]}x{x_t.shape[3]} input cannot be halved {halvings} times; "
                f"its sides must be multiples of {2**halvings}."
            )
        time = self.time_1(F.silu(self.time_0(sinusoid(t, self.width).to(self.time_0.weight.dtype))))
        time = F.silu(time)  # [B, E], as every block takes it
        style = self.mapping(z)  # [B, S]

        h = self.conv_in(x_t)
        skips, bands = [h], []
        pyramid = x_t
        for level in self.down_levels:
            h, pyramid, level_skips, level_bands = level(h, pyramid, time, style)
            skips += level_skips
            bands.append(level_bands)
        h = self._middle(h, time, style)
        bands = [None, *bands[:-1]]  # the way up from a level takes what the way down to it has handed over
        for level in self.up_levels:
            h = level(h, skips, bands.pop(), time, style)
        x_0 = self.conv_out(F.silu(self.norm_out(h)))  # [B, C, H, W]
        return torch.tanh(x_0) if self.tanh else x_0

    @property
    def halvings(self) -> int:
        """How often the sides of an input are halved on the way to the smallest map."""
        return len(self.down_levels) - (self.resampling == "fir")

    def _middle(self, h: Tensor, time: Tensor, style: Tensor) -> Tensor:
        if self.resampling == "fir":
            return self.middle_1(self.middle_attention(self.middle_0(h, time, style)), time, style)
        # The blocks work on the means of 2x2 pixels and leave the details as they are; the second has seen the pixels
        # themselves before.
        means, bands = halve(h)
        h = self.middle_attention(double(self.middle_0(means, time, style), bands))
        means, bands = halve(self.middle_1(h, time, style))
        return double(self.middle_1(means, time, style), bands)
