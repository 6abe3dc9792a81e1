"""What a network costs: parameters, multiply-accumulates and memory, without running it."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, shared ones once, frozen ones too; buffers are not counted."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, *example_inputs: Any) -> int:
    """Multiply-accumulates of `module(*example_inputs)`: convolutions, matrix products and attention.

    Element-wise work (norms, activations, biases) is not counted, as in the published tables. A copy runs on the meta
    device, in no time: on CPU tensors the counter misses attention. Neither the module nor the inputs change.
    """
    is_there = all(parameter.is_meta for parameter in module.parameters())
    on_meta = module if is_there else copy.deepcopy(module).to("meta")
    inputs = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), example_inputs)
    with FlopCounterMode(display=False) as counter, torch.device("meta"), torch.no_grad(), _WithoutNorms():
        on_meta(*inputs)
    return counter.get_total_flops() // 2


class _WithoutNorms(TorchFunctionMode):
    """Leaves out what is not counted anyhow and takes Python milliseconds on the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func in (F.group_norm, F.layer_norm, F.silu) else func(*args, **(kwargs or {}))


def peak_bytes(work: Callable[[], Any]) -> int:
    """The most bytes that tensors made in `work()` hold at one moment, on any device, the meta device too.

    This is what an eager forward pass needs at least: what the allocator and the kernels take on top is not counted.
    """
    with _LiveBytes() as live, torch.no_grad():
        work()
    return live.peak


class _LiveBytes(TorchDispatchMode):
    """Counts every storage from the operation that makes it until nothing refers to it."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak = 0, 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        before = {
            tensor.untyped_storage()._cdata for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)
        }
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._take(tensor.untyped_storage(), before)
        return result

    def _take(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen or key in before:  # a view, or changed in place
            return
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size
