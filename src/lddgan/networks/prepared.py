"""Weights of convolutions, prepared once for drawing on a CPU.

torch lays them out anew at every call as oneDNN wants them, which for a single image of small maps takes as long as the
convolution.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.weak import WeakTensorKeyDictionary

MOST_PIXELS = 1024
"""Of a batch: with more, laying out the weights is nothing beside the convolution, and not worth their memory."""

_prepared = WeakTensorKeyDictionary()
register_optimizer_step_post_hook(
    lambda *_: _prepared.clear()
)  # a fused optimiser leaves the weights' version as it is


def fits(layer: nn.Conv2d, x: Tensor) -> bool:
    """Whether `convolve` is made for these: few pixels, and a kernel larger than 1x1 in channels-last memory."""
    return (
        is_eager_on_cpu(x)
        and is_drawing()
        and x.dtype == layer.weight.dtype
        and _has_kernels(x.dtype)
        and 0 < x.shape[0] * x.shape[2] * x.shape[3] <= MOST_PIXELS
        and in_channels_last(layer.weight)
    )


def is_eager_on_cpu(x: Tensor) -> bool:
    """Whether `x` is a tensor on a CPU as it stands there, neither traced nor under autocast. Ask this first: a look at
    the sizes of one that is traced may fix them."""
    return (
        not torch.compiler.is_compiling()
        and type(x) is Tensor
        and x.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
    )


def in_channels_last(weight: Tensor) -> bool:
    """Whether `weight` lies so and not otherwise as well, as those of 1x1 kernels do. Plain baselines hold theirs
    contiguous, and get torch's convolution."""
    return weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


def is_drawing() -> bool:
    """Whether what is made of weights may be kept: in inference mode, for training changes them at every step."""
    return torch.is_inference_mode_enabled() and torch.backends.mkldnn.is_available()


@functools.cache
def _has_kernels(dtype: torch.dtype) -> bool:
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """`layer(x)`, `[B, C, H, W]`."""
    how, shape = (layer.padding, layer.stride, layer.dilation, layer.groups), tuple(x.shape)
    return convolve_packed(x, prepared(layer.weight, shape, lambda: pack(layer.weight, shape, how)), layer.bias, how)


def prepared(weight: Tensor, how: Hashable, make: Callable[[], Tensor]) -> Tensor:
    """What `make` gives, kept as long as `weight` lives and is asked for in the same way.

    It is made anew after `weight` has changed, be it by an optimiser; one made in inference mode must not change.
    """
    version = 0 if weight.is_inference() else weight._version
    state = (weight.data_ptr(), version, weight.dtype, how)
    kept = _prepared.get(weight)
    if kept is None or kept[0] != state:
        kept = _prepared[weight] = (state, make())
    return kept[1]


def pack(weight: Tensor, shape: tuple[int, ...], how: tuple[Any, ...]) -> Tensor:
    """`weight` as oneDNN wants it for an input of `shape`; `how` is padding, stride, dilation and groups."""
    return torch.ops.mkldnn._reorder_convolution_weight(weight, *how, list(shape))


def convolve_packed(x: Tensor, packed: Tensor, bias: Tensor | None, how: tuple[Any, ...]) -> Tensor:
    """The convolution of `x` with what `pack` gave."""
    return torch.ops.mkldnn._convolution_pointwise(x, packed, bias, *how, "none", [], "")
