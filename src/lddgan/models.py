"""A model on disk: a folder with `config.json`, `autoencoder.safetensors` and `generator.safetensors`. No code inside.

`autoencoder.safetensors` holds the latent's mean and standard deviation beside the weights; the generator's weights are
the averaged ones.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from lddgan.autoencoder.model import Autoencoder
from lddgan.config import Config, from_dict, to_dict
from lddgan.errors import UserError
from lddgan.networks.ncsnpp import NCSNpp
from lddgan.runtime.files import atomic_write, ensure_folder
from lddgan.runtime.seeds import mix
from lddgan.spaces.latent import LatentSpace

SHIPPED = Path(__file__).parent / "shipped"
if not SHIPPED.is_dir():  # an editable install: the models lie at the top of the repository
    SHIPPED = Path(__file__).parents[2] / "models"


def build_space(config: Config) -> LatentSpace:
    """A latent space with a fresh autoencoder; its initial weights follow from `config.seed`."""
    values = dataclasses.asdict(config.autoencoder)
    values["attention_levels"] = _levels(values.pop("attention_resolutions"), config.images.resolution)
    torch.manual_seed(mix(config.seed, "autoencoder"))
    return LatentSpace(Autoencoder(channels=config.images.channels, **values))


def build_generator(config: Config) -> NCSNpp:
    """A fresh generator for the space's shape; its initial weights follow from `config.seed`."""
    values = dataclasses.asdict(config.generator)
    values["attention_levels"] = _levels(values.pop("attention_resolutions"), config.latent_shape[1])
    torch.manual_seed(mix(config.seed, "generator"))
    return NCSNpp(channels=config.latent_shape[0], **values)


def _levels(resolutions: list[int], resolution: int) -> tuple[int, ...]:
    """The levels (0 = `resolution`, halved at each) at which one of `resolutions` occurs."""
    return tuple(level for level in range(resolution.bit_length()) if resolution >> level in resolutions)


def save_model(
    folder: str | Path, config: Config, space: LatentSpace, generator: nn.Module, dtype: torch.dtype = torch.float32
) -> None:
    """Write a model folder, `config.json` last; `dtype` float16 halves its size.

    Raises:
        UserError: the folder cannot be made or written.
    """
    folder = ensure_folder(folder)
    for name, module in (("autoencoder", space), ("generator", generator)):
        save_weights(module, folder / f"{name}.safetensors", dtype)
    with atomic_write(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(to_dict(config), indent=2) + "\n")


def load_model(folder: str | Path) -> tuple[Config, LatentSpace, NCSNpp]:
    """Read a model folder, a run folder (its `model`), or a model that ships with the package, by name.

    Networks come in float32 and evaluation mode.

    Raises:
        UserError: there is no such model; a file is missing, truncated, or of other sizes than `config.json` says.
    """
    if not Path(folder).exists() and (SHIPPED / str(folder)).is_dir():
        folder = SHIPPED / str(folder)
    folder = Path(folder)
    if not (folder / "config.json").exists() and (folder / "model").is_dir():
        folder = folder / "model"
    if not folder.is_dir():
        names = ", ".join(sorted(path.name for path in SHIPPED.iterdir())) if SHIPPED.is_dir() else "none"
        raise UserError(f"there is no model '{folder}': give a model or run folder, or a shipped model ({names})")
    file = folder / "config.json"
    try:
        config = from_dict(json.loads(file.read_text()), f"'{file}'")
    except FileNotFoundError:
        raise UserError(f"the model folder '{folder}' has no config.json: give a folder that a run wrote") from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"'{file}' is damaged ({error}): copy the model folder again") from None
    space, generator = build_space(config), build_generator(config)
    for name, module in (("autoencoder", space), ("generator", generator)):
        load_weights(module, folder / f"{name}.safetensors")
        module.eval().requires_grad_(False)
    return config, space, generator


def save_weights(module: nn.Module, file: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write the state of `module` as a safetensors file that `load_weights` reads."""
    with atomic_write(file) as temporary:
        state = module.state_dict()
        save_file({name: value.cpu().to(dtype).contiguous() for name, value in state.items()}, temporary)


def load_weights(module: nn.Module, file: Path) -> None:
    """Load a safetensors file into `module`, strictly.

    Raises:
        UserError: missing, truncated, or of other sizes.
    """
    try:
        module.load_state_dict(load_file(file))
    except FileNotFoundError:
        raise UserError(f"the model file '{file}' is missing: copy the whole model folder") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"the model file '{file}' is damaged ({error}): copy the model folder again") from None
    except RuntimeError as error:
        reason = " ".join(str(error).split()[:24])
        raise UserError(f"the model file '{file}' does not fit its config.json ({reason} ...): use one run's") from None
