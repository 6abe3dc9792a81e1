"""What a network costs: parameters, and multiply-accumulates without running it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, shared ones once, frozen ones too; buffers are not counted."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, *example_inputs: Any) -> int:
    """Multiply-accumulates of `module(*example_inputs)`: convolutions, matrix products and attention.

    Element-wise work (norms, activations, biases) is not counted, as in the published tables. A copy runs on the meta
    device, in no time: on CPU tensors the counter misses attention. Neither the module nor the inputs change.
    """
    on_meta = copy.deepcopy(module).to("meta")
    inputs = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), example_inputs)
    with FlopCounterMode(display=False) as counter, torch.device("meta"), torch.no_grad():
        on_meta(*inputs)
    return counter.get_total_flops() // 2
