"""An autoencoder that the user brings: from a run or model folder, a released checkpoint, or the diffusers library."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from lddgan.config import AutoencoderConfig, Config, DiffusersConfig, with_fields
from lddgan.errors import UserError
from lddgan.interop.autoencoders import load_released_autoencoder
from lddgan.interop.diffusers import load_diffusers
from lddgan.models import is_ours, load_space

FILES = (".ckpt", ".pt", ".pth", ".safetensors")


def given_autoencoder(name: str, config: Config) -> tuple[Config, nn.Module]:
    """The autoencoder `name`, and `config` with it in place of its own; its training is left out.

    Args:
        name: a file (LDM's or LDDGAN's `.ckpt`), a run, model or diffusers folder, a shipped model, or a diffusers name
            on the hub. Names with a slash that are no path here are looked up there.

    Raises:
        UserError: there is no such thing, it is damaged, or its channels or factor do not fit the images.
    """
    if config.autoencoder is None:
        raise UserError(
            f"the recipe '{config.recipe}' has no autoencoder, it draws {config.space}: leave --autoencoder out"
        )
    part: AutoencoderConfig | DiffusersConfig | None
    side = config.images.resolution
    if name.endswith(FILES):
        autoencoder, sizes = load_released_autoencoder(name)
        channels, part = sizes["channels"], part_of(sizes, side)
    elif is_ours(name):
        theirs, space = load_space(name)
        autoencoder, channels, part = space.autoencoder, theirs.images.channels, theirs.autoencoder
        if isinstance(part, AutoencoderConfig):  # attention stays at its levels
            moved = tuple(size * side // theirs.images.resolution for size in part.attention_resolutions)
            part = dataclasses.replace(part, attention_resolutions=moved)
    else:
        autoencoder = load_diffusers(name)
        channels = autoencoder.channels
        part = DiffusersConfig(
            latent_channels=autoencoder.latent_channels, factor=autoencoder.factor, diffusers=autoencoder.spec
        )
    if channels != config.images.channels:
        raise UserError(f"the autoencoder '{name}' takes {channels} channels: set --images.channels {channels}")
    stages = tuple(stage for stage in config.stages if stage != "autoencoder")
    if not stages:
        raise UserError("--stage autoencoder trains one, and --autoencoder brings one: give either of them")
    return with_fields(config, {"autoencoder": part, "stages": stages}, f"with '{name}'"), autoencoder


def part_of(sizes: dict[str, Any], side: int) -> AutoencoderConfig:
    """The config of an autoencoder with the `sizes` of a released one, for images of `side` pixels."""
    own = {name: value for name, value in sizes.items() if name not in ("channels", "attention_levels")}
    attention = tuple(side >> level for level in sizes["attention_levels"])
    return AutoencoderConfig(**own, attention_resolutions=attention)
