"""Finished rows: one small file each, `ROWS/HASH.json` with `HASH.png` beside it, so that a table grows over many
sittings and machines."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from lddgan.config import Config, defaults, identity
from lddgan.errors import UserError
from lddgan.reports.grid import save_grid
from lddgan.runtime.files import atomic_write

VERSION = 2
"""Raise it when a default of the config, or the meaning of a field, changes: older rows are then run again."""
AUTOENCODER_PARTS = ("recipe", "seed", "images.", "autoencoder.", "stage1.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class What:
    """All that decides a row's numbers, but for the hardware. Its hash names the row."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    scale: str
    set: str
    system: str
    """`autoencoder`, or LDDGAN by the objective of its stage 2, each with `-kl` behind it where the latent has a KL
    penalty; or one of the family, such as `ddgan`."""
    config: dict[str, str]
    """`settings` of the config."""
    data_sha256: str
    """Of the training images as the networks see them."""
    protocol: dict[str, Any]
    """`features`, their `weights_sha256`, number of `samples`, `sampling_seed`, and the `reference` split."""
    version: int = VERSION

    @property
    def hash(self) -> str:
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """What was run, and what came out."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    what: What
    config: dict[str, Any]
    """The whole config, for the reader; its `data` is the name of the set, never a path of this machine."""
    seed: int
    scores: dict[str, Any]
    """As `lddgan.metrics.evaluate` gives them, protocol and hardware included; `psnr` of an autoencoder."""
    speed: dict[str, Any] | None
    """As `lddgan.bench` gives it; None for an autoencoder."""
    training: dict[str, Any]
    """`epochs`, `steps`, `minutes` of the loop (None where too short to tell) and the number of training `images`."""
    hardware: str


_ADAPTER: TypeAdapter[Row] = TypeAdapter(Row)


def settings(config: Config, system: str) -> dict[str, str]:
    """The fields of `config` that bear on `system` and are not at their defaults, by dotted name.

    A new field with a default thus leaves the hash of older rows as it was. Stage 2 does not bear on an autoencoder.
    """
    unsaid = defaults()
    return {
        name: value
        for name, value in identity(config).items()
        if unsaid.get(name) != value and (not system.startswith("autoencoder") or name.startswith(AUTOENCODER_PARTS))
    }


def save_row(row: Row, folder: str | Path, images: np.ndarray) -> Path:
    """Write `row` and a strip of its images (uint8 `[n, H, W, C]`, eight in a line); the `.json` comes last.

    Raises:
        UserError: the folder cannot be written.
    """
    path = Path(folder) / f"{row.what.hash}.json"
    save_grid(images, path.with_suffix(".png"), columns=8, scale=1, padding=0)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(row), indent=1, allow_nan=False) + "\n")
    return path


def load_row(path: str | Path) -> Row:
    """Read a row.

    Raises:
        UserError: it is missing, damaged, or not what its name says.
    """
    path = Path(path)
    try:
        row = _ADAPTER.validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"there is no row '{path}': check the path") from None
    except (OSError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise UserError(f"the row '{path}' is damaged ({reason}): remove it and run it again") from None
    if row.what.hash != path.stem:
        raise UserError(f"the row '{path}' is damaged (its content has the hash {row.what.hash}): restore or remove it")
    return row


def by_seeds(rows: Iterable[Row]) -> list[list[Row]]:
    """`rows` in groups that differ in nothing but the seed of the training, in the order of their first ones."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        others = {name: value for name, value in row.what.config.items() if name != "seed"}
        same = dataclasses.asdict(dataclasses.replace(row.what, config=others))
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(row)
    return list(groups.values())


def mean_row(rows: Sequence[Row]) -> Row:
    """The first of `rows` with the mean over them all in the place of every score and time."""

    def mean(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {
            name: statistics.mean(part[name] for part in parts)
            if isinstance(value, float) and all(isinstance(part[name], float) for part in parts)
            else value
            for name, value in parts[0].items()
        }

    speeds = [row.speed for row in rows if row.speed is not None]
    return dataclasses.replace(
        rows[0], scores=mean([row.scores for row in rows]), speed=mean(speeds) if len(speeds) == len(rows) else None
    )


def load_rows(folder: str | Path) -> list[Row]:
    """All rows in `folder`, in an order that hangs on nothing but them; none where there is no folder.

    Raises:
        UserError: one is damaged.
    """
    rows = [load_row(path) for path in sorted(Path(folder).glob("*.json"))]
    return sorted(rows, key=lambda row: (row.what.set, row.what.system, row.seed, row.scores["score"], row.what.hash))
