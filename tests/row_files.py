"""Made-up rows, as `lddgan reproduce --run` would write them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from lddgan.config import to_dict
from lddgan.recipes import recipe
from lddgan.reports.rows import Row, What, save_row, settings

RECIPES = {
    ("small", "cifar10"): "cifar10-small",
    ("small", "digits"): "demo",
    ("paper", "cifar10"): "cifar10",
    ("paper", "celebahq256"): "celebahq256",
}


def made_up(system: str, set_name: str = "cifar10", scale: str = "small", **changes: Any) -> Row:
    """FD[resnet56] 12.345, recall 0.3, 0.5 s a batch; an autoencoder's PSNR is 27.5. `changes` are of the scores."""
    family = {"ddgan": "cifar10-ddgan-small", "wddgan": "cifar10-wddgan-small", "uvit-tiny": "cifar10-uvit-tiny-small"}
    config = recipe(family.get(system, RECIPES[scale, set_name]))
    objective, is_autoencoder = system.removesuffix("-kl"), system.startswith("autoencoder")
    if system.endswith("-kl"):
        config = dataclasses.replace(config, autoencoder=dataclasses.replace(config.autoencoder, kind="kl"))
    if not is_autoencoder and system not in family:
        config = dataclasses.replace(config, stage2=dataclasses.replace(config.stage2, objective=objective))
    what = What(
        scale=scale, set=set_name, system=system, config=settings(config, system), data_sha256="d" * 64,
        protocol={"features": "resnet56", "samples": 10_000},
    )  # fmt: skip
    scores: dict[str, Any] = {
        "score": "FD[resnet56]", "frechet_distance": 12.345, "precision": 0.7, "recall": 0.3,
        "n_samples": 10_000, "n_reference": 50_000, "reference": {"split": "train"}, "hardware": "a test",
    }  # fmt: skip
    speed = {"nfe": 4, "batch": 100, "trials": 10, "batch_seconds": 0.5, "hardware": "a test"}
    if is_autoencoder:
        scores["psnr"] = 27.5
    return Row(
        what=what, config=to_dict(dataclasses.replace(config, data=set_name)), seed=0, scores=scores | changes,
        speed=None if is_autoencoder else speed,
        training={"epochs": 2, "steps": 1562, "images": 50_000, "minutes": 14.2}, hardware="a test, 2 threads",
    )  # fmt: skip


def save_made_up(folder: Path, *rows: Row) -> None:
    """With 40 images each, all of one colour."""
    for number, row in enumerate(rows):
        images = row.config["images"]
        shape = (40, images["resolution"], images["resolution"], images["channels"])
        save_row(row, folder, np.full(shape, 40 * number % 200 + 60, np.uint8))


def with_seed(row: Row, seed: int) -> Row:
    """The same with another seed of its training, which its name follows."""
    what = dataclasses.replace(row.what, config={**row.what.config, **({"seed": str(seed)} if seed else {})})
    return dataclasses.replace(row, what=what, config={**row.config, "seed": seed}, seed=seed)
