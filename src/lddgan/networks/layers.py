"""Building blocks of the generator and the discriminator.

Letters: B batch, C channels, H and W pixels, S style width (mapped z), E width of the time embedding.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lddgan.networks import prepared, winograd

SQRT_2 = math.sqrt(2)  # the sum of two independent signals of equal variance, divided by it, keeps that variance
GROUP_NORM_EPS = 1e-6
Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, around what oneDNN is slow at on a CPU.

    3x3 kernels go by Winograd's algorithm where that is faster (`lddgan.networks.winograd`), those of few pixels are
    prepared once for drawing (`lddgan.networks.prepared`). Of one with padding on a map of a single pixel only the
    middle is used. Where autocast to bfloat16 is on, maps of at most 4x4 stay in float32: there is no bfloat16 kernel
    for the gradient of many weights, and one may take up to a second.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self._keeps_size and input.shape[2:] == (1, 1):
            return F.linear(input[:, :, 0, 0], self.weight[:, :, 1, 1], self.bias)[:, :, None, None]
        if self._keeps_size and winograd.fits(input, self.weight):
            return winograd.conv3x3(input, self.weight, self.bias)
        if prepared.fits(self, input):
            return prepared.convolve(self, input)
        small = input.shape[2] * input.shape[3] <= (5 * self.stride[0]) ** 2
        if small and input.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(input.float())
        return super().forward(input)

    @property
    def _keeps_size(self) -> bool:
        return self.kernel_size == (3, 3) and self.padding == self.stride == (1, 1) and self.groups == 1


def scaled_init(layer: Layer, scale: float = 1.0) -> Layer:
    """Weights uniform with variance `scale` / (mean of fan-in and fan-out), bias zero; returns the layer."""
    nn.init.xavier_uniform_(layer.weight, gain=math.sqrt(scale))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def near_zero_init(layer: Layer) -> Layer:
    """`scaled_init` with scale 1e-10: a residual branch that starts as almost nothing, yet has gradients."""
    return scaled_init(layer, 1e-10)


def conv3x3(in_channels: int, out_channels: int) -> Conv2d:
    """3x3 convolution that keeps the size."""
    return Conv2d(in_channels, out_channels, 3, padding=1)


def num_groups(channels: int) -> int:
    """Groups of every group norm: min(channels // 4, 32), or the next smaller number that divides `channels`.

    Raises:
        ValueError: if `channels` is below 4.
    """
    if channels < 4:
        raise ValueError(f"A group norm needs at least 4 channels, got {channels}; take a greater width.")
    return next(groups for groups in range(min(channels // 4, 32), 0, -1) if channels % groups == 0)


def sinusoid(t: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding `[B, dim]` of the integer times `t` `[B]`: sines, then cosines; `dim` even, at least 4."""
    half = dim // 2
    k = torch.arange(half, dtype=torch.float32, device=t.device)
    phase = t.float()[:, None] * torch.exp(k * (-math.log(10000) / (half - 1)))
    return torch.cat([phase.sin(), phase.cos()], dim=1)


def group_norm(x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """`F.group_norm`, on a CPU by way of contiguous memory where channels come last and a group has fewer than 8.

    Its kernel for channels-last goes over the channels of a group, few at a time; copying there and back is faster.
    """
    few = x.shape[1] < 8 * groups and x.device.type == "cpu" and not torch.compiler.is_compiling()
    if few and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        x = F.group_norm(x.contiguous(), groups, weight, bias, GROUP_NORM_EPS)
        return x.contiguous(memory_format=torch.channels_last)
    return F.group_norm(x, groups, weight, bias, GROUP_NORM_EPS)


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` by `group_norm`."""

    def __init__(self, channels: int) -> None:
        super().__init__(num_groups(channels), channels, eps=GROUP_NORM_EPS)

    def forward(self, input: Tensor) -> Tensor:
        return group_norm(input, self.num_groups, self.weight, self.bias)


class AdaptiveGroupNorm(nn.Module):
    """Group norm whose scale and shift are linear in the style (Denoising Diffusion GANs, appendix C)."""

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.groups = num_groups(channels)
        self.style = scaled_init(nn.Linear(style_dim, 2 * channels))
        nn.init.ones_(self.style.bias[:channels])  # scale 1, shift 0

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale, shift = self.style(style)[:, :, None, None].chunk(2, dim=1)  # [B, C, 1, 1] each
        return torch.addcmul(shift, scale, group_norm(x, self.groups))


class ResidualBlock(nn.Module):
    """The generator's residual block, conditioned on time and style; `lddgan.networks.scaling` has those that resample.

    Args:
        shortcut: a 1x1 convolution beside the branch even where the width stays.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        time_dim: int,
        style_dim: int,
        dropout: float = 0.0,
        shortcut: bool = False,
    ) -> None:
        super().__init__()
        self.norm_0 = AdaptiveGroupNorm(in_channels, style_dim)
        self.conv_0 = scaled_init(conv3x3(in_channels, out_channels))
        self.time = scaled_init(nn.Linear(time_dim, out_channels))
        self.norm_1 = AdaptiveGroupNorm(out_channels, style_dim)
        self.dropout = nn.Dropout(dropout)
        self.conv_1 = near_zero_init(conv3x3(out_channels, out_channels))
        shortcut = shortcut or in_channels != out_channels
        self.shortcut = scaled_init(Conv2d(in_channels, out_channels, 1)) if shortcut else nn.Identity()

    def forward(self, x: Tensor, time: Tensor, style: Tensor) -> Tensor:
        """`x` `[B, in, H, W]`, `time` `[B, E]` (already through SiLU), `style` `[B, S]` to `[B, out, H, W]`."""
        h = self.conv_0(F.silu(self.norm_0(x, style)))
        return self.finish(h, self.shortcut(x), time, style)

    def finish(self, h: Tensor, x: Tensor, time: Tensor, style: Tensor) -> Tensor:
        """The second half: `h` is the branch after its first convolution, `x` what goes beside it."""
        h = F.silu(self.norm_1(h + self.time(time)[:, :, None, None], style))
        return (x + self.conv_1(self.dropout(h))) / SQRT_2


class Attention(nn.Module):
    """Self-attention of all pixels with one head and scale C^-0.5, residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm(channels)
        self.query = scaled_init(nn.Linear(channels, channels))
        self.key = scaled_init(nn.Linear(channels, channels))
        self.value = scaled_init(nn.Linear(channels, channels))
        self.out = near_zero_init(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        h = self.norm(x).permute(0, 2, 3, 1).reshape(batch, 1, height * width, channels)  # [B, 1, HW, C]
        h = self.out(F.scaled_dot_product_attention(self.query(h), self.key(h), self.value(h)))
        h = h.view(batch, height, width, channels).permute(0, 3, 1, 2)  # [B, C, H, W]
        return (x + h) / SQRT_2


class Mapping(nn.Module):
    """From the latent variable z `[B, nz]` to the style `[B, S]`: normalise, then linear layers with SiLU."""

    def __init__(self, latent_dim: int, width: int, depth: int) -> None:
        super().__init__()
        sizes = [latent_dim] + [width] * (depth + 1)
        self.layers = nn.ModuleList(scaled_init(nn.Linear(i, o)) for i, o in zip(sizes[:-1], sizes[1:], strict=True))

    def forward(self, z: Tensor) -> Tensor:
        style = z / torch.sqrt(z.square().mean(1, keepdim=True) + 1e-8)
        for layer in self.layers:
            style = F.silu(layer(style))
        return style
