"""How long the first image takes: of a program that has started, and of `lddgan sample` from nothing.

    python benchmarks/latency.py [MODEL] [--rounds 5] [--device cpu]

MODEL is a recipe with weights as large as trained ones (default cifar10), or a model. The cold start is that of the
command line with a model (default demo), in turns with the same by the plain baseline. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from samples import exit_code
from sampling import pipeline

from lddgan.bench import timed
from lddgan.models import is_ours
from lddgan.pipeline import ENGINES, Pipeline
from lddgan.recipes import RECIPES
from lddgan.runtime.device import describe, resolve_device

TRIALS = 30
COLD_PLAIN = """
import sys; from pathlib import Path
from plain import plain_drawer; from lddgan import Pipeline; from lddgan.reports.grid import save_grid
model, device, out = sys.argv[1:]
pipe = Pipeline.from_pretrained(model, device)
save_grid(plain_drawer(pipe, range(16), pipe.decoder)(), Path(out))
"""
"""What `lddgan sample -n 16` does, by the plain baseline."""


def cold_starts(model: str, rounds: int, device: torch.device) -> tuple[float, float]:
    """Median seconds of `lddgan sample MODEL -n 16` from nothing, and of the same the plain way, in turns."""
    program = [sys.executable, "-c"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    with tempfile.TemporaryDirectory() as folder:
        sample = ["sample", model, "-n", "16", "--device", device.type, "--out", f"{folder}/ours.png"]
        ours = [*program, "from lddgan.cli.main import main; main()", *sample]
        plain = [*program, COLD_PLAIN, model, device.type, f"{folder}/plain.png"]

        def start(command: list[str]) -> float:
            quiet = subprocess.DEVNULL
            return timed(
                lambda: subprocess.run(command, check=True, stdout=quiet, stderr=quiet, env=environment), device
            )

        times = [(start(ours), start(plain)) for _ in range(rounds)]
    return statistics.median(a for a, _ in times), statistics.median(b for _, b in times)


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
    cold, cold_plain = cold_starts(args.cold, args.rounds, device)
    spread = f"({low * 1e3:.1f} to {high * 1e3:.1f}), the very first {very_first * 1e3:.1f} ms"
    print(f"{args.model}, {pipe.decoder} decoder, engine {pipe.engine}: first image {median * 1e3:.1f} ms {spread}")
    print(f"lddgan sample {args.cold} -n 16, from nothing: {cold:.2f} s, the plain way: {cold_plain:.2f} s")
    result = {
        "model": args.model, "engine": args.engine, "hardware": describe(device), "torch": torch.__version__,
        "first_image_ms": round(median * 1e3, 2), "very_first_ms": round(very_first * 1e3, 2),
        "cold_seconds": round(cold, 3), "cold_plain_seconds": round(cold_plain, 3),
        "spread": {"first_image_ms": [round(low * 1e3, 2), round(high * 1e3, 2)]},
    }  # fmt: skip
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(run))
