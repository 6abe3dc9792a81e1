"""A whole model out of released files: a generator and, for LDDGAN, its autoencoder.

The networks' sizes are in the files. What is not (resolution, number of steps) is that of the published recipe whose
networks have the same sizes, or has to be given.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lddgan.config import Config, DiscriminatorConfig, GeneratorConfig, with_fields
from lddgan.errors import UserError
from lddgan.interop.autoencoders import load_released_autoencoder
from lddgan.interop.given import part_of
from lddgan.interop.released import generator_from_released, generator_sizes
from lddgan.interop.weights import continued, read_checkpoint, without_prefixes
from lddgan.models import build_space
from lddgan.networks.ncsnpp import NCSNpp
from lddgan.recipes import recipe
from lddgan.spaces.latent import LatentSpace
from lddgan.spaces.space import Space

System = Literal["ddgan", "wddgan", "lddgan"]
PUBLISHED: dict[System, tuple[str, ...]] = {
    "ddgan": ("cifar10-ddgan", "celebahq256-ddgan", "lsun-church256-ddgan"),
    "wddgan": ("cifar10-wddgan", "celebahq256-wddgan", "lsun-church256-wddgan"),
    "lddgan": ("cifar10", "celebahq256", "lsun-church256"),
}
FACTOR = {"ddgan": 1, "wddgan": 2}
"""Side of the images over side of x_0; of LDDGAN the autoencoder's."""
LATENT_SCALE = {2: 105.0, 4: 6.0, 8: 60.0}
"""What the released LDDGANs divide their latents by, by the factor of their autoencoder."""


