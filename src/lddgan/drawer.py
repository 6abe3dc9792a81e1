"""What draws a batch: eager torch, a CUDA graph, a compiled program or ONNX Runtime."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from lddgan.data.sources import cache_folder
from lddgan.drawing import WholeSampler
from lddgan.errors import UserError
from lddgan.networks import winograd
from lddgan.runtime.graphs import Recording
from lddgan.runtime.parallel import world

ENGINES = ("auto", "torch", "compiled", "onnx")
COMPILE_SECONDS, COMPILED_SHARE = 240.0, 0.25
"""What compiling takes, and the share of the time that it saves, both on the careful side."""
GRAPHS = 4
"""Batch sizes that a graph is kept of."""


class Drawer:
    """Draws with `sampler` by an engine (`Pipeline.engine` says what each is).

    Raises:
        UserError: the engine is not to be had here, or draws other images.
    """

    def __init__(self, sampler: WholeSampler, device: torch.device, engine: str) -> None:
        self.sampler, self.engine, self.on_cpu = sampler, engine, device.type == "cpu"
        self._by_winograd = winograd.rules(sampler.generator)
        self.compiled: dict[int, Callable[[Tensor, Tensor], Tensor]] = {}
        self._looked_for: set[int] = set()
        self._asked: dict[int, int] = {}
        self._any_size: Callable[[Tensor, Tensor], Tensor] = sampler
        if device.type == "cuda":
            self._any_size = GraphedSampler(sampler)
        elif engine == "onnx":
            from lddgan.export.engine import load_onnx_engine

            self._any_size = load_onnx_engine(sampler, sampler)

    @torch.inference_mode()
    def __call__(self, noise: Tensor, z: Tensor) -> Tensor:
        """As `WholeSampler.forward`."""
        count = len(noise)
        size = count
        if count not in self.compiled:
            # The rest of a set goes into a larger program or graph, beside rows that nobody looks at.
            size = min((size for size in self.compiled if count <= size <= 16 * count), default=count)
            self._asked[count] = self._asked.get(count, 0) + 1
            if size == count or self._asked[count] > 1:  # unless it comes again: then it is no rest
                size = count
                if self.engine == "compiled" or self._was_compiled(size):
                    self._compile(size)
        if size not in self.compiled:
            return self._any_size(noise, z)
        return self.compiled[size](_padded(noise, size), _padded(z, size))[:count]

    @torch.inference_mode()
    def compile_where_it_pays(self, batch: int, seconds_left: float) -> None:
        """Compile for batches of `batch` if that takes less than it would save of `seconds_left`; several processes
        agree, one compiles, and the others take what it has made."""
        if self.engine != "auto" or not self.on_cpu or batch in self.compiled:
            return
        everyone = world()
        pays = COMPILED_SHARE * seconds_left > COMPILE_SECONDS and not self._by_winograd
        if not everyone.greatest(not pays):
            if everyone.first:
                self._compile(batch)
            everyone.wait()
            if not everyone.first and self._was_compiled(batch, again=True):
                self._compile(batch)
            everyone.wait()

    @property
    def _automatic(self) -> bool:
        return self.engine == "auto" and self.on_cpu and not self._by_winograd

    def _was_compiled(self, count: int, again: bool = False) -> bool:
        """Whether there is a program for `count` images; it is looked for once, as that hashes all weights."""
        if not self._automatic or (count in self._looked_for and not again):
            return False
        self._looked_for.add(count)
        if not any((cache_folder() / "engines").glob(f"*-{count}")):
            return False
        from lddgan.export.engine import compiled_path

        return compiled_path(self.sampler, count).exists()

    def _compile(self, count: int) -> None:
        """Where nobody asked for it and it cannot be done, one line says so and drawing goes on."""
        from lddgan.export.engine import load_compiled

        try:
            self.compiled[count] = load_compiled(self.sampler, count, self.sampler)
        except UserError as error:
            if not self._automatic:
                raise
            self.engine = "torch"
            print(f"drawing goes on without compiling: {error}", file=sys.stderr)


class GraphedSampler:
    """A `WholeSampler` on a GPU, recorded as one CUDA graph for each batch size that comes twice.

    A kernel of a small network is over before Python has launched the next one; a graph launches all of them at once.
    """

    def __init__(self, sampler: WholeSampler) -> None:
        self.sampler = sampler
        self._seen: set[int] = set()
        self._graphs: dict[int, Recording] = {}
        self._pool = torch.cuda.graph_pool_handle()  # one for all, as what a graph gives is copied at once

    @torch.inference_mode()
    def __call__(self, noise: Tensor, z: Tensor) -> Tensor:
        """As the sampler's `forward`."""
        count = len(noise)
        size = count
        if count not in self._seen:  # a size that comes once is not worth a graph of its own
            self._seen.add(count)
            size = min((size for size in self._graphs if count <= size <= 16 * count), default=0)
        elif count not in self._graphs:
            if len(self._graphs) == GRAPHS:
                self._graphs.pop(next(iter(self._graphs)))
            try:
                self._graphs[count] = Recording(self.sampler, (noise, z), self._pool)
            except RuntimeError:  # out of memory, say: without graphs there is more
                self._graphs.clear()
                torch.cuda.empty_cache()
        if size not in self._graphs:
            return self.sampler(noise, z)
        return self._graphs[size](_padded(noise, size), _padded(z, size))[:count].clone()


def _padded(part: Tensor, size: int) -> Tensor:
    """`part` `[B, ...]` with its first row again and again after it, `[size, ...]`."""
    return torch.cat([part, part[:1].expand(size - len(part), *part.shape[1:])]) if size > len(part) else part
