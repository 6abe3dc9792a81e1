"""How long the first image takes: of a program that has started, and of `lddgan sample` from nothing.

    python benchmarks/latency.py [MODEL] [--rounds 5] [--device cpu]

MODEL is a recipe with weights as large as trained ones (default cifar10), or a model. The cold start is that of the
command line with a model (default demo). The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import torch
from samples import exit_code
from sampling import pipeline

from lddgan.bench import timed
from lddgan.models import is_ours
from lddgan.pipeline import ENGINES, Pipeline
from lddgan.recipes import RECIPES
from lddgan.runtime.device import describe, resolve_device

TRIALS = 30


def run(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time to the first image.")
    parser.add_argument("model", nargs="?", default="cifar10")
    parser.add_argument("--cold", default="demo", help="the model of the cold start")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engine", default="torch", choices=ENGINES, help="of the first image, not of the cold start")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    device = resolve_device(args.device)
    made = args.model in RECIPES and not is_ours(args.model)
    pipe = pipeline(args.model, device) if made else Pipeline.from_pretrained(args.model, device.type)
    pipe.engine = args.engine
    very_first = timed(lambda: pipe.draw([0]), device)
    times = sorted(timed(lambda i=i: pipe.draw([i]), device) for i in range(TRIALS))
    low, median, high = statistics.quantiles(times, n=4)
    cold = []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", "from lddgan.cli.main import main; main()"]
            started = time.perf_counter()
            subprocess.run(
                [*command, "sample", args.cold, "-n", "16", "--out", f"{folder}/x.png", "--device", device.type],
                check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            cold.append(time.perf_counter() - started)
    spread = f"({low * 1e3:.1f} to {high * 1e3:.1f}), the very first {very_first * 1e3:.1f} ms"
    print(f"{args.model}, {pipe.decoder} decoder, engine {pipe.engine}: first image {median * 1e3:.1f} ms {spread}")
    print(f"lddgan sample {args.cold} -n 16, from nothing: {statistics.median(cold):.2f} s")
    result = {
        "model": args.model, "engine": args.engine, "hardware": describe(device), "torch": torch.__version__,
        "first_image_ms": round(median * 1e3, 2), "very_first_ms": round(very_first * 1e3, 2),
        "cold_seconds": round(statistics.median(cold), 3),
        "spread": {"first_image_ms": [round(low * 1e3, 2), round(high * 1e3, 2)]},
    }  # fmt: skip
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(run))
