"""Where the time of a batch goes, plain and ours, and that both draw the same images.

    python benchmarks/where.py [MODEL] [--batch 64] [--picture same.png] [--device cpu]

MODEL is a model or the name of one that ships (default cifar10-small). The picture has 12 images by the plain baseline,
the same by ours, and 32 times their difference on grey. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from plain import plain_drawer
from samples import exit_code

from lddgan.pipeline import ENGINES, Pipeline
from lddgan.reports.grid import save_grid
from lddgan.runtime.device import describe, resolve_device

KINDS = {
    "copies, padding and layout": ("copy_", "clone", "contiguous", "cat", "pad", "fill", "zero", "empty", "reorder"),
    "convolution": ("convolution", "conv2d", "conv_transpose"),
    "norm": ("norm",),
    "matrix product and attention": ("addmm", "::mm", "bmm", "linear", "attention"),
    "element by element": ("silu", "relu", "mul", "add", "div", "sub", "clamp", "tanh", "round", "sqrt", "gelu"),
}
SHOWN, CONTRAST = 12, 32


def shares(work: Callable[[], object], device: torch.device) -> dict[str, float]:
    """The share of each kind of operation in the time of `work`, which was run before."""
    activity = torch.profiler.ProfilerActivity
    on_gpu = device.type == "cuda"
    with torch.profiler.profile(activities=[activity.CUDA if on_gpu else activity.CPU]) as profile:
        work()
    times = dict.fromkeys([*KINDS, "the rest"], 0.0)
    for row in profile.key_averages():
        kind = next((kind for kind, parts in KINDS.items() if any(part in row.key for part in parts)), "the rest")
        times[kind] += row.self_device_time_total if on_gpu else row.self_cpu_time_total
    total = sum(times.values())
    return {kind: round(time / total, 3) for kind, time in times.items()}


def run(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Where the time goes, and that the images are the same.")
    parser.add_argument("model", nargs="?", default="cifar10-small")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--engine", default="auto", choices=ENGINES)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    device = resolve_device(args.device)
    pipe = Pipeline.from_pretrained(args.model, device.type, engine=args.engine)
    count = max(args.batch, SHOWN)
    plain = plain_drawer(pipe, range(args.batch), pipe.decoder)

    def ours() -> np.ndarray:
        return pipe.draw(range(args.batch))

    theirs, images = plain_drawer(pipe, range(count), pipe.decoder)(), pipe.draw(range(count))
    ours()
    profiles = {"plain": shares(plain, device), "ours": shares(ours, device)}
    print(f"{'':<30} {'plain':>7} {'ours':>7}")
    for kind in profiles["plain"]:
        print(f"{kind:<30} {profiles['plain'][kind]:>7.1%} {profiles['ours'][kind]:>7.1%}")
    apart = np.abs(images.astype(int) - theirs)
    print(f"{count} images: at most {apart.max()} grey levels apart, {apart.mean():.4f} on average ({pipe.drawn_in})")
    if args.picture:
        difference = (128 + CONTRAST * (images.astype(int) - theirs)).clip(0, 255).astype(np.uint8)
        save_grid(np.concatenate([part[:SHOWN] for part in (theirs, images, difference)]), args.picture, columns=SHOWN)
    result = {
        "model": args.model, "hardware": describe(device), "torch": torch.__version__, "batch": args.batch,
        "precision": pipe.drawn_in, "levels_max": int(apart.max()), "levels_mean": round(float(apart.mean()), 5),
        "profile": profiles,
    }  # fmt: skip
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(run))
