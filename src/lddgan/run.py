"""A run: a folder in which the stages train, may be stopped at any moment, and go on.

config.yaml  init/ (weights it starts from)  checkpoints/  curves/  curves.png  tensorboard/
reconstructions.png  reconstructions-slim.png  autoencoder.safetensors  cache/  samples/  samples.png
model/ (the last EMA generator)  best/ (the one with the smallest Frechet distance to the training set)

A run in another than a latent space has no autoencoder, no reconstructions and no cache.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from tqdm import tqdm

from lddgan.autoencoder.model import Autoencoder
from lddgan.autoencoder.perceptual import perceptual_of
from lddgan.autoencoder.tasks import train_autoencoder, train_slim_decoder
from lddgan.config import STAGES, Config, UVitConfig, identity, load_yaml, save_yaml
from lddgan.data.latents import Latents, OnTheFly, TrainingSet, cached_latents, to_uint8, weights_hash
from lddgan.data.prepare import ImageSet, prepare
from lddgan.errors import RunStopped, UserError
from lddgan.gan.train import Reporting, train_gan
from lddgan.metrics.pooled import least_images
from lddgan.models import (
    build_generator,
    build_space,
    load_model,
    load_weights,
    require_whole,
    save_model,
    save_weights,
)
from lddgan.networks.discriminator import group_shares
from lddgan.reports.grid import save_grid
from lddgan.runtime.device import describe, resolve_device
from lddgan.runtime.files import atomic_write, ensure_folder, remove_leftovers
from lddgan.runtime.parallel import joined, world
from lddgan.spaces.latent import LatentSpace
from lddgan.spaces.space import Space


def start_run(
    config: Config, folder: Path, *, device: str, skip_broken: bool, init: str | None = None,
    given: Mapping[str, nn.Module] | None = None,
) -> None:  # fmt: skip
    """Start a run in a new `folder`.

    Args:
        init: a model folder whose weights the run starts from.
        given: trained networks of the config's sizes by name (`autoencoder`, `slim_decoder`); those whose stage is left
            out take the place of training one.

    Raises:
        UserError: bad data, an occupied or unwritable folder, an `init` of other sizes, a stage left out whose
            weights come from nowhere, or a perceptual distance without its weights.
        RunStopped: interrupted, not finite, or the disk is full.
    """
    with joined(resolve_device(device)) as everyone:  # bad input leaves no folder behind, a device that is not here too
        images = _prepare(config, folder, skip_broken, init, given) if everyone.first else None
        everyone.wait()
        config = load_yaml(folder / "config.yaml")  # the first has written what there is to know
        images = images or load_images(config, skip_broken)
        everyone.wait()
        _train(config, folder, images, device, skip_broken)


def _prepare(
    config: Config, folder: Path, skip_broken: bool, init: str | None, given: Mapping[str, nn.Module] | None
) -> tuple[ImageSet, ImageSet]:
    """All that may fail, then the folder with the config and the weights to start from; returns the images."""
    if (folder / "config.yaml").exists():
        raise UserError(f"'{folder}' already holds a run: continue it with --resume {folder}, or choose another --out")
    if config.stages == ("autoencoder",):
        config = dataclasses.replace(config, slim_decoder=None)  # it would stay untrained
    parts = {**(_parts_of(init, config) if init else {}), **(given or {})}
    _require_sources(config, parts)
    _require_shares(config)
    images = load_images(config, skip_broken)
    if config.stage1 is not None and config.stages != ("gan",):
        perceptual_of(config.stage1, "cpu")
    ensure_folder(folder)
    for name, module in parts.items():
        save_weights(module, ensure_folder(folder / "init") / f"{name}.safetensors")
    save_yaml(config, folder / "config.yaml")  # last: a folder that has it is a run that can be resumed
    return images


def resume_run(folder: Path, *, device: str, skip_broken: bool) -> None:
    """Go on with the run in `folder`, to the same bits (on a CPU) as one that was never stopped.

    Raises:
        UserError: no run there, or its config or data changed.
        RunStopped: as `start_run`.
    """
    if not (folder / "config.yaml").exists():
        raise UserError(f"'{folder}' holds no run to resume (no config.yaml): check the path")
    config = load_yaml(folder / "config.yaml")
    with joined(resolve_device(device)) as everyone:
        if everyone.first:
            remove_leftovers(folder)
        _require_shares(config)
        images = load_images(config, skip_broken)
        everyone.wait()
        _train(config, folder, images, device, skip_broken)


def _require_shares(config: Config) -> None:
    """The batch of stage 2 can be shared among the processes that there are."""
    processes, accumulate = world().size, config.stage2.accumulate
    try:
        group_shares(config.stage2.batch, processes * accumulate)
    except ValueError as error:
        raise UserError(
            f"stage2.batch does not go with {processes} processes and stage2.accumulate {accumulate}: {error}"
        ) from None


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
    least = least_images(config.space_shape[0])
    if len(sets[0]) < least:
        raise UserError(f"'{config.data}' holds {len(sets[0])} training images, too few: give at least {least}")
    return sets[0], sets[1]


def _parts_of(init: str, config: Config) -> dict[str, nn.Module]:
    """The networks of the model `init`, if they are of the sizes that `config` asks for."""
    theirs, space, generator = load_model(init)
    if theirs.space != config.space:
        raise UserError(
            f"the model '{init}' draws in the space {theirs.space}, not {config.space}: take a recipe of that"
        )
    was, wanted = identity(theirs), identity(config)
    for name in dict.fromkeys([*was, *wanted]):
        if name.split(".")[0] in ("autoencoder", "generator") or name == "images.channels":
            if name not in was or name not in wanted:
                raise UserError(
                    f"the model '{init}' has another kind of {name.split('.')[0]}: take a recipe with the same"
                )
            if was[name] != wanted[name]:
                raise UserError(
                    f"the model '{init}' has {name} {was[name]}, not {wanted[name]}: set --{name} '{was[name]}'"
                )
    if isinstance(config.generator, UVitConfig) and theirs.space_shape != config.space_shape:
        raise UserError(
            f"the ViT of '{init}' draws x_0 of {list(theirs.space_shape)}, not {list(config.space_shape)}: set "
            f"--images.resolution {theirs.images.resolution}"
        )
    if not isinstance(space, LatentSpace):
        return {"generator": generator}
    require_whole(init, space)
    parts: dict[str, nn.Module] = {"autoencoder": space.autoencoder, "generator": generator}
    if space.slim_decoder is not None and theirs.slim_decoder == config.slim_decoder:
        parts["slim_decoder"] = space.slim_decoder
    return parts


def _require_sources(config: Config, parts: Mapping[str, nn.Module]) -> None:
    """Every network that a later stage builds on is trained before it or given."""
    last = STAGES.index(config.stages[-1])
    for stage, part in (("autoencoder", "autoencoder"), ("decoder", "slim_decoder")):
        wanted = (config.autoencoder if part == "autoencoder" else config.slim_decoder) is not None
        if wanted and last > STAGES.index(stage) and stage not in config.stages and part not in parts:
            raise UserError(f"the stage {stage} is left out, so its weights must come from --init MODEL: name one")


def _train(
    config: Config, folder: Path, images: tuple[ImageSet, ImageSet], device_name: str, skip_broken: bool
) -> None:
    device = resolve_device(device_name)
    go_on = f"go on with: lddgan train --resume {folder}" + " --skip-broken" * skip_broken
    train, held_out = images
    started = time.monotonic()
    space, generator = build_space(config), build_generator(config)
    given = _load_init(folder / "init", space, generator)
    try:
        if "autoencoder" in config.stages and world().first:
            assert isinstance(space, LatentSpace) and isinstance(space.autoencoder, Autoencoder)
            train_autoencoder(config, space.autoencoder, train, held_out, folder, device, "autoencoder" in given)
        if config.stages == ("autoencoder",):
            if world().first:
                save_weights(space, folder / "autoencoder.safetensors")
        else:
            _train_in_space(config, folder, space, generator, given, images, device)
    except RunStopped as stop:
        how = f"; {go_on}" if stop.resumable else ""
        raise RunStopped(f"{stop}{how}", stop.exit_code) from stop
    except KeyboardInterrupt:
        raise RunStopped(f"stopped; {go_on}", 130) from None
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunStopped(f"could not write to '{folder}' ({reason}): mend that and {go_on}") from error
    if not world().first:
        return
    minutes = (time.monotonic() - started) / 60
    facts = {"hardware": describe(device), "seed": config.seed, "minutes_since_start_or_resume": round(minutes, 2),
             "training_images": len(train), "weights": weights_hash(generator)}  # fmt: skip
    with atomic_write(folder / "run.json") as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n")


def _train_in_space(
    config: Config, folder: Path, space: Space, generator: nn.Module, given: set[str],
    images: tuple[ImageSet, ImageSet], device: torch.device,
) -> None:  # fmt: skip
    """Every stage after the autoencoder's."""
    space.to(device)
    if isinstance(space, LatentSpace):
        # The first makes autoencoder, slim decoder and latents; the others wait, then read what it has left.
        latents = _latents(config, folder, space, given, images, device) if world().first else None
        world().wait()
        if latents is None:
            load_weights(space, folder / "autoencoder.safetensors")
            space.eval().requires_grad_(False)
            latents = cached_latents(folder / "cache", space, images[0], config.images.flips, device)
        data: TrainingSet = latents
        normalise = space.normalise
    else:
        data, normalise = OnTheFly(images[0], space, config.images.flips), nn.Identity()
    reporting = _reporting(config, folder, space)
    if "gan" in config.stages:
        train_gan(config, generator, data, lambda raw: normalise(raw.to(device)), folder, device, reporting)
    elif "generator" in given and world().first:
        reporting.keep(generator, "model")


