"""Autoencoders and patch discriminators of LDM (Rombach et al. 2022) and LDDGAN in our modules, and back.

Sizes are inferred from names and shapes; only the decoder's final tanh is not in the file. Files are read without
running anything that they hold. B batch, C image channels, Z latent channels, L levels, highest resolution first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lddgan.autoencoder.model import Attention, Autoencoder, Decoder, Encoder, Kind, ResidualBlock
from lddgan.autoencoder.objective import PatchDiscriminator
from lddgan.errors import UserError
from lddgan.interop.weights import (
    build,
    continued,
    export,
    get,
    load,
    read_tensors,
    tensor_names,
    tensors_in,
    without_prefix,
)

GROUPS = 32
"""Of every group norm in released networks, however narrow; ours has fewer below 128 channels."""

# Released names of the parts of a block, and ours.
_RESIDUAL = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "nin_shortcut": "shortcut"}
_ATTENTION = {"norm": "norm", "q": "q", "k": "k", "v": "v", "proj_out": "out"}
_MIDDLE = ("block_1", "attn_1", "block_2")
# What training leaves in a checkpoint: the loss with its own networks, an average, and two unused buffers.
_LEFT_OVER = re.compile(r"(loss|model_ema)\.|(colorize|quantize\.used)$")


def load_released_autoencoder(
    path: str | Path, *, tanh: bool | None = None, content: Any = None
) -> tuple[Autoencoder, dict[str, Any]]:
    """The autoencoder of a checkpoint file, and its sizes; see `autoencoder_from_released`.

    Args:
        path: `.ckpt`, `.pt` or `.pth` (tensors by name, or a Lightning checkpoint with a `state_dict`), read with
            `weights_only`, or `.safetensors` (names may start with `state_dict.`).
        tanh: whether the decoder ends in tanh. By default it does with factor 2 and attention in the levels, as the
            released one for CIFAR-10, and does not otherwise, as the released ones for 256 pixels.
        content: of the file, where it was read already.

    Raises:
        UserError: there is no such file; it is damaged, holds anything but tensors (nothing of it is run), or holds no
            autoencoder of this kind.
    """
    path = Path(path)
    state = read_tensors(path) if content is None else tensors_in(content, path)
    try:
        if tanh is None:
            tanh = _num_levels(state) == 2 and any(re.match(r"encoder\.down\.\d\.attn\.", name) for name in state)
        return autoencoder_from_released(state, tanh=tanh)
    except UserError as error:
        raise UserError(
            f"'{path}' cannot be loaded ({continued(error)}): copy it again, or give the checkpoint of "
            "an LDM or LDDGAN autoencoder"
        ) from None


def autoencoder_from_released(state: Mapping[str, Tensor], *, tanh: bool) -> tuple[Autoencoder, dict[str, Any]]:
    """The autoencoder of a released file, in evaluation mode, and the keyword arguments of `Autoencoder`.

    Args:
        state: the file's tensors, by name; what training left in it (`loss.*`, `model_ema.*`) is ignored.
        tanh: whether the decoder ends in tanh.

    Raises:
        UserError: if the file is no such autoencoder or is incomplete.
    """
    state = {name: tensor for name, tensor in without_prefix(state).items() if not _LEFT_OVER.match(name)}
    width, channels = _conv_shape(state, "encoder.conv_in.weight")
    levels = range(_num_levels(state))
    widths = [_conv_shape(state, f"encoder.down.{level}.block.0.conv1.weight")[0] for level in levels]
    if any(level_width % width for level_width in widths):
        raise UserError(f"The autoencoder file's widths {widths} are not multiples of its base width {width}.")
    if widths[0] != width:
        raise UserError(
            f"The autoencoder file's first level has {widths[0]} channels and the convolution before it {width}, which "
            "our Autoencoder does not have."
        )
    if width % GROUPS:
        raise UserError(f"The autoencoder file's base width {width} cannot be normalised in {GROUPS} groups.")
    kind, latent_channels = _latent(state)
    sizes: dict[str, Any] = {
        "channels": channels,
        "latent_channels": latent_channels,
        "width": width,
        "multipliers": tuple(level_width // width for level_width in widths),
        "num_blocks": _count(state, r"encoder\.down\.0\.block\.(\d+)\."),
        "attention_levels": tuple(
            level for level in levels if any(name.startswith(f"encoder.down.{level}.attn.") for name in state)
        ),
        "tanh": tanh,
        "kind": kind,
        "norm_groups": GROUPS,
    }
    if kind == "quantised":
        sizes["codebook_size"] = state["quantize.embedding.weight"].shape[0]
    model = build(lambda: Autoencoder(**sizes), "autoencoder")
    return load(model, state, autoencoder_key_map(model), "autoencoder"), sizes


def autoencoder_to_released(model: Autoencoder) -> dict[str, Tensor]:
    """The autoencoder's tensors under their released names.

    Raises:
        UserError: if a released network cannot compute the same (a linear shortcut; other group norms).
    """
    key_map = autoencoder_key_map(model)
    if model.state_dict().keys() != set(key_map.values()):
        raise UserError("An autoencoder with a linear shortcut has no released form: train one without.")
    if any(isinstance(module, nn.GroupNorm) and module.num_groups != GROUPS for module in model.modules()):
        raise UserError(f"Released autoencoders have {GROUPS} groups in every group norm: take a width of 128 or more.")
    return export(model, key_map)


def patch_discriminator_from_released(state: Mapping[str, Tensor]) -> PatchDiscriminator:
    """The patch discriminator of a file with entries `main.N.*`, in evaluation mode.

    Raises:
        UserError: if the file is no such discriminator or is incomplete.
    """
    state = without_prefix(state)
    width, channels = _conv_shape(state, "main.0.weight", "patch discriminator")
    num_layers = sum(name.endswith(".running_mean") for name in state)
    model = build(lambda: PatchDiscriminator(channels, width, num_layers=num_layers), "patch discriminator")
    return load(model, state, {f"main.{name}": name for name in model.state_dict()}, "patch discriminator")


def autoencoder_key_map(model: Autoencoder) -> dict[str, str]:
    """Released name of every tensor, and ours."""
    encoder, decoder = model.encoder, model.decoder
    parts: dict[str, nn.Module] = {"quant_conv": encoder.project, "post_quant_conv": decoder.project}
    if decoder.quantiser is not None:
        parts["quantize.embedding"] = decoder.quantiser.embedding
    parts |= _half_parts("encoder", encoder) | _half_parts("decoder", decoder)
    for number, (level, down) in enumerate(zip(encoder.levels, encoder.down, strict=True)):
        parts |= _level_parts(f"encoder.down.{number}", level) | {f"encoder.down.{number}.downsample": down}
    # Released levels are numbered from the highest resolution in the decoder too; ours run in order.
    for number, (level, up) in enumerate(zip(reversed(decoder.levels), reversed(decoder.up), strict=True)):
        parts |= _level_parts(f"decoder.up.{number}", level) | {f"decoder.up.{number}.upsample": up}
    ours = {module: name for name, module in model.named_modules()}
    return tensor_names(
        {
            f"{released}.{theirs}" if theirs else released: f"{ours[module]}.{own}" if own else ours[module]
            for released, module in parts.items()
            for theirs, own in _inside(module).items()
        },
        model,
    )


def _half_parts(prefix: str, half: Encoder | Decoder) -> dict[str, nn.Module]:
    """What encoder and decoder have in common."""
    parts = {"conv_in": half.conv_in, "norm_out": half.norm, "conv_out": half.conv_out}
    parts |= {f"mid.{name}": module for name, module in zip(_MIDDLE, half.middle, strict=True)}
    return {f"{prefix}.{name}": module for name, module in parts.items()}


def _level_parts(prefix: str, level: nn.Module) -> dict[str, nn.Module]:
    """The blocks of a level and, numbered apart, its attention."""
    blocks = [module for module in level.children() if isinstance(module, ResidualBlock)]
    attentions = [module for module in level.children() if isinstance(module, Attention)]
    parts: dict[str, nn.Module] = {f"{prefix}.block.{number}": block for number, block in enumerate(blocks)}
    return parts | {f"{prefix}.attn.{number}": attention for number, attention in enumerate(attentions)}


def _inside(module: nn.Module) -> dict[str, str]:
    """Released names of the submodules that hold the weights, and ours; empty names where it is the module itself."""
    if isinstance(module, ResidualBlock):
        return _RESIDUAL
    if isinstance(module, Attention):
        return _ATTENTION
    return {"": ""}  # `conv` of a resampling has the same name in both


def _latent(state: Mapping[str, Tensor]) -> tuple[Kind, int]:
    """What holds the latent, and Z."""
    moments, encoded = _conv_shape(state, "quant_conv.weight")
    decoded, latent_channels = _conv_shape(state, "post_quant_conv.weight")
    if moments != encoded or decoded != latent_channels:
        raise UserError(
            f"The autoencoder file's latent has {latent_channels} channels outside and {decoded} inside (embed_dim and "
            "z_channels), which our Autoencoder does not have."
        )
    codebook = state.get("quantize.embedding.weight")
    if codebook is not None and (codebook.ndim != 2 or codebook.shape[1] != latent_channels):
        raise UserError(
            f"The autoencoder file's codebook has the shape {list(codebook.shape)}, which does not fit its latent of "
            f"{latent_channels} channels."
        )
    if moments == latent_channels:
        return ("free" if codebook is None else "quantised"), latent_channels
    if moments == 2 * latent_channels and codebook is None:
        return "kl", latent_channels
    held = "" if codebook is None else " and a codebook"
    raise UserError(
        f"The autoencoder file's encoder ends in {moments} channels{held}, which does not fit a latent of "
        f"{latent_channels} channels."
    )


def _num_levels(state: Mapping[str, Tensor]) -> int:
    return max(1, _count(state, r"encoder\.down\.(\d+)\."))  # without any, the first is reported missing


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many different numbers `pattern` finds in the names."""
    return len({match[1] for name in state if (match := re.match(pattern, name))})


def _conv_shape(state: Mapping[str, Tensor], name: str, what: str = "autoencoder") -> tuple[int, int]:
    """Output and input channels of a convolution's weight."""
    if name in ("encoder.conv_in.weight", "main.0.weight") and name not in state:
        raise UserError(f"The file holds no released {what}: {name} is missing; give the file of one.")
    shape = get(state, name).shape
    if len(shape) != 4 or 0 in shape:
        raise UserError(f"The {what} file's {name} has the shape {list(shape)}; it is damaged or of another kind.")
    return shape[0], shape[1]
