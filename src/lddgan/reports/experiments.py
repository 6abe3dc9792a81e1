"""The rows of ours: what each trains, for how long, on which autoencoder; and how one is run, measured and kept.

Run folders lie in the work folder and may go when the rows are there; rows and numbers of epochs are kept for good.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from lddgan.autoencoder.measure import HeldOut
from lddgan.bench import bench
from lddgan.config import Config, to_dict, with_fields
from lddgan.data.latents import to_uint8, to_unit_range, weights_hash
from lddgan.data.prepare import ImageSet
from lddgan.errors import RunStopped, UserError
from lddgan.estimate import model_cost, time_stage2
from lddgan.metrics.evaluate import Reference, evaluate
from lddgan.metrics.features import FeatureNetwork
from lddgan.metrics.measured import Measured, from_model, from_path
from lddgan.models import load_space
from lddgan.pipeline import Pipeline
from lddgan.recipes import recipe
from lddgan.reports.figures import GRID_IMAGES, GRID_SEED
from lddgan.reports.published import TABLES, paper_grid, paper_table
from lddgan.reports.rows import Row, What, save_row, settings
from lddgan.reports.tables import FAMILY, PREDECESSORS, stand_ins
from lddgan.run import load_images, resume_run, start_run
from lddgan.runtime.device import describe, resolve_device
from lddgan.runtime.files import atomic_write

WITH_KL = "-kl"
"""Behind the name of a system whose latent has a KL penalty (Table 7)."""
PROBE_STEPS = 15
"""Steps whose median tells how many fit: what is measured once holds for good."""
MINUTES = 15
"""Of stage 2, for every row of the small scale."""


@dataclasses.dataclass(frozen=True)
class Set:
    """A set of images at a scale: LDDGAN's recipe, the samples of a score, the split whose reconstructions are scored,
    and the batches timed."""

    recipe: str
    samples: int
    reconstructed_split: str = "test"
    trials: int = 300
    family: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Recipes of the systems that are no setting of `recipe`: the predecessors and the ViT."""
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of all its rows that are otherwise than in the recipes."""


SETS: dict[str, dict[str, Set]] = {
    "small": {
        "cifar10": Set(
            "cifar10-small",
            10_000,
            trials=10,
            family={name: f"cifar10-{name}-small" for name in FAMILY},
            changes={"stage2.learning_rate_generator": 3e-4},  # one rate for the whole family
        ),
        # 2,000, as a Gaussian of the 1,280 features of efficientnet-lite0 takes more images than that; for the same
        # reason reconstructions are those of the training images, not of the 80 held out.
        "digits": Set("demo", 2_000, "train", trials=10),
    },
    "paper": {
        "cifar10": Set("cifar10", 50_000, family={name: f"cifar10-{name}" for name in FAMILY}),
        "celebahq256": Set("celebahq256", 50_000, family={name: f"celebahq256-{name}" for name in PREDECESSORS}),
        "lsun-church256": Set(
            "lsun-church256", 50_000, family={name: f"lsun-church256-{name}" for name in PREDECESSORS}
        ),
    },
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """One call's part in the rows: where the images of a set are, where things go, and how they are measured."""

    scale: str
    set: str
    data: str
    seed: int
    work: Path
    out: Path
    network: FeatureNetwork
    device: str

    @property
    def rows(self) -> Path:
        return self.out / "rows"

    @property
    def kind(self) -> Set:
        return SETS[self.scale][self.set]

    def base(self, system: str = "") -> Config:
        """The recipe of `system`, with its autoencoder, which all systems of that autoencoder share; its seed stays
        that of the recipe. What a recipe has beyond the papers is left out: the rows compare theirs."""
        fields: dict[str, Any] = {"data": self.data, "stage2.spread": 0.0, "sample_gain": 1.0, **self.kind.changes}
        if system.endswith(WITH_KL):
            fields["autoencoder.kind"] = "kl"
        return with_fields(recipe(self.kind.family.get(system, self.kind.recipe)), fields)