def _latents(
    config: Config, folder: Path, space: LatentSpace, given: set[str], images: tuple[ImageSet, ImageSet],
    device: torch.device,
) -> Latents:  # fmt: skip
    """The latents of the training images; trains the slim decoder on them where it is to be, and stores the space."""
    train, held_out = images
    space.autoencoder.eval().requires_grad_(False)
    latents = cached_latents(ensure_folder(folder / "cache"), space, train, config.images.flips, device)
    space.set_statistics(latents.mean, space.channel_scale(latents.std))
    if "decoder" in config.stages and space.slim_decoder is not None:
        initialised = "slim_decoder" in given
        train_slim_decoder(config, space, latents, train, held_out, folder, device, initialised)
    space.eval().requires_grad_(False)
    save_weights(space, folder / "autoencoder.safetensors")
    return latents


def _load_init(folder: Path, space: Space, generator: nn.Module) -> set[str]:
    """Load what a run starts from; the names of the networks that were there."""
    modules: dict[str, nn.Module | None] = {"generator": generator}
    if isinstance(space, LatentSpace):
        modules |= {"autoencoder": space.autoencoder, "slim_decoder": space.slim_decoder}
    found = set()
    for name, module in modules.items():
        if module is not None and (folder / f"{name}.safetensors").exists():
            load_weights(module, folder / f"{name}.safetensors")
            found.add(name)
    return found


def _reporting(config: Config, folder: Path, space: Space) -> Reporting:
    def show(x_0: Tensor, step: int) -> None:
        with torch.inference_mode():
            images = to_uint8(torch.cat([space.decode(part) for part in x_0.split(64)])).cpu().numpy()
        save_grid(images, folder / "samples" / f"{step:07d}.png")
        save_grid(images, folder / "samples.png")

    def keep(ema_generator: nn.Module, name: str) -> None:
        save_model(folder / name, config, space, ema_generator)

    return Reporting(show, keep)
