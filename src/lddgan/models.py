"""A model on disk: a folder with `config.json` and `generator.safetensors`, and `autoencoder.safetensors` for a latent.

No code inside. `autoencoder.safetensors` holds the latent's mean and standard deviation beside the weights, and the
slim decoder where there is one; the generator's weights are the averaged ones.
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
from lddgan.autoencoder.slim import SlimDecoder
from lddgan.config import Config, DiffusersConfig, UVitConfig, from_dict, load_yaml, to_dict
from lddgan.errors import UserError
from lddgan.interop.diffusers import DiffusersAutoencoder, build_diffusers
from lddgan.networks.ncsnpp import NCSNpp
from lddgan.networks.uvit import UVit
from lddgan.runtime.files import atomic_write, ensure_folder
from lddgan.runtime.seeds import mix
from lddgan.spaces.latent import LatentSpace
from lddgan.spaces.pixels import PixelSpace
from lddgan.spaces.space import Space
from lddgan.spaces.wavelet import WaveletSpace

Generator = NCSNpp | UVit

AUTOENCODER = "autoencoder"
"""The part of a latent space that a model for drawing alone goes without."""
SHIPPED = Path(__file__).parent / "shipped"
if not SHIPPED.is_dir():  # an editable install: the models lie at the top of the repository
    SHIPPED = Path(__file__).parents[2] / "models"


def build_space(config: Config) -> Space:
    """The space of a config; a latent one has a fresh autoencoder, whose initial weights follow from `config.seed`."""
    if config.autoencoder is None:
        return WaveletSpace() if config.space == "wavelet" else PixelSpace()
    autoencoder, slim = build_autoencoder(config), None
    if config.slim_decoder is not None:
        torch.manual_seed(mix(config.seed, "slim decoder"))
        slim = SlimDecoder(
            channels=config.images.channels, latent_channels=config.space_shape[0], factor=config.factor,
            width=config.slim_decoder.width, num_blocks=config.slim_decoder.num_blocks,
        )  # fmt: skip
    return LatentSpace(autoencoder, slim)


def build_autoencoder(config: Config) -> Autoencoder | DiffusersAutoencoder:
    """A fresh autoencoder.

    Raises:
        UserError: it is one of diffusers, which is not installed.
    """
    settings = config.autoencoder
    assert settings is not None
    if isinstance(settings, DiffusersConfig):
        return build_diffusers(settings.diffusers)
    values = dataclasses.asdict(settings)
    values["attention_levels"] = _levels(values.pop("attention_resolutions"), config.images.resolution)
    torch.manual_seed(mix(config.seed, "autoencoder"))
    return Autoencoder(channels=config.images.channels, **values)


def build_generator(config: Config) -> Generator:
    """A fresh generator for the space's shape; its initial weights follow from `config.seed`."""
    values, (channels, side, _) = dataclasses.asdict(config.generator), config.space_shape
    torch.manual_seed(mix(config.seed, "generator"))
    if isinstance(config.generator, UVitConfig):
        return UVit(channels=channels, side=side, **values)
    values["attention_levels"] = _levels(values.pop("attention_resolutions"), side)
    return NCSNpp(channels=channels, **values)


def _levels(resolutions: list[int], resolution: int) -> tuple[int, ...]:
    """The levels (0 = `resolution`, halved at each) at which one of `resolutions` occurs."""
    return tuple(level for level in range(resolution.bit_length()) if resolution >> level in resolutions)


def save_model(
    folder: str | Path, config: Config, space: Space, generator: nn.Module, dtype: torch.dtype = torch.float32,
    drawing_only: bool = False,
) -> None:  # fmt: skip
    """Write a model folder, `config.json` last; `dtype` float16 halves its size.

    Args:
        drawing_only: leave the autoencoder out where there is a slim decoder to draw with.

    Raises:
        UserError: the folder cannot be made or written.
    """
    folder = ensure_folder(folder)
    if isinstance(space, LatentSpace):
        leave_out = AUTOENCODER if space.drawing_only or (drawing_only and space.slim_decoder) else None
        save_weights(space, folder / "autoencoder.safetensors", dtype, leave_out)
    save_weights(generator, folder / "generator.safetensors", dtype)
    with atomic_write(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(to_dict(config), indent=2) + "\n")