def import_model(
    files: Sequence[Path],
    system: System,
    *,
    resolution: int | None = None,
    num_steps: int | None = None,
    tanh: bool | None = None,
    latent_scale: float | None = None,
) -> tuple[Config, Space, NCSNpp]:
    """The model in `files`: weights under their released names (`netG_*.pth`) or a training state (`content.pth`).

    Args:
        files: the generator's and, for LDDGAN, the autoencoder's (`.ckpt`), in any order. Nothing in them is run.
        resolution, num_steps: of the images and of the diffusion; None: as the published recipe of these sizes has it
            (the steps: as the training state says, where it is one).
        tanh: whether the generator ends in one; None: as the training state says, else yes.
        latent_scale: what LDDGAN's latents were divided by; None: as released with this factor.

    Raises:
        UserError: a file is missing, damaged, or of another system; a value is neither given nor known; the resolution
            does not fit the networks.
    """
    path, state, arguments, given = _sorted(files, system)
    try:
        sizes = generator_sizes(state)
        ends_in_tanh = not getattr(arguments, "not_use_tanh", False) if tanh is None else tanh
        generator = generator_from_released(state, tanh=ends_in_tanh)
    except UserError as error:
        raise UserError(f"'{path}' cannot be imported: {continued(error)}") from None
    parts: dict[str, Any] = {}
    autoencoder = autoencoder_sizes = None
    if given is not None:
        autoencoder, autoencoder_sizes = load_released_autoencoder(given[0], content=given[1])
    parts["images.channels"] = _image_channels(path, system, sizes, autoencoder_sizes)

    factor = 2 ** (len(autoencoder_sizes["multipliers"]) - 1) if autoencoder_sizes else FACTOR[system]
    alike = [config for config in map(recipe, PUBLISHED[system]) if _is_alike(config, sizes, factor)]
    num_steps = num_steps or getattr(arguments, "num_timesteps", None)
    parts["diffusion.num_steps"] = num_steps or _agreed(alike, path, "--num-steps", lambda c: c.diffusion.num_steps)
    side = resolution or _agreed(alike, path, "--resolution", lambda c: c.images.resolution)
    base = alike[0] if alike else recipe(PUBLISHED[system][0])
    if not alike:  # only what has to be there for training on; it tells nothing of this model
        parts |= {"recipe": f"{system}-imported", "data": ""}
    if getattr(arguments, "use_geometric", False):
        raise UserError(
            f"'{path}' was trained on the geometric schedule, which no published model has: it is not supported"
        )
    for name in ("beta_min", "beta_max"):
        if hasattr(arguments, name):
            parts[f"diffusion.{name}"] = getattr(arguments, name)
    if side < 8 or side % factor:
        raise UserError(f"--resolution {side} does not fit '{path}', whose images are {factor} times as large as x_0")
    own = {name: value for name, value in sizes.items() if name not in ("channels", "attention_levels")}
    attention = tuple(side // factor >> level for level in sizes["attention_levels"])
    parts |= {
        "images.resolution": side,
        "generator": GeneratorConfig(**own, attention_resolutions=attention, tanh=ends_in_tanh),
        "discriminator": _discriminator(base.discriminator, side // factor),
        "slim_decoder": None,
        "stages": ("gan",),
    }
    if autoencoder_sizes is not None:
        parts["autoencoder"] = part_of(autoencoder_sizes, side)
    config = with_fields(base, parts, f"'{path}' at {side} pixels")
    if autoencoder is None:
        return config, build_space(config), generator
    space = LatentSpace(autoencoder)
    scale = latent_scale or LATENT_SCALE.get(factor)
    if scale is None:
        raise UserError(
            f"no released LDDGAN has the factor {factor}: give --latent-scale, which its latents are divided by"
        )
    space.set_statistics(torch.zeros(autoencoder.latent_channels), torch.full((autoencoder.latent_channels,), scale))
    return config, space, generator


def _sorted(files: Sequence[Path], system: System) -> tuple[Path, dict[str, Tensor], Any, tuple[Path, Any] | None]:
    """The generator's file, its weights, its training's arguments where it is a state; the autoencoder's file and its
    content."""
    generators, autoencoders = [], []
    for path in files:
        content = read_checkpoint(path)
        state, arguments = _generator_in(content)
        if state is not None:
            generators.append((path, state, arguments))
        elif any(name.startswith("encoder.") for name in _names(content.get("state_dict", content))):
            autoencoders.append((path, content))
        elif "start_conv.weight" in _names(content):
            raise UserError(f"'{path}' holds a discriminator, not a generator: give the file called netG_*.pth")
        else:
            raise UserError(f"'{path}' holds neither a released generator nor an autoencoder: give netG_*.pth or .ckpt")
    if len(generators) != 1 or len(autoencoders) > 1:
        raise UserError(
            f"{len(generators)} generators and {len(autoencoders)} autoencoders were given: give one generator "
            "and, for lddgan, one autoencoder"
        )
    if bool(autoencoders) != (system == "lddgan"):
        raise UserError(
            "the autoencoder is missing: give its .ckpt beside the generator"
            if system == "lddgan"
            else f"'{autoencoders[0][0]}' is an autoencoder, which {system} has none of: leave it out"
        )
    return *generators[0], (autoencoders[0] if autoencoders else None)


def _generator_in(content: Any) -> tuple[dict[str, Tensor] | None, Any]:
    """The weights of a generator in a flat file or in a training state, and the state's arguments."""
    if not isinstance(content, dict):
        raise UserError("a checkpoint that is no dictionary holds no released network: give another file")
    for candidate in (content, *content.values()):
        names = _names(candidate)
        if any(name.startswith("all_modules.") for name in names):
            return without_prefixes(candidate), content.get("args")
    return None, None


def _names(state: Any) -> list[str]:
    """The names of a dictionary of tensors, without a prefix; none of anything else."""
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        return []
    return list(without_prefixes({str(name): tensor for name, tensor in state.items()}))


def _image_channels(path: Path, system: System, sizes: dict[str, Any], autoencoder: dict[str, Any] | None) -> int:
    """Channels of the images; the generator must be one of this system's."""
    channels, is_haar = sizes["channels"], sizes["resampling"] == "haar"
    if autoencoder is not None:
        if is_haar or channels != autoencoder["latent_channels"]:
            bands = " Haar bands" if is_haar else ""
            raise UserError(
                f"'{path}' generates {channels} channels{bands}, but the autoencoder's latent has "
                f"{autoencoder['latent_channels']}: give the two files of one LDDGAN"
            )
        return autoencoder["channels"]
    likely = "wddgan" if is_haar or channels == 12 else "ddgan" if channels in (1, 3) else "lddgan"
    if likely != system:
        raise UserError(
            f"'{path}' is no generator of {system}: it takes {channels} channels"
            f"{' and Haar bands' if is_haar else ''}, as those of {likely} do: import it with --as {likely}"
        )
    return channels // 4 if system == "wddgan" else channels


def _is_alike(config: Config, sizes: dict[str, Any], factor: int) -> bool:
    """Whether a published recipe is the file's: by the autoencoder's factor in a latent, else by the U-Net's sizes."""
    if config.autoencoder is not None:
        return config.factor == factor
    names = ("width", "multipliers", "num_blocks", "resampling")
    return all(getattr(config.generator, name) == sizes[name] for name in names)


def _agreed(alike: list[Config], path: Path, option: str, value: Any) -> int:
    """The value that the recipes of the file's sizes agree in."""
    values = {config.recipe: value(config) for config in alike}
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    if not values:
        raise UserError(f"'{path}' is of no published size, so nothing says its {option[2:]}: give {option}")
    choices = " or ".join(f"{number} as {name} has" for name, number in values.items())
    raise UserError(f"'{path}' fits several published recipes: give {option} ({choices})")


def _discriminator(published: DiscriminatorConfig, side: int) -> dict[str, Any]:
    """The published one with as many layers as x_0 of `side` pixels can be halved for; it is only for training on."""
    extra = 0 if published.kind == "large" else 1
    halvings = (side & -side).bit_length() - 1
    layers = max(3, min(published.num_layers, halvings + extra))
    kind = published.kind if halvings >= layers - extra else "small"
    return {"kind": kind, "num_layers": layers, "width": published.width, "time_dim": published.time_dim}
