"""A run: a folder in which both stages train, may be stopped at any moment, and go on.

config.yaml  checkpoints/  curves/  curves.png  tensorboard/
reconstructions.png  autoencoder.safetensors  cache/  samples/  samples.png
model/ (the last EMA generator)  best/ (the one with the smallest FD[latent])
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from tqdm import tqdm

from lddgan.autoencoder.train import train_autoencoder
from lddgan.config import Config, identity, load_yaml, save_yaml
from lddgan.data.latents import cached_latents, to_uint8, weights_hash
from lddgan.data.prepare import ImageSet, prepare
from lddgan.errors import RunStopped, UserError
from lddgan.gan.evaluate import least_images
from lddgan.gan.train import Reporting, train_gan
from lddgan.models import build_generator, build_space, load_model, load_weights, save_model, save_weights
from lddgan.reports.grid import save_grid
from lddgan.runtime.device import describe, resolve_device
from lddgan.runtime.files import atomic_write, ensure_folder, remove_leftovers
from lddgan.spaces.latent import LatentSpace


def start_run(config: Config, folder: Path, *, device: str, skip_broken: bool, init: str | None = None) -> None:
    """Start a run in a new `folder`; `init` names a model folder whose weights both stages start from.

    Raises:
        UserError: bad data, an occupied or unwritable folder, an `init` of other sizes.
        RunStopped: interrupted, not finite, or the disk is full.
    """
    if (folder / "config.yaml").exists():
        raise UserError(f"'{folder}' already holds a run: continue it with --resume {folder}, or choose another --out")
    resolve_device(device)  # this and the next before anything is written: bad input leaves no folder behind
    starting = load_model(init) if init else None
    if starting:
        _require_same_networks(starting[0], config, f"the model '{init}'")
    images = load_images(config, skip_broken)
    ensure_folder(folder)
    if starting:
        save_model(folder / "init", *starting)
    save_yaml(config, folder / "config.yaml")  # last: a folder that has it is a run that can be resumed
    _train(config, folder, images, device)


def resume_run(folder: Path, *, device: str, skip_broken: bool) -> None:
    """Go on with the run in `folder`, to the same bits (on a CPU) as one that was never stopped.

    Raises:
        UserError: no run there, or its config or data changed.
        RunStopped: as `start_run`.
    """
    if not (folder / "config.yaml").exists():
        raise UserError(f"'{folder}' holds no run to resume (no config.yaml): check the path")
    config = load_yaml(folder / "config.yaml")
    remove_leftovers(folder)
    _train(config, folder, load_images(config, skip_broken), device)


def load_images(config: Config, skip_broken: bool) -> tuple[ImageSet, ImageSet]:
    """The training and the held-out images of a config.

    Raises:
        UserError: as `lddgan.data.prepare.prepare`; no data is named; too few images to train on.
    """
    if not config.data:
        raise UserError(f"the recipe '{config.recipe}' needs images: give --data PATH")
    sets = []
    for split in ("train", "test"):
        part = prepare(
            config.data, split=split, resolution=config.images.resolution, channels=config.images.channels,
            skip_broken=skip_broken,
        )  # fmt: skip
        if part.skipped:
            tqdm.write(f"left out {len(part.skipped)} broken images of the {split} split, first {part.skipped[0]}")
        sets.append(part)
    least = least_images(config.autoencoder.latent_channels)
    if len(sets[0]) < least:
        raise UserError(f"'{config.data}' holds {len(sets[0])} training images, too few: give at least {least}")
    return sets[0], sets[1]


def _require_same_networks(starting: Config, config: Config, origin: str) -> None:
    ours, theirs = identity(config), identity(starting)
    for name, value in theirs.items():
        if name.split(".")[0] in ("autoencoder", "generator") or name == "images.channels":
            if value != ours[name]:
                raise UserError(f"{origin} has {name} {value}, not {ours[name]}: set --{name} '{value}'")


def _train(config: Config, folder: Path, images: tuple[ImageSet, ImageSet], device_name: str) -> None:
    device = resolve_device(device_name)
    train, held_out = images
    started = time.monotonic()
    space, generator = build_space(config), build_generator(config)
    initialised = (folder / "init").is_dir()
    if initialised:
        load_weights(space, folder / "init" / "autoencoder.safetensors")
        load_weights(generator, folder / "init" / "generator.safetensors")
    try:
        train_autoencoder(config, space.autoencoder, train, held_out, folder, device, initialised)
        space.autoencoder.eval().requires_grad_(False)
        space.to(device)
        latents = cached_latents(ensure_folder(folder / "cache"), space, train, config.images.flips, device)
        space.set_statistics(latents.mean, space.autoencoder.channel_scale(latents.std))
        save_weights(space, folder / "autoencoder.safetensors")
        reporting = _reporting(config, folder, space)
        train_gan(config, generator, latents, lambda raw: space.normalise(raw.to(device)), folder, device, reporting)
    except RunStopped as stop:
        how = f"; go on with: lddgan train --resume {folder}" if stop.resumable else ""
        raise RunStopped(f"{stop}{how}", stop.exit_code) from stop
    except KeyboardInterrupt:
        raise RunStopped(f"stopped; go on with: lddgan train --resume {folder}", 130) from None
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunStopped(
            f"could not write to '{folder}' ({reason}): mend that and go on with: lddgan train --resume {folder}"
        ) from error
    minutes = (time.monotonic() - started) / 60
    facts = {"hardware": describe(device), "seed": config.seed, "minutes_since_start_or_resume": round(minutes, 2),
             "training_images": len(train), "weights": weights_hash(generator)}  # fmt: skip
    with atomic_write(folder / "run.json") as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n")


def _reporting(config: Config, folder: Path, space: LatentSpace) -> Reporting:
    def show(x_0: Tensor, step: int) -> None:
        with torch.inference_mode():
            images = to_uint8(torch.cat([space.decode(part) for part in x_0.split(64)])).cpu().numpy()
        save_grid(images, folder / "samples" / f"{step:07d}.png")
        save_grid(images, folder / "samples.png")

    def keep(ema_generator: nn.Module, name: str) -> None:
        save_model(folder / name, config, space, ema_generator)

    return Reporting(show, keep)
