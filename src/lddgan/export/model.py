"""A model in another engine's form, compared with the Python sampler before it is left there."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lddgan.drawing import WholeSampler, levels_apart
from lddgan.errors import UserError
from lddgan.export.formats import Run, write_onnx, write_openvino, write_torch, write_web
from lddgan.export.sampler import export_sampler
from lddgan.pipeline import Pipeline
from lddgan.runtime.files import ensure_folder

Write = Callable[[WholeSampler, Path, bool], Run]
FORMATS: dict[str, tuple[Write, str]] = {
    "onnx": (write_onnx, ".onnx"),
    "torch": (write_torch, ".pt2"),
    "openvino": (write_openvino, "-openvino"),
    "web": (write_web, "-web"),
}
"""The writer, and what the name of its file or folder ends in."""
LEVELS = 2
"""Grey levels that an export may be off."""
CHECKED, TIMED, ROUNDS = (1, 3, 4), 16, 5
"""Batches that are compared, images that are timed, and how often; the median counts."""


@dataclass(frozen=True)
class Exported:
    """What was written and how it did.

    Attributes:
        levels: the largest difference to the Python sampler over the batches `CHECKED`.
        python_ms, engine_ms: milliseconds an image in batches of `TIMED`.
        megabytes: of all files.
    """

    path: Path
    levels: int
    python_ms: float
    engine_ms: float
    megabytes: float


def export_model(pipe: Pipeline, form: str, path: Path, *, half: bool = False) -> Exported:
    """Write the whole sampler of `pipe` as `form`, one of `FORMATS`.

    Args:
        half: round weights to float16, and store the large ones so (torch stores float32 all the same).

    Raises:
        UserError: `path` exists, the engine is not installed, or what it computes is off; nothing is left then.
    """
    if path.exists():
        raise UserError(f"'{path}' is there already: remove it, or give another name with --out")
    ensure_folder(path.parent)
    write, _ = FORMATS[form]
    sampler = export_sampler(pipe, half)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        written = Path(temporary) / path.name
        run = write(sampler, written, half)
        levels = _compare(pipe, sampler, run)
        if levels > LEVELS:
            raise UserError(
                f"the {form} export draws images that are {levels} grey levels off, more than {LEVELS}: it was "
                "removed; try another format, or float32"
            )
        python_ms, engine_ms = _time(pipe, sampler, run)
        files = [written] if written.is_file() else list(written.rglob("*"))
        megabytes = sum(file.stat().st_size for file in files) / 1e6
        os.replace(written, path) if written.is_file() else shutil.move(written, path)
    return Exported(path, levels, python_ms, engine_ms, megabytes)


def _compare(pipe: Pipeline, sampler: WholeSampler, run: Run) -> int:
    """The largest difference to what `pipe` draws, in grey levels, over several batch sizes; rounding counts too."""
    worst = 0
    for seed, count in enumerate(CHECKED):
        noise, z = sampler.inputs(count, seed)
        worst = max(worst, levels_apart(run(noise.numpy(), z.numpy()), pipe.draw(range(count), seed)))
    return worst


def _time(pipe: Pipeline, sampler: WholeSampler, run: Run) -> tuple[float, float]:
    """Milliseconds an image of the Python sampler and of the engine, taken in turns."""
    noise, z = (part.numpy() for part in sampler.inputs(TIMED))
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for taken, draw in zip(times, (lambda: pipe.draw(range(TIMED)), lambda: run(noise, z)), strict=True):
            started = time.perf_counter()
            draw()
            taken.append(1e3 * (time.perf_counter() - started) / TIMED)
    return statistics.median(times[0]), statistics.median(times[1])
