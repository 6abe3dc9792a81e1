"""FIR resampling by two with the taps [1, 3, 3, 1] / 8 per axis.

Letters: B batch, C and D channels, H and W pixels. All functions treat the outside as zero, keep the memory
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
    return _Upsample.apply(x)  # type: ignore[return-value]


def downsample2(x: Tensor) -> Tensor:
    """`[B, C, H, W]` to `[B, C, H / 2, W / 2]` (H, W even): per axis (x_{2i-1} + 3 x_{2i} + 3 x_{2i+1} + x_{2i+2}) / 8.

    Raises:
        ValueError: a side is odd.
    """
    if x.shape[2] % 2 or x.shape[3] % 2:
        raise ValueError(f"a {x.shape[2]}x{x.shape[3]} map cannot be halved: its sides must be even")
    return _Downsample.apply(x)  # type: ignore[return-value]


def smooth(x: Tensor) -> Tensor:
    """Filter `[B, C, H, W]` at full size, with two zeros around it: `[B, C, H + 1, W + 1]`."""
    return _Smooth.apply(x, 2)  # type: ignore[return-value]


# Each gradient is the adjoint, again one of the three, so that it runs as fast as the function itself and can be
# differentiated again. The kernels' own gradient of a depthwise convolution is a hundred times slower in bfloat16.


class _Upsample(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and x.dtype == torch.bfloat16:  # it has no kernel there and takes fifty times as long
            with torch.autocast("cpu", enabled=False):
                return _transposed(x.float()).to(x.dtype)
        return _transposed(x)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        return 4 * downsample2(gradients[0])


def _transposed(x: Tensor) -> Tensor:
    channels = x.shape[1]
    return F.conv_transpose2d(x, (4 * _filter(x)).expand(channels, 1, 4, 4), stride=2, padding=1, groups=channels)


class _Downsample(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.conv2d(x, _filter(x).expand(channels, 1, 4, 4), stride=2, padding=1, groups=channels)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        return upsample2(gradients[0]) / 4


class _Smooth(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, padding: int) -> Tensor:
        ctx.padding = padding
        channels = x.shape[1]
        return F.conv2d(x, _filter(x).expand(channels, 1, 4, 4), padding=padding, groups=channels)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Smooth.apply(gradients[0], 3 - ctx.padding), None  # type: ignore[return-value]


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