def load_model(folder: str | Path) -> tuple[Config, Space, Generator]:
    """Read a model folder, a run folder (its `model`), or a model that ships with the package, by name.

    Networks come in float32 and evaluation mode.

    Raises:
        UserError: there is no such model; a file is missing, truncated, or of other sizes than `config.json` says.
    """
    folder = resolve_folder(folder)
    if not (folder / "config.json").exists() and (folder / "model").is_dir():
        folder = folder / "model"
    config, space = _config_and_space(folder, folder / "config.json")
    generator = build_generator(config)
    load_weights(generator, folder / "generator.safetensors")
    generator.eval().requires_grad_(False)
    return config, space, generator


def load_space(folder: str | Path) -> tuple[Config, LatentSpace]:
    """The latent space of a model folder or of a run that has trained its autoencoder; arguments and errors as above.

    Raises:
        UserError: also where the model's space is no latent one.
    """
    folder = resolve_folder(folder)
    run = folder / "config.yaml"
    config, space = _config_and_space(folder, run if run.exists() else folder / "config.json")
    if not isinstance(space, LatentSpace):
        raise UserError(f"the model '{folder}' has no autoencoder, it draws {config.space}: give one of a latent space")
    require_whole(folder, space)
    return config, space


def require_whole(folder: str | Path, space: LatentSpace) -> None:
    """Raises UserError where the model, read from `folder`, came without its autoencoder."""
    if space.drawing_only:
        raise UserError(
            f"the model '{folder}' was saved for drawing only, without its autoencoder: give the whole model"
        )


def is_ours(folder: str | Path) -> bool:
    """Whether `folder` is a model or run folder of this package, or the name of a shipped model."""
    path = Path(folder)
    if not path.exists():
        return (SHIPPED / str(folder)).is_dir()
    return (path / "config.yaml").exists() or (path / "generator.safetensors").exists()


def resolve_folder(folder: str | Path) -> Path:
    """The folder of a model, which may be the name of a shipped one.

    Raises:
        UserError: there is none.
    """
    if not Path(folder).exists() and (SHIPPED / str(folder)).is_dir():
        folder = SHIPPED / str(folder)
    folder = Path(folder)
    if not folder.is_dir():
        names = ", ".join(sorted(path.name for path in SHIPPED.iterdir())) if SHIPPED.is_dir() else "none"
        raise UserError(f"there is no model '{folder}': give a model or run folder, or a shipped model ({names})")
    return folder


def _config_and_space(folder: Path, file: Path) -> tuple[Config, Space]:
    if file.suffix == ".yaml":
        config = load_yaml(file)
    else:
        try:
            config = from_dict(json.loads(file.read_text()), f"'{file}'")
        except FileNotFoundError:
            raise UserError(f"the model folder '{folder}' has no config.json: give a folder that a run wrote") from None
        except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
            raise UserError(f"'{file}' is damaged ({error}): copy the model folder again") from None
    space = build_space(config)
    if isinstance(space, LatentSpace):
        may_lack = AUTOENCODER if space.slim_decoder is not None else None
        space.drawing_only = load_weights(space, folder / "autoencoder.safetensors", may_lack)
    space.eval().requires_grad_(False)
    return config, space


def save_weights(
    module: nn.Module, file: Path, dtype: torch.dtype = torch.float32, leave_out: str | None = None
) -> None:
    """Write the state of `module` as a safetensors file that `load_weights` reads; `leave_out` is a part of it."""
    state = {name: value for name, value in module.state_dict().items() if not _is_of(name, leave_out)}
    with atomic_write(file) as temporary:
        save_file({name: value.cpu().to(dtype).contiguous() for name, value in state.items()}, temporary)


def load_weights(module: nn.Module, file: Path, may_lack: str | None = None) -> bool:
    """Load a safetensors file into `module`, strictly; the part `may_lack` of it may be left out as a whole.

    Returns:
        Whether it is.

    Raises:
        UserError: missing, truncated, or of other sizes.
    """
    try:
        state = load_file(file)
        lacks = may_lack is not None and not any(_is_of(name, may_lack) for name in state)
        if lacks:
            state |= {name: value for name, value in module.state_dict().items() if _is_of(name, may_lack)}
        module.load_state_dict(state)
        return lacks
    except FileNotFoundError:
        raise UserError(f"the model file '{file}' is missing: copy the whole model folder") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"the model file '{file}' is damaged ({error}): copy the model folder again") from None
    except RuntimeError as error:
        reason = " ".join(str(error).split()[:24])
        raise UserError(f"the model file '{file}' does not fit its config.json ({reason} ...): use one run's") from None


def _is_of(name: str, part: str | None) -> bool:
    return part is not None and name.startswith(f"{part}.")
