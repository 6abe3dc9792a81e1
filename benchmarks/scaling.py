"""Do time and memory of drawing grow as they should? 100 to 50,000 images, each count in a process of its own.

    python benchmarks/scaling.py [MODEL] [--n 100 1000 10000] [--plot scaling.png]

`memory_growth` is the peak memory of the largest count over that of the smallest. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from samples import exit_code

from lddgan.runtime.device import describe, resolve_device

CHILD = (
    "import time, resource; from lddgan.cli.main import main; started = time.perf_counter(); main(); "
    "print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
)


def measure(model: str, n: int, device: str) -> tuple[float, float]:
    """Seconds and peak resident MiB of `lddgan sample MODEL -n N` into a zip."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["sample", model, "-n", str(n), "--out", f"{folder}/x.zip", "--device", device]
        output = subprocess.run(
            [sys.executable, "-c", CHILD, *arguments], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True,
        ).stdout  # fmt: skip
    seconds, peak = output.strip().splitlines()[-1].split()
    return float(seconds), int(peak) / 1024


def plot(counts: Sequence[int], seconds: Sequence[float], peaks: Sequence[float], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    for axes, values, name in zip(figure.subplots(1, 2), (seconds, peaks), ("seconds", "peak MiB"), strict=True):
        axes.plot(counts, values, "o-", label="measured")
        axes.set(xlabel="images", ylabel=name, xscale="log", xticks=counts, xticklabels=[f"{n:,}" for n in counts])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    time, memory = figure.axes
    time.plot(counts, [seconds[-1] * n / counts[-1] for n in counts], "--", color="grey", label="in proportion")
    time.set_yscale("log")
    time.legend(frameon=False)
    memory.set_ylim(0, 1.2 * max(peaks))
    figure.savefig(path)


def run(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time and memory of drawing many images.")
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--n", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    device = resolve_device(args.device)
    counts = sorted(args.n)
    seconds, peaks = zip(*(measure(args.model, n, device.type) for n in counts), strict=True)
    for n, second, peak in zip(counts, seconds, peaks, strict=True):
        print(f"{n:>8,} images  {second:>8.1f} s  {n / second:>8.1f} images/s  {peak:>8.0f} MiB")
    if args.plot:
        plot(counts, seconds, peaks, args.plot)
    result = {
        "model": args.model, "hardware": describe(device), "memory_growth": round(peaks[-1] / peaks[0], 3),
        "counts": counts, "seconds": [round(second, 2) for second in seconds],
        "peak_mib": [round(peak) for peak in peaks],
    }  # fmt: skip
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(run))
