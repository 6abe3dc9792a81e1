"""Weights of the published systems (DDGAN, WDDGAN, LDDGAN) in our modules, and back.

A released file is a flat dictionary of tensors, whose names may carry the prefix `module.`. Sizes are inferred from
names and shapes; only the resolution and the generator's final tanh are not in the file. The generator's modules are
numbered in the order of construction, which `_generator_modules` walks; that is the only place that knows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from lddgan.errors import UserError
from lddgan.interop.weights import build, export, get, load, tensor_names, without_prefix
from lddgan.networks.discriminator import Discriminator, Kind
from lddgan.networks.layers import Attention, ResidualBlock
from lddgan.networks.ncsnpp import DownLevel, NCSNpp, Resampling, UpLevel
from lddgan.networks.scaling import FirPyramid, HaarPyramid

# Released names of the parts of a block, and ours.
_RESIDUAL = {
    "GroupNorm_0.style": "norm_0.style",
    "Conv_0": "conv_0",
    "Dense_0": "time",
    "GroupNorm_1.style": "norm_1.style",
    "Conv_1": "conv_1",
    "Conv_2": "shortcut",
    "convH_0": "bands",
}
_ATTENTION = {"GroupNorm_0": "norm", "NIN_0": "query", "NIN_1": "key", "NIN_2": "value", "NIN_3": "out"}
_DISCRIMINATOR_BLOCK = {"conv1.0": "conv_0", "dense_t1": "time", "conv2.0": "conv_1", "skip.0": "shortcut"}
_DISCRIMINATOR = {
    "t_embed.main.0": "time_0",
    "t_embed.main.2": "time_1",
    "start_conv": "conv_in",
    "final_conv": "conv_out",
    "end_linear": "linear_out",
}


def generator_from_released(state: Mapping[str, Tensor], *, tanh: bool) -> NCSNpp:
    """The generator of a released file, in evaluation mode.

    Args:
        state: the file's tensors, by name.
        tanh: whether the published network ends in tanh (pixels: yes, latents: as trained).

    Raises:
        UserError: if the file is not a generator of a kind that `NCSNpp` covers, or is incomplete.
    """
    sizes = generator_sizes(state)
    model = build(lambda: NCSNpp(**sizes, tanh=tanh), "generator")
    return load(model, without_prefix(state), generator_key_map(model), "generator")


def generator_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The keyword arguments of `NCSNpp` for a released file, all but `tanh`.

    Raises:
        UserError: if the file is not a generator of a kind that `NCSNpp` covers.
    """
    state = without_prefix(state)
    # A generator of one level has no way up that could tell; WDDGAN has none such.
    resampling: Resampling = "haar" if any(".convH_0." in name for name in state) else "fir"
    tokens = _generator_tokens(state, resampling)
    num_levels = tokens.count("pyramid") + 1
    # R residual blocks over L levels are L num_blocks down, L (num_blocks + 1) up, 2 (L - 1) resampling, 2 in between.
    num_blocks, rest = divmod(tokens.count("residual") - 3 * num_levels, 2 * num_levels)
    if rest or num_blocks < 1:
        raise UserError(
            "The generator file's residual blocks do not add up to a U-Net; it is damaged or of another kind."
        )

    # The first block of a level tells the level's width, and whether attention follows it.
    starts = [3] + [3 + i + 1 for i, token in enumerate(tokens) if token == "pyramid"]
    widths = [get(state, f"all_modules.{start}.Conv_0.weight").shape[0] for start in starts]
    width, channels = get(state, "all_modules.2.weight").shape[:2]
    if any(level_width % width for level_width in widths):
        raise UserError(f"The generator file's widths {widths} are not multiples of its base width {width}.")
    mapping = [name for name in state if re.fullmatch(r"z_transform\.\d+\.weight", name)]
    mapping_width, latent_dim = get(state, "z_transform.1.weight").shape
    return {
        "channels": channels,
        "width": width,
        "multipliers": tuple(level_width // width for level_width in widths),
        "num_blocks": num_blocks,
        "attention_levels": tuple(i for i, start in enumerate(starts) if tokens[start - 3 + 1] == "attention"),
        "latent_dim": latent_dim,
        "mapping_width": mapping_width,
        "mapping_depth": len(mapping) - 1,
        "resampling": resampling,
    }


def discriminator_from_released(state: Mapping[str, Tensor]) -> Discriminator:
    """The discriminator of a released file, in evaluation mode; *small* or *large* is told by its first block.

    Raises:
        UserError: if the file is not a discriminator or is incomplete.
    """
    state = without_prefix(state)
    if "start_conv.weight" not in state:
        raise UserError("The file holds no released discriminator: start_conv.weight is missing; give the file of one.")
    numbers = [int(match[1]) for name in state if (match := re.fullmatch(r"conv(\d+)\.conv1\.0\.weight", name))]
    first_out, first_in = get(state, "conv1.conv1.0.weight").shape[:2]
    kind: Kind = "small" if first_out == first_in else "large"
    start = state["start_conv.weight"]
    model = build(
        lambda: Discriminator(
            channels=start.shape[1] // 2,
            width=start.shape[0] // 2,
            time_dim=get(state, "t_embed.main.0.weight").shape[1],
            kind=kind,
            num_layers=max(numbers),
        ),
        "discriminator",
    )
    return load(model, state, discriminator_key_map(model), "discriminator")


def generator_to_released(model: NCSNpp) -> dict[str, Tensor]:
    """The generator's tensors under their released names (no prefix)."""
    return export(model, generator_key_map(model))


def discriminator_to_released(model: Discriminator) -> dict[str, Tensor]:
    """The discriminator's tensors under their released names (no prefix)."""
    return export(model, discriminator_key_map(model))


def generator_key_map(model: NCSNpp) -> dict[str, str]:
    """Released name of every tensor, and ours."""
    ours = {module: name for name, module in model.named_modules()}
    parts = {f"z_transform.{2 * i + 1}": layer for i, layer in enumerate(model.mapping.layers)}
    for number, module in enumerate(_generator_modules(model)):
        released = f"all_modules.{number}"
        if isinstance(module, FirPyramid):
            parts[f"{released}.Conv2d_0"] = module.conv
        elif isinstance(module, HaarPyramid):
            parts[released] = module.conv
        elif isinstance(module, (ResidualBlock, Attention)):
            names = _RESIDUAL if isinstance(module, ResidualBlock) else _ATTENTION
            own = dict(module.named_modules())
            parts.update({f"{released}.{theirs}": own[part] for theirs, part in names.items() if part in own})
        else:
            parts[released] = module
    return tensor_names({released: ours[module] for released, module in parts.items()}, model)


def discriminator_key_map(model: Discriminator) -> dict[str, str]:
    """Released name of every tensor, and ours."""
    parts = dict(_DISCRIMINATOR)
    for i in range(len(model.blocks)):
        parts.update({f"conv{i + 1}.{name}": f"blocks.{i}.{part}" for name, part in _DISCRIMINATOR_BLOCK.items()})
    return tensor_names(parts, model)


def _generator_modules(model: NCSNpp) -> Iterator[nn.Module]:
    """The modules of the generator in the order in which released files number them."""
    yield from (model.time_0, model.time_1, model.conv_in)
    for level in model.down_levels:
        assert isinstance(level, DownLevel)
        for i, block in enumerate(level.blocks):
            yield block
            if level.attentions:
                yield level.attentions[i]
        yield from (module for module in (level.down, level.pyramid) if module is not None)
    yield from (model.middle_0, model.middle_attention, model.middle_1)
    for level in model.up_levels:
        assert isinstance(level, UpLevel)
        yield from level.blocks
        yield from (module for module in (level.attention, level.up) if module is not None)
    yield from (model.norm_out, model.conv_out)


def _generator_tokens(state: Mapping[str, Tensor], resampling: Resampling) -> list[str]:
    """What each numbered module is, from number 3 (the first block) on; the last two are norm and convolution.

    Raises:
        UserError: it is no NCSN++, or not a whole one.
    """
    numbers = {int(match[1]) for name in state if (match := re.match(r"all_modules\.(\d+)\.", name))}
    if not numbers:
        what = ", but a discriminator" if "start_conv.weight" in state else ""
        raise UserError(
            f"The file holds no released generator{what}: it has no all_modules.* entries; give the file of one."
        )
    tokens = []
    for number in range(3, max(numbers) + 1):
        prefix = f"all_modules.{number}."
        if prefix + "Conv_0.weight" in state:
            tokens.append("residual")
        elif prefix + "NIN_0.W" in state:
            tokens.append("attention")
        elif prefix + "Conv2d_0.weight" in state and resampling == "fir":
            tokens.append("pyramid")
        elif prefix + "weight" in state:
            tokens.append("pyramid" if resampling == "haar" and number < max(numbers) - 1 else "plain")
        else:
            raise UserError(f"The generator file is incomplete: {prefix[:-1]} is missing.")
    if tokens[-2:] != ["plain", "plain"] or "plain" in tokens[:-2]:
        raise UserError("The generator file is not an NCSN++ with a convolved input pyramid; it is of another kind.")
    return tokens
