"""Does `lddgan evaluate` give the distances that are known for CIFAR-10? Four sets made from the test images.

    python benchmarks/known_distances.py --data PATH --features-weights resnet56.safetensors [--work FOLDER]

The test images as they are, with noise of std 0.05 (clamped to [0, 1]), blurred (2x2 average, bilinear up), and the
first five classes by name alone, each against 10,000 evenly spread training images, in ResNet-56 features. Each goes
through the command line as a user's own set would: an `.npz`, or a folder of class folders. Beside each stands the
distance measured elsewhere on the JPEG copy of CIFAR-10; a large one that is off by more than 10 % is marked and makes
the exit code 1. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from samples import exit_code

from lddgan.data.prepare import ImageSet, prepare

KNOWN = {"as they are": 0.03, "noise 0.05": 12.5, "blurred": 16.5, "five classes": 5.05}
TOLERANCE = 0.10
N = 10_000


def noisy(images: np.ndarray) -> np.ndarray:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)) * 0.05
    return ((torch.from_numpy(images) / 255 + noise).clamp(0, 1) * 255).round().byte().numpy()


def blurred(images: np.ndarray) -> np.ndarray:
    small = F.avg_pool2d(torch.from_numpy(images).permute(0, 3, 1, 2).float(), 2)
    large = F.interpolate(small, scale_factor=2, mode="bilinear")
    return large.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def write_five_classes(test: ImageSet, folder: Path) -> Path:
    """The images of the first five classes, as PNGs in class folders."""
    assert test.labels is not None
    for index in np.flatnonzero(test.labels < 5):
        path = folder / test.classes[test.labels[index]] / f"{index:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            Image.fromarray(test.images[index]).save(path)
    return folder


def measure(samples: Path, args: argparse.Namespace) -> float:
    command = [
        sys.executable, "-c", "from lddgan.cli.main import main; main()", "evaluate", "--samples", str(samples),
        "--data", args.data, "--n-reference", str(N), "--features", "resnet56", "--features-weights",
        str(args.features_weights), "--out", str(args.work / f"{samples.stem}.json"), "--json",
    ]  # fmt: skip
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["frechet_distance"]


def run(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Known distances, measured by lddgan evaluate.")
    parser.add_argument("--data", required=True, help="CIFAR-10 as a folder or zip")
    parser.add_argument("--features-weights", type=Path, required=True, help="safetensors file of the ResNet-56")
    parser.add_argument("--work", type=Path, default=Path("runs/known-distances"), help="where the sets are written")
    args = parser.parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    test = prepare(args.data, split="test", resolution=32, channels=3)
    images, sets = np.array(test.images), {}
    for name, make in (("as they are", np.array), ("noise 0.05", noisy), ("blurred", blurred)):
        sets[name] = args.work / f"{name.replace(' ', '-')}.npz"
        np.savez(sets[name], make(images))
    sets["five classes"] = write_five_classes(test, args.work / "five-classes")
    measured = {name: measure(path, args) for name, path in sets.items()}
    missed = [n for n, known in KNOWN.items() if known > 1 and abs(measured[n] / known - 1) > TOLERANCE]
    for name, value in measured.items():
        print(f"{name:<14}{value:>9.3f}   known {KNOWN[name]:<6} {'MISSED' if name in missed else ''}".rstrip())
    print(json.dumps(measured))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(exit_code(run))
