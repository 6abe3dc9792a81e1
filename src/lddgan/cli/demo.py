"""`lddgan demo`: train both stages on real handwritten digits and look at what comes out."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import torch

from lddgan.cli.main import Parser
from lddgan.metrics.manifold import manifold_scores
from lddgan.pipeline import Pipeline
from lddgan.recipes import demo
from lddgan.reports.grid import save_grid
from lddgan.run import load_images, resume_run, start_run
from lddgan.runtime.device import DEVICES, describe
from lddgan.runtime.files import atomic_write


def main(arguments: list[str]) -> None:
    parser = Parser(prog="lddgan demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--device", default="auto", choices=DEVICES)
    options = parser.parse_args(arguments)

    config, folder = demo(), options.out
    started = time.monotonic()
    if (folder / "config.yaml").exists():
        print(f"'{folder}' holds a run: going on with it (remove the folder to start anew)")
        resume_run(folder, device=options.device, skip_broken=False)
    else:
        start_run(config, folder, device=options.device, skip_broken=False)
    minutes = (time.monotonic() - started) / 60
    write_summary(folder, minutes, options.device)


def write_summary(folder: Path, minutes: float, device: str) -> None:
    """`samples.png` of the finished model and `metrics.json`: precision and recall on the pixels."""
    pipe = Pipeline.from_pretrained(folder / "model", device)
    samples = pipe(1000, seed=0)
    save_grid(samples[:100], folder / "samples.png", columns=10)
    train, _ = load_images(pipe.config, skip_broken=False)
    pixels = [torch.from_numpy(np.array(images)).flatten(1).float() for images in (train.images, samples)]
    scores = manifold_scores(pixels[0], pixels[1])
    metrics = {
        "precision": scores.precision, "recall": scores.recall, "features": "pixels", "k": 3,
        "samples": len(samples), "seed": 0, "training_images": len(train), "minutes": round(minutes, 2),
        "hardware": describe(pipe.device),
    }  # fmt: skip
    with atomic_write(folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"trained in {minutes:.1f} minutes; look at '{folder}': samples.png, reconstructions.png, curves.png")
