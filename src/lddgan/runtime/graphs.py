"""Work on a GPU that is recorded once and replayed: Python launches its kernels at once, not one by one.

The kernels of networks as small as ours are over before Python has launched the next one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from lddgan.errors import first_line

Pool = Any
"""Memory of recorded work. Of all that shares it one runs at a time; what it gives lasts until it is called again, or
something that was recorded before it."""


class Recording:
    """`work(*given)`, recorded as a CUDA graph.

    Args:
        work: the same kernels at every call, on tensors of the sizes of `given` and on others that stay where they are
            (weights, gradients). It is called twice here.
        given: tensors, also within lists, tuples and dictionaries.
        pool: of `torch.cuda.graph_pool_handle`.

    Raises:
        RuntimeError: out of memory, or something in `work` cannot be recorded.
    """

    def __init__(self, work: Callable[..., Any], given: tuple[Any, ...], pool: Pool) -> None:
        held = tree_map_only(Tensor, torch.clone, given)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # whatever is set up at a first call may not be recorded
            work(*held)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # What other threads do on the GPU meanwhile is no concern of this recording.
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._result = work(*held)
        self._held = _tensors(held)

    def __call__(self, *given: Any) -> Any:
        """What `work` gives for these, in the pool's memory."""
        for held, tensor in zip(self._held, _tensors(given), strict=True):
            held.copy_(tensor)
        self._graph.replay()
        return self._result


class Graphs:
    """Calls work by name (`run(name, work, *given)`) and replays what it has recorded of that name and those sizes.

    All share one pool (see there how long what they give lasts). Away from a GPU work is called as it is, and so it is
    from the first time on that something cannot be recorded, for want of memory say.
    """

    def __init__(self, device: torch.device) -> None:
        self._on = device.type == "cuda"
        self._recordings: dict[Hashable, Recording] = {}
        self._pool = torch.cuda.graph_pool_handle() if self._on else None

    def __call__(self, name: Hashable, work: Callable[..., Any], *given: Any) -> Any:
        if not self._on:
            return work(*given)
        key = (name, tuple(tensor.shape for tensor in _tensors(given)))
        if key not in self._recordings:
            try:
                self._recordings[key] = Recording(work, given, self._pool)
            except RuntimeError as error:
                self._on = False
                self._recordings.clear()
                torch.cuda.empty_cache()
                print(f"steps go on without CUDA graphs, slower: {first_line(error)}", file=sys.stderr)
                return work(*given)
        return self._recordings[key](*given)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