def wanted(names: Iterable[str], scale: str) -> list[tuple[str, str]]:
    """The (set, system) that the tables and figures `names` show at `scale`, autoencoders first."""
    found: set[tuple[str, str]] = set()
    for name in names:
        if name in TABLES:
            table = paper_table(name)
            parts = [(row.set, row.system) for row in table.rows]
            if any((column.ours or "").startswith("autoencoder.") for column in table.columns):
                kl = [WITH_KL if (row.system or "").endswith(WITH_KL) else "" for row in table.rows]
                parts += [(row.set, f"autoencoder{suffix}") for row, suffix in zip(table.rows, kl, strict=True)]
        elif name == "fig2":
            continue
        elif name == "fig3":
            parts = [(row.set, row.system) for row in paper_table("table3").rows]
        else:
            parts = [(panel.set, panel.system) for panel in paper_grid(name).panels]
        for printed_set, system in parts:
            for name_of_set in stand_ins(printed_set, system):
                if name_of_set in SETS[scale] and system and _is_drawn(SETS[scale][name_of_set], system):
                    found.add((str(name_of_set), system))
    order = ["autoencoder", "autoencoder-kl", "adversarial", "reconstruction", "weighted", "weighted-kl", *FAMILY]
    return sorted(found, key=lambda pair: (list(SETS[scale]).index(pair[0]), order.index(pair[1])))


def _is_drawn(kind: Set, system: str) -> bool:
    """Whether there is a recipe of `system` for the set."""
    return system not in FAMILY or system in kind.family


def run_rows(plan: Plan, systems: Iterable[str]) -> list[Path]:
    """Train and measure those of `systems` that have no row yet; returns the files of the new rows.

    Raises:
        UserError: bad data or folders, a damaged checkpoint.
        RunStopped: interrupted, not finite, or the disk is full; the same call goes on from there.
    """
    try:
        return _run_rows(plan, systems)
    except RunStopped as stop:
        again = "; the same command goes on from there" if stop.resumable else ""
        raise RunStopped(str(stop).split("; go on with: ")[0] + again, stop.exit_code, stop.resumable) from stop
    except KeyboardInterrupt:
        raise RunStopped("stopped; the same command goes on from there", 130) from None


def _run_rows(plan: Plan, systems: Iterable[str]) -> list[Path]:
    systems, written = list(systems), []
    if not systems:
        return []
    images = load_images(plan.base(), skip_broken=False)
    for system in systems:
        config = system_config(plan, system, len(images[0]))
        what = _what(plan, system, config, images[0].hash)
        if (plan.rows / f"{what.hash}.json").exists():
            tqdm.write(f"{plan.set}, {system}: row {what.hash[:8]} is there")
            continue
        tqdm.write(f"{plan.set}, {system}: row {what.hash[:8]}")
        autoencoder = shared_autoencoder(plan, system) if config.autoencoder is not None else None
        if system.startswith("autoencoder") and autoencoder is not None:
            row, pictures = _measure_autoencoder(plan, what, config, autoencoder, images)
        else:
            folder = _train(plan, system, config, autoencoder)
            row, pictures = _measure_model(plan, what, config, folder, len(images[0]))
        written.append(save_row(row, plan.rows, pictures))
    return written


def system_config(plan: Plan, system: str, count: int) -> Config:
    """The config of a system on `count` training images.

    Raises:
        UserError: the file of fixed numbers of epochs is damaged.
    """
    base = plan.base(system)
    if system.startswith("autoencoder"):
        return base
    epochs = base.stage2.epochs if plan.scale == "paper" else fixed_epochs(plan, system, count)
    objective = system.removesuffix(WITH_KL)
    if system in FAMILY:  # a predecessor has its own; the ViT stands beside LDDGAN's last row
        objective = base.stage2.objective if base.autoencoder is None else "weighted"
    return with_fields(base, {"stage2.objective": objective, "stage2.epochs": epochs, "seed": plan.seed})


