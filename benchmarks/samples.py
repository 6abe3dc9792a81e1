"""What the benchmarks share: where the samples come from, and how a result is printed."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

import lddgan
from lddgan import UserError
from lddgan.runtime.device import describe, resolve_device


def parser(description: str, n: int) -> argparse.ArgumentParser:
    """Options of every benchmark that measures samples."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("model", nargs="?", help="a model or run folder, or the name of a shipped model")
    options.add_argument("--samples", type=Path, help="an .npz of uint8 images [N, H, W, C] instead of a model")
    options.add_argument("--n", type=int, default=n, help="number of samples (default %(default)s)")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    options.add_argument("--json", action="store_true", help="print the JSON line alone")
    return options


def draw_samples(args: argparse.Namespace) -> tuple[np.ndarray, dict[str, Any]]:
    """The first `args.n` samples, uint8 `[n, H, W, C]`, and the facts that every result carries.

    Raises:
        UserError: not exactly one of model and samples is given, or the file does not hold enough images.
    """
    if (args.model is None) == (args.samples is None):
        raise UserError("give either a model folder or --samples X.npz")
    start = time.monotonic()
    if args.samples is not None:
        samples = read_npz(args.samples)[: args.n]
        if len(samples) < args.n:
            raise UserError(f"'{args.samples}' holds only {len(samples)} images: lower --n or draw more")
    else:
        samples = lddgan.Pipeline.from_pretrained(args.model, device=args.device)(args.n, seed=args.seed)
    facts = {
        "source": str(args.samples or args.model),
        "samples": len(samples),
        "seed": None if args.samples else args.seed,
        "hardware": describe(resolve_device(args.device)),
        "sampling_seconds": round(time.monotonic() - start, 1),
    }
    return samples, facts


def read_npz(path: Path) -> np.ndarray:
    """The one array of uint8 images `[N, H, W, C]` in `path`.

    Raises:
        UserError: the file cannot be read or does not hold exactly one such array.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images = [a for a in (arrays[key] for key in arrays.files) if a.ndim == 4 and a.dtype == np.uint8]
    except (OSError, ValueError, EOFError, TypeError, AttributeError, BadZipFile) as error:
        raise UserError(
            f"cannot read '{path}' as an .npz of images: give the file that `lddgan sample` wrote"
        ) from error
    if len(images) != 1:
        raise UserError(f"'{path}' holds {len(images)} arrays of uint8 images [N, H, W, C]: it must hold exactly one")
    return images[0]


def print_result(table: list[tuple[str, ...]], facts: dict[str, Any], values: dict[str, Any], json_only: bool) -> None:
    """The facts and the table, then both facts and values as one JSON line."""
    if not json_only:
        print("\n".join(f"{key.replace('_', ' ')}: {value}" for key, value in facts.items()) + "\n")
        widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
        for row in table:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        print()
    print(json.dumps({**facts, **values}))


def exit_code(main: Callable[[], int]) -> int:
    """Run `main`; bad input is one sentence and code 2."""
    try:
        return main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
