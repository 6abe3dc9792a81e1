"""FIR resampling by two with the taps [1, 3, 3, 1] / 8 per axis.

Letters: B batch, C and D channels, H and W pixels. All three functions treat the outside as zero, keep the memory
format and are differentiable any number of times. Up and down are one depthwise convolution each and, but for a factor
4, each other's adjoint; the transposed convolution never touches the zeros that the textbook form inserts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_filters: dict[tuple[torch.device, torch.dtype], Tensor] = {}


def upsample2(x: Tensor) -> Tensor:
    """`[B, C, H, W]` to `[B, C, 2H, 2W]`: per axis 0.75 x_i + 0.25 x_{i-1}, then 0.75 x_i + 0.25 x_{i+1}."""
    channels = x.shape[1]
    weight = (4 * _filter(x)).expand(channels, 1, 4, 4)
    return F.conv_transpose2d(x, weight, stride=2, padding=1, groups=channels)


def downsample2(x: Tensor) -> Tensor:
    """`[B, C, H, W]` to `[B, C, H // 2, W // 2]`: per axis (x_{2i-1} + 3 x_{2i} + 3 x_{2i+1} + x_{2i+2}) / 8."""
    channels = x.shape[1]
    return F.conv2d(x, _filter(x).expand(channels, 1, 4, 4), stride=2, padding=1, groups=channels)


def fir_conv_down(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Filter `[B, C, H, W]` at full size, then convolve with stride 2 to `[B, D, H // 2, W // 2]`.

    Args:
        x: `[B, C, H, W]`, H and W even.
        weight: `[D, C, 3, 3]`.
        bias: `[D]`.
    """
    channels = x.shape[1]
    x = F.conv2d(x, _filter(x).expand(channels, 1, 4, 4), padding=2, groups=channels)  # [B, C, H + 1, W + 1]
    return F.conv2d(x, weight, bias, stride=2)


def _filter(like: Tensor) -> Tensor:
    """The 4x4 filter, sum 1, made once per device and dtype (a copy to a GPU would wait for it each time)."""
    if torch.compiler.is_compiling() or type(like) is not Tensor:  # being traced: nothing of it may stay behind
        return _make_filter(like.device, like.dtype)
    key = (like.device, like.dtype)
    if key not in _filters:
        with torch.inference_mode(False):  # sampling may come first, training must still be able to use it
            _filters[key] = _make_filter(*key)
    return _filters[key]


def _make_filter(device: torch.device, dtype: torch.dtype) -> Tensor:
    taps = torch.tensor([0.125, 0.375, 0.375, 0.125], device=device, dtype=dtype)
    return torch.outer(taps, taps)
