"""Several processes as one, on one machine or more, started by torchrun.

Every process holds all weights and works on its share of every batch; gradients are averaged before a step is taken.
This is done by hand rather than by `DistributedDataParallel`, which has no second derivatives (the R1 penalty) and
wants one backward pass for each forward pass.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lddgan.errors import RunStopped, UserError, first_line

TIMEOUT = "LDDGAN_TIMEOUT"
"""Environment variable: seconds after which a process that does not answer ends the run (default 300)."""
_PATIENCE = datetime.timedelta(days=30)  # for what one process does alone, while the others wait


class World:
    """This process among `size`; a world of one unless torchrun started more."""

    def __init__(self, rank: int = 0, size: int = 1, patient: dist.ProcessGroup | None = None) -> None:
        self.rank, self.size, self._patient = rank, size, patient

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def mean_gradients(self, module: nn.Module) -> None:
        """Average the gradients of `module` over all processes, in one message."""
        if self.size == 1:
            return
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        with self._heard():
            dist.all_reduce(flat)
        flat /= self.size
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, mean in zip(gradients, flat.split(sizes), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """The mean of each value over all processes."""
        if self.size == 1:
            return values
        packed = torch.tensor(list(values.values()), dtype=torch.float64)
        with self._heard():
            dist.all_reduce(packed)
        return dict(zip(values, (packed / self.size).tolist(), strict=True))

    def greatest(self, value: int) -> int:
        """The greatest `value` of any process."""
        if self.size == 1:
            return value
        packed = torch.tensor(value)
        with self._heard():
            dist.all_reduce(packed, dist.ReduceOp.MAX)
        return int(packed)

    def share(self, count: int) -> range:
        """The rows of 0 .. `count` - 1 that are this process's: as many in each, but for the last."""
        each = -(-count // self.size)
        return range(min(count, self.rank * each), min(count, (self.rank + 1) * each))

    def gathered(self, rows: Tensor, count: int) -> Tensor:
        """The rows of all `share`s of `count`, in order, in every process."""
        if self.size == 1:
            return rows
        each = -(-count // self.size)
        padded = rows.new_zeros(each, *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        with self._heard():
            dist.all_gather(parts, padded)
        return torch.cat(parts)[:count]

    def wait(self) -> None:
        """Until all processes have come here, however long one of them works alone."""
        if self._patient is not None:
            with self._heard():
                dist.barrier(self._patient)

    @contextlib.contextmanager
    def _heard(self) -> Iterator[None]:
        """Around every message: when another process is gone or silent, gloo raises a plain RuntimeError. NCCL may end
        the process instead, so where it matters a message by gloo goes first."""
        try:
            yield
        except RuntimeError as error:
            raise RunStopped(
                f"process {self.rank} of {self.size} stopped, for another one died or did not answer within "
                f"{_timeout():g} s ({first_line(error)})"
            ) from error


_world = World()


def world() -> World:
    """The world that was joined last."""
    return _world


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Join the processes that torchrun started with this one; without torchrun there is nothing to join.

    Raises:
        UserError: `LDDGAN_TIMEOUT` is not a positive number.
    """
    global _world
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield _world
        return
    timeout, local = datetime.timedelta(seconds=_timeout()), int(os.environ.get("LOCAL_RANK", "0"))
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"several processes cannot share {device.type}: add --device cpu")
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise UserError(
                f"process {local} of this machine has no GPU, there are {torch.cuda.device_count()}: start fewer"
            )
        torch.cuda.set_device(local)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=timeout)
        patient = dist.new_group(backend="gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes did not find each other ({first_line(error)}): start them with torchrun"
        ) from None
    assert isinstance(patient, dist.ProcessGroup)
    _world = World(dist.get_rank(), dist.get_world_size(), patient)
    try:
        yield _world
        dist.destroy_process_group()  # not after an error: it could wait for a process that is gone
    finally:
        _world = World()


def speaks() -> bool:
    """Whether this is the first of the processes that torchrun started, joined or not; alone it is."""
    return os.environ.get("RANK", "0") == "0"


def _timeout() -> float:
    text = os.environ.get(TIMEOUT, "300")
    if not text.replace(".", "", 1).isdigit() or float(text) == 0:
        raise UserError(f"{TIMEOUT} is '{text}': give a number of seconds")
    return float(text)
