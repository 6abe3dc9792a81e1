"""Drawing by ONNX Runtime, which is faster than torch on many CPUs: exported once, then read from the cache folder."""

from __future__ import annotations

import hashlib
import importlib.metadata
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from lddgan.data.latents import weights_hash
from lddgan.data.sources import cache_folder
from lddgan.editing import Draws
from lddgan.errors import UserError
from lddgan.export.formats import load_onnx, write_onnx
from lddgan.export.sampler import WholeSampler, levels_apart, stacked
from lddgan.pipeline import Pipeline
from lddgan.runtime.files import atomic_write

LEVELS = 1
"""Grey levels that the engine may be off."""
CHECKED = 4
"""Images that are compared at every load."""


def load_engine(pipe: Pipeline) -> Callable[[Draws], np.ndarray]:
    """ONNX Runtime with the generator and the decoder that `pipe` draws with now: from noise to images.

    Raises:
        UserError: the pipeline is not on the CPU, the extra `export` is not installed, or the engine draws other images
            than torch.
    """
    if pipe.device.type != "cpu":
        raise UserError(
            f"the engine onnx draws on the CPU, not on {pipe.device.type}: add --device cpu, or leave it out"
        )
    sampler = WholeSampler(pipe)
    path = cache_folder() / "engines" / f"{_digest(sampler)}.onnx"
    if not path.exists():
        print("the model is exported for ONNX Runtime, once; this takes a minute or two", file=sys.stderr)
        with atomic_write(path) as temporary:
            write_onnx(sampler, temporary, half=False)
    run = load_onnx(path)
    noise, z = sampler.inputs(CHECKED)
    levels = levels_apart(run(noise.numpy(), z.numpy()), pipe.draw(range(CHECKED)))
    if levels > LEVELS:
        raise UserError(
            f"ONNX Runtime draws images that are {levels} grey levels off here, more than {LEVELS}: leave it out"
        )

    def draw(draws: Draws) -> np.ndarray:
        noise, z = stacked(*draws)
        return run(noise.numpy(), z.numpy())

    return draw


def _digest(sampler: WholeSampler) -> str:
    """Of all that the graph hangs on: weights, steps, decoder, and who wrote it."""
    facts: list[Any] = [weights_hash(sampler), sampler.steps, sampler.space.decoder, sampler.shape, sampler.resolution]
    facts += [torch.__version__, importlib.metadata.version("lddgan")]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