def fixed_epochs(plan: Plan, system: str, count: int) -> float:
    """Epochs of stage 2 that fit in `MINUTES`, to a hundredth, of `count` images each.

    They are of the recipe: LDDGAN's objectives train for as long as each other. They follow from the rate measured by
    the first call on any machine, and stand in `OUT/steps.json` from then on: Weighted Learning needs its horizon
    beforehand, and rows of several machines must train for as long.

    Raises:
        UserError: the file is damaged.
    """
    file, device = plan.out / "steps.json", resolve_device(plan.device)
    base = plan.base(system if system in FAMILY else "")
    name = f"{plan.set}, {system}" if system in FAMILY else plan.set
    digest = _short(json.dumps(settings(base, "weighted")))  # another recipe is measured anew
    try:
        known = json.loads(file.read_text()) if file.exists() else {}
        if known.get(name, {}).get("settings") == digest:
            return float(known[name]["epochs"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"'{file}' is damaged ({error}): restore it, or remove it to measure anew") from None
    seconds, _ = time_stage2(base, model_cost(base), device, PROBE_STEPS)
    steps_an_epoch = count / base.stage2.batch
    epochs = max(0.01, int(100 * MINUTES * 60 / seconds / steps_an_epoch) / 100)
    known[name] = {
        "epochs": epochs, "steps": max(1, int(epochs * count) // base.stage2.batch), "minutes": MINUTES,
        "seconds_per_step": round(seconds, 5), "rounded": "down to hundredths of an epoch", "training_images": count,
        "recipe": base.recipe, "settings": digest, "hardware": describe(device),
    }  # fmt: skip
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(known, indent=2) + "\n")
    return epochs


def shared_autoencoder(plan: Plan, system: str) -> Path:
    """The run folder of the autoencoder and slim decoder that `system` shares with others; trained if need be."""
    base = plan.base(WITH_KL if system.endswith(WITH_KL) else "")
    name = json.dumps([settings(base, "autoencoder"), str(base.slim_decoder), plan.data])
    folder = plan.work / f"{plan.scale}-{plan.set}-autoencoder-{_short(name)}"
    _finish(plan, dataclasses.replace(base, stages=("autoencoder", "decoder")), folder, {})
    return folder


def _train(plan: Plan, system: str, config: Config, autoencoder: Path | None) -> Path:
    """Stage 2 in an ordinary run folder that is given the shared autoencoder, where there is one."""
    name = json.dumps([settings(config, system), plan.data])
    folder = plan.work / f"{plan.scale}-{plan.set}-{system}-{_short(name)}"
    given: dict[str, nn.Module] = {}
    if autoencoder is not None:
        _, space = load_space(autoencoder)
        given["autoencoder"] = space.autoencoder
        if space.slim_decoder is not None:
            given["slim_decoder"] = space.slim_decoder
    _finish(plan, dataclasses.replace(config, stages=("gan",)), folder, given)
    return folder


def _finish(plan: Plan, config: Config, folder: Path, given: dict[str, nn.Module]) -> None:
    """Start the run in `folder`, go on with it, or leave it if it is done."""
    if not (folder / "config.yaml").exists():
        start_run(config, folder, device=plan.device, skip_broken=False, given=given)
    elif not (folder / "run.json").exists():
        resume_run(folder, device=plan.device, skip_broken=False)


def _what(plan: Plan, system: str, config: Config, data_sha256: str) -> What:
    kind = plan.kind
    protocol = {
        "features": plan.network.name, "weights_sha256": plan.network.weights_hash,
        "samples": "all" if system.startswith("autoencoder") else kind.samples, "sampling_seed": GRID_SEED,
        "reference": kind.reconstructed_split if system.startswith("autoencoder") else "train",
    }  # fmt: skip
    return What(
        scale=plan.scale, set=plan.set, system=system, config=settings(config, system), data_sha256=data_sha256,
        protocol=protocol,
    )  # fmt: skip


def _measure_model(plan: Plan, what: What, config: Config, folder: Path, count: int) -> tuple[Row, np.ndarray]:
    """Scores and speed of the last weights, not the best: no row is chosen by a score."""
    pipe = Pipeline.from_pretrained(folder / "model", plan.device)
    resolution, channels = config.images.resolution, config.images.channels
    samples = from_model(pipe, folder.name, plan.kind.samples, GRID_SEED)
    scores = evaluate(samples, Reference(from_path(plan.data, "train", None, resolution, channels)), plan.network)
    steps = max(1, int(config.stage2.epochs * count) // config.stage2.batch)
    training = {
        "epochs": config.stage2.epochs, "steps": steps, "images": count,
        "minutes": _minutes(folder / "curves" / "stage2.jsonl", steps * config.stage2.batch),
    }  # fmt: skip
    speed = bench(pipe, trials=plan.kind.trials)
    return _row(plan, what, config, scores, speed, training), pipe(GRID_IMAGES, GRID_SEED)


def _measure_autoencoder(
    plan: Plan, what: What, config: Config, folder: Path, images: tuple[ImageSet, ImageSet]
) -> tuple[Row, np.ndarray]:
    """The reconstructions of a split against its originals, as in Table 1, and the PSNR of held-out ones."""
    device, split = resolve_device(plan.device), plan.kind.reconstructed_split
    autoencoder = load_space(folder)[1].autoencoder.to(device)
    resolution, channels = config.images.resolution, config.images.channels
    originals = from_path(plan.data, split, None, resolution, channels)  # type: ignore[arg-type]

    @torch.inference_mode()
    def read(rows: range) -> np.ndarray:
        parts = to_unit_range(torch.from_numpy(originals.read(rows))).split(100)
        return to_uint8(torch.cat([autoencoder(part.to(device)) for part in parts])).cpu().numpy()

    digest = weights_hash(autoencoder)
    facts = {"model": folder.name, "autoencoder_sha256": digest, "count": originals.count}
    key = f"{digest[:24]}-{originals.key[:24]}"
    scores = evaluate(Measured(originals.count, originals.shape, read, key, facts), Reference(originals), plan.network)
    held_out = HeldOut(images[1], lambda network, images: network(images), "")
    scores["psnr"] = held_out.measure(autoencoder, None, device).psnr
    count, stage1 = len(images[0]), config.stage1
    assert stage1 is not None
    steps = max(1, stage1.epochs * count // stage1.batch)
    training = {
        "epochs": stage1.epochs, "steps": steps, "images": count,
        "minutes": _minutes(folder / "curves" / "stage1.jsonl", steps * stage1.batch),
    }  # fmt: skip
    return _row(plan, what, config, scores, None, training), read(range(min(GRID_IMAGES, originals.count)))


def _row(
    plan: Plan, what: What, config: Config, scores: dict[str, Any], speed: dict[str, Any] | None, training: dict
) -> Row:
    named = dataclasses.replace(config, data=plan.set)
    return Row(
        what=what, config=to_dict(named), seed=config.seed, scores=scores, speed=speed,
        training={**training, "finished": time.strftime("%Y-%m-%d")}, hardware=describe(resolve_device(plan.device)),
    )  # fmt: skip


def _minutes(curves: Path, images: int) -> float | None:
    """Of the training loop without its reports, over all sittings, from the logged rates; None without any."""
    rows = [json.loads(line) for line in curves.read_text().splitlines()]
    seconds = [1 / row["images_per_second"] for row in rows if "images_per_second" in row]
    return round(images * sum(seconds) / len(seconds) / 60, 2) if seconds else None


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
