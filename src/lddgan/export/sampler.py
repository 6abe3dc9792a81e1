"""The whole sampler as exporters take it."""

from __future__ import annotations

import copy

from lddgan.drawing import WholeSampler
from lddgan.pipeline import Pipeline


def export_sampler(pipe: Pipeline, half: bool = False) -> WholeSampler:
    """A copy of all that `pipe` draws with, on the CPU and in float32.

    Args:
        half: round the weights to float16 first.
    """
    generator, space = copy.deepcopy(pipe.generator).cpu(), copy.deepcopy(pipe.space).cpu()
    for module in (generator, space):
        if half:
            module.half()
        module.float().eval().requires_grad_(False)
    return WholeSampler(pipe.config, generator, space, pipe.schedule.to("cpu"))
