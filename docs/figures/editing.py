"""Draws the pictures of docs/editing.md with the demo's model: `python docs/figures/editing.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lddgan import Pipeline
from lddgan.data.prepare import prepare
from lddgan.reports.grid import save_grid

OUT = Path(__file__).parents[1] / "images"
DIGITS = slice(20, 28)


def main() -> None:
    pipe = Pipeline.from_pretrained("demo", "cpu")
    images = np.array(prepare("digits", resolution=8).images[DIGITS])
    count = len(images)
    rows = [pipe.interpolate(a, b, 2 * count) for a, b in ((0, 1), (2, 3), (4, 5))]
    save_grid(np.concatenate(rows), OUT / "editing-morph.png", columns=2 * count)
    rows = [images, *(pipe.vary(images, strength, seed=1) for strength in (0.25, 0.5, 0.75, 1.0))]
    save_grid(np.concatenate(rows), OUT / "editing-vary.png", columns=count)
    mask = np.zeros((8, 8), bool)
    mask[4:] = True
    shown = np.where(mask[..., None], np.uint8(128), images)
    rows = [images, shown, pipe.fill(images, mask, seed=0), pipe.fill(images, mask, seed=1)]
    save_grid(np.concatenate(rows), OUT / "editing-fill.png", columns=count)


if __name__ == "__main__":
    main()
