"""Does the memory of `lddgan evaluate` stay flat? Peak resident memory at 1,000 and at 50,000 samples.

    python benchmarks/memory.py --samples X.npz --data PATH [--features NAME] [--features-weights PATH] [--n 1000 50000]

Each count runs in a process of its own, which tells its own peak. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from samples import exit_code

CHILD = (
    "import resource; from lddgan.cli.main import main; main(); "
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
)


def peak_mib(arguments: list[str], n: int) -> float:
    """Peak resident memory in MiB of one evaluation of `n` samples against `n` reference images, without its cache."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", CHILD, "evaluate", *arguments, "--n", str(n), "--n-reference", str(n)]
        environment = {**os.environ, "LDDGAN_CACHE": folder}
        output = subprocess.run(
            [*command, "--out", f"{folder}/metrics.json"],
            check=True,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        ).stdout
    return int(output.strip().splitlines()[-1]) / 1024


def run(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Peak memory of lddgan evaluate.")
    parser.add_argument("--n", type=int, nargs="+", default=[1000, 50_000])
    args, rest = parser.parse_known_args(argv)
    peaks = {n: round(peak_mib(rest, n)) for n in args.n}
    for n, peak in peaks.items():
        print(f"{n:>8,} samples  {peak:>6,} MiB")
    print(json.dumps(peaks))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(run))
