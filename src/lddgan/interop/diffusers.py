"""Autoencoders of the library diffusers as frozen ones of ours: AutoencoderKL, VQModel, AutoencoderTiny, AutoencoderDC.

Weights are read from safetensors only. The scaling factors of a config are not applied: the statistics of a latent are
measured here, never assumed. diffusers is an optional extra, imported where it is needed.
B batch, C image channels, Z latent channels, R resolution, f the factor, r = R / f.
"""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lddgan.errors import UserError

CLASSES = ("AutoencoderKL", "VQModel", "AutoencoderTiny", "AutoencoderDC")
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


class DiffusersEncoder(nn.Module):
    """Images `[B, C, R, R]` in [-1, 1] to the latent `[B, Z, r, r]`; of a KL one the mean, of a VQ one before codes.

    AutoencoderTiny's [0, 1] is inside its network; its `latent_magnitude` and `latent_shift` only serve to store
    latents as bytes.
    """

    def __init__(self, model: Any, latent_channels: int) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.network = model.encoder
        self.project = getattr(model, "quant_conv", None)

    def forward(self, images: Tensor) -> Tensor:
        h = self.network(images)
        if self.project is not None:
            h = self.project(h)
        return h[:, : self.latent_channels]  # after them the log variance of a KL latent


class DiffusersDecoder(nn.Module):
    """The latent `[B, Z, r, r]` to images `[B, C, R, R]`, about [-1, 1]; of a VQ one through its codes."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.network = model.decoder
        self.project = getattr(model, "post_quant_conv", None)
        self.quantiser = getattr(model, "quantize", None)
        self.spatial_norm = model.config.get("norm_type") == "spatial"  # normalised by the codes (MoVQ)

    def forward(self, latent: Tensor) -> Tensor:
        codes = latent if self.quantiser is None else self.quantiser(latent)[0]
        h = codes if self.project is None else self.project(codes)
        return self.network(h, codes) if self.spatial_norm else self.network(h)


class DiffusersAutoencoder(nn.Module):
    """A frozen autoencoder: always in evaluation mode, without gradients for its weights.

    Attributes:
        encoder: images to the latent, see `DiffusersEncoder`.
        decoder: the latent to images, see `DiffusersDecoder`.
        latent_channels: Z.
        factor: f.
        channels: C.
        spec: `class`, one of `CLASSES`, and `config`, the arguments of that class; ready for JSON.

    Args:
        model: an instance of one of the four classes; its parts are taken over.

    Raises:
        UserError: its decoder does not undo its encoder (other channels or another factor).
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        config, name = model.config, type(model).__name__
        arguments = [argument for argument in inspect.signature(type(model).__init__).parameters if argument in config]
        self.spec = {
            "class": name,
            "config": json.loads(json.dumps({argument: config[argument] for argument in arguments})),
        }
        widths = config.get("block_out_channels") if name in ("AutoencoderKL", "VQModel") else None
        self.factor = 2 ** (len(widths or config["encoder_block_out_channels"]) - 1)
        upwards = config.get("upsampling_scaling_factor", 2) ** (
            len(widths or config["decoder_block_out_channels"]) - 1
        )
        self.channels = config["in_channels"]
        if config.get("out_channels", self.channels) != self.channels or upwards != self.factor:
            raise UserError(
                f"the {name} reads {self.channels} channels at factor {self.factor} and writes "
                f"{config.get('out_channels', self.channels)} at factor {upwards}: give one that writes what it reads"
            )
        self.latent_channels = config.get("vq_embed_dim") or config["latent_channels"]
        self.encoder = DiffusersEncoder(model, self.latent_channels)
        self.decoder = DiffusersDecoder(model)
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> DiffusersAutoencoder:
        """Stays in evaluation mode (AutoencoderDC may have batch norms)."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """The reconstruction of `images`."""
        return self.decoder(self.encoder(images))


def load_diffusers(path_or_name: str) -> DiffusersAutoencoder:
    """The autoencoder of a folder (`config.json` and safetensors weights) or of a model on the Hugging Face hub.

    A folder is never looked up on the hub.

    Raises:
        UserError: diffusers is not installed; there is no such folder and no such model in reach; it is of another
            class; its files are incomplete or damaged.
    """
    _import(CLASSES[0])  # its absence comes before faults of the folder
    folder = Path(path_or_name)
    if folder.is_dir():
        name, where = _class_name(folder), f"the folder '{folder}'"
    elif _HUB_NAME.fullmatch(str(path_or_name)):
        name, where = _class_name_on_hub(str(path_or_name)), f"the hub's '{path_or_name}'"
    else:
        raise UserError(f"there is no folder '{path_or_name}': give one with a config.json, or a hub name owner/model")
    kind, log = _import(name), logging.getLogger("diffusers")
    level = log.level
    try:
        log.setLevel(logging.CRITICAL)  # what it would log is raised here, in a sentence
        model, info = kind.from_pretrained(
            str(path_or_name), use_safetensors=True, local_files_only=folder.is_dir(), low_cpu_mem_usage=False,
            output_loading_info=True,
        )  # fmt: skip
        autoencoder = DiffusersAutoencoder(model.float())
    except UserError:
        raise
    except Exception as error:  # diffusers passes on what its config, safetensors and the network raise
        raise UserError(
            f"{where} cannot be loaded as {name} ({_reason(error)}): give whole files with safetensors weights"
        ) from None
    finally:
        log.setLevel(level)
    if info["missing_keys"]:
        raise UserError(f"{where} lacks weights of its {name} ({min(info['missing_keys'])}): copy it again")
    return autoencoder


def build_diffusers(spec: dict[str, Any]) -> DiffusersAutoencoder:
    """A `DiffusersAutoencoder` with fresh weights, for a `state_dict`.

    Args:
        spec: as `DiffusersAutoencoder.spec`.

    Raises:
        UserError: diffusers is not installed; the spec names another class or arguments that the class refuses.
    """
    name, config = (spec.get("class"), spec.get("config")) if isinstance(spec, dict) else (None, None)
    if not isinstance(name, str) or name not in CLASSES or not isinstance(config, dict):
        raise UserError(f"the diffusers autoencoder {name!r} is unknown: its class must be one of {', '.join(CLASSES)}")
    kind = _import(name)
    try:
        return DiffusersAutoencoder(kind(**config))
    except UserError:
        raise
    except Exception as error:  # whatever its layers say about sizes that do not fit
        raise UserError(
            f"the config of the diffusers autoencoder {name} cannot be built ({_reason(error)}): mend it"
        ) from None


def _class_name(folder: Path) -> str:
    """The class of a local model."""
    file = folder / "config.json"
    try:
        return _known(json.loads(file.read_text(encoding="utf-8")), f"'{file}'")
    except FileNotFoundError:
        raise UserError(
            f"the folder '{folder}' has no config.json: give the folder of an autoencoder that diffusers saved "
            "(of a pipeline: its vae)"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"'{file}' is damaged ({_reason(error)}): copy the folder again") from None


def _class_name_on_hub(name: str) -> str:
    """The class of a model on the hub, or in its local cache."""
    try:
        config = _import(CLASSES[0]).load_config(name)
    except Exception as error:  # of the network, the hub, or its cache
        raise UserError(
            f"there is no folder '{name}', and no such model on the hub in reach ({_reason(error)}): check the name "
            "and the connection"
        ) from None
    return _known(config, f"the hub's '{name}'")


def _known(config: Any, where: str) -> str:
    name = config.get("_class_name") if isinstance(config, dict) else None
    if not isinstance(name, str) or name not in CLASSES:
        raise UserError(f"{where} is of the class {name!r}: give an autoencoder of {', '.join(CLASSES)}")
    return name


def _import(name: str) -> Any:
    """The class `name` of diffusers."""
    try:
        return getattr(importlib.import_module("diffusers"), name)
    except ModuleNotFoundError:
        raise UserError("an autoencoder of diffusers needs the extra: pip install 'lddgan[diffusers]'") from None
    except (ImportError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"the installed diffusers has no usable {name} ({_reason(error)}): pip install --upgrade diffusers"
        ) from None


def _reason(error: Exception) -> str:
    """The start of an error's message, on one line."""
    words = str(error).split()
    return " ".join(words[:24]) + (" ..." if len(words) > 24 else "") if words else type(error).__name__
