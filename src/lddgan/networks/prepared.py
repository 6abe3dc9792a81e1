"""Weights of convolutions, prepared once for drawing on a CPU.

torch lays them out anew at every call as oneDNN wants them, which for a single image of small maps takes as long as the
convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

_prepared = WeakTensorKeyDictionary()


def fits(layer: nn.Conv2d, x: Tensor) -> bool:
    """Whether `convolve` is made for these."""
    return (
        x.device.type == "cpu"
        and x.dtype == layer.weight.dtype
        and x.dtype in (torch.float32, torch.bfloat16)
        and len(x) > 0
        and layer.weight.is_contiguous(memory_format=torch.channels_last)
        and not layer.weight.is_contiguous()  # as a plain baseline holds it
        and is_drawing()
        and not torch.is_autocast_enabled("cpu")
        and type(x) is Tensor  # not one that is being traced
    )


def is_drawing() -> bool:
    """Whether weights stay as they are: in inference mode, for training changes them at every step."""
    return (
        torch.is_inference_mode_enabled() and torch.backends.mkldnn.is_available() and not torch.compiler.is_compiling()
    )


def convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """`layer(x)`, `[B, C, H, W]`."""
    how, shape = (layer.padding, layer.stride, layer.dilation, layer.groups), tuple(x.shape)
    return convolve_packed(x, prepared(layer.weight, shape, lambda: pack(layer.weight, shape, how)), layer.bias, how)


def prepared(weight: Tensor, how: Hashable, make: Callable[[], Tensor]) -> Tensor:
    """What `make` gives, kept as long as `weight` lives, does not change and is asked for in the same way."""
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
