"""What of ours can stand in a table: one name, one heading, one way to take it from a row or a recipe."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from lddgan.config import Config, from_dict, to_dict
from lddgan.estimate import model_cost, sample_memory
from lddgan.networks.discriminator import Discriminator
from lddgan.recipes import recipe
from lddgan.reports.rows import Row

RUN_VALUES: dict[str, tuple[str, Callable[[Row], str]]] = {
    "score": ("Fréchet distance ↓", lambda row: f"{row.scores['score']} {row.scores['frechet_distance']:.2f}"),
    "precision": ("Precision ↑", lambda row: decimals(row.scores["precision"], 3)),
    "recall": ("Recall ↑", lambda row: decimals(row.scores["recall"], 3)),
    "nfe": ("NFE ↓", lambda row: str(row.speed["nfe"]) if row.speed else ""),
    "batch_seconds": ("Time (s) ↓", lambda row: f"{row.speed['batch_seconds']:.3g}" if row.speed else ""),
    "params": ("Parameters, M", lambda row: f"{(_cost(row)['generator_params'] + _drawn(row)[0]) / 1e6:.2f}"),
    "macs": ("MACs of an image", lambda row: _giga(_drawn(row)[1])),
    "psnr": ("PSNR (dB) ↑", lambda row: decimals(row.scores.get("psnr"), 2)),
    "epochs": ("Epochs", lambda row: str(row.training["epochs"])),
    "factor": ("Scale factor f", lambda row: str(2 ** (len(row.config["autoencoder"]["multipliers"]) - 1))),
    "latent": ("Output size", lambda row: _latent(row.config)),
    "reference": (
        "Images", lambda row: f"{row.scores['n_reference']:,} of the {row.scores['reference']['split']} split"
    ),
}  # fmt: skip
COST_VALUES: dict[str, tuple[str, Callable[[dict[str, float]], str]]] = {
    "params": ("Params", lambda cost: f"{(cost['generator_params'] + cost['decoder_params']) / 1e6:.2f}M"),
    "generator_macs": ("MACs of a generator step", lambda cost: _giga(cost["generator_macs_per_step"])),
    "decoder_macs": ("MACs of the decoder", lambda cost: _giga(cost["decoder_macs"])),
    "slim_decoder_macs": (
        "MACs of the slim decoder",
        lambda cost: _giga(cost["slim_decoder_macs"]) if "slim_decoder_macs" in cost else "",
    ),
    "sample_macs": ("MACs of a sample", lambda cost: _giga(cost["sample_macs"])),
    "memory": ("Memory, counted (GB)", lambda cost: f"{cost['memory'] / 1e9:.3f}"),
}


def _cost(row: Row) -> dict[str, float]:
    return _config_cost(json.dumps(row.config, sort_keys=True))


@cache
def _config_cost(config: str) -> dict[str, float]:
    return model_cost(from_dict(json.loads(config), "a row"))


def _drawn(row: Row) -> tuple[float, float]:
    """Parameters of the decoder that the row was drawn and timed with, and MACs of a whole sample."""
    cost = _cost(row)
    if "slim_decoder_params" in cost:
        return cost["slim_decoder_params"], cost["slim_sample_macs"]
    return cost["decoder_params"], cost["sample_macs"]


def heading(name: str) -> str:
    """Of a value's column; `autoencoder.X` is the value X of the autoencoder that a row shares, `cost.X` a cost."""
    kind, _, value = name.rpartition(".")
    text = (COST_VALUES if kind == "cost" else RUN_VALUES)[value][0]
    return f"autoencoder: {text}" if kind == "autoencoder" else text


def run_value(name: str, row: Row, autoencoder: Row | None) -> str:
    """The value of a row, or of the row of its autoencoder; empty where there is none."""
    kind, _, value = name.rpartition(".")
    source = autoencoder if kind == "autoencoder" else row
    return RUN_VALUES[value][1](source) if source else ""


def cost_value(name: str, recipe_name: str) -> str:
    return COST_VALUES[name.removeprefix("cost.")][1](recipe_cost(recipe_name))


@cache
def recipe_cost(name: str) -> dict[str, float]:
    """`model_cost` of a recipe, and the `memory` in bytes of drawing one image."""
    config = recipe(name)
    return model_cost(config) | {"memory": sample_memory(config, 1)}


def recipe_field(name: str, recipe_name: str) -> str:
    """A field of a recipe as the paper prints it: `(1,2,2)`, `16`, `None`, `1.6e-4`."""
    value: Any = to_dict(recipe(recipe_name))
    for part in name.split("."):
        value = value[part]
    if isinstance(value, list):
        joined = ",".join(map(str, value))
        return joined or "None" if name.endswith("attention_resolutions") else f"({joined})"
    if isinstance(value, float) and 0 < value < 0.01:
        mantissa, exponent = f"{value:.6e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def discriminator_layers(config: Config) -> dict[str, str]:
    """The layers of the discriminator that a config builds, in the words of Table 9."""
    with torch.device("meta"):
        network = Discriminator(channels=config.space_shape[0], **dataclasses.asdict(config.discriminator))
    layers = {"conv_in": f"1x1 conv2d, {network.conv_in.out_channels}"}
    for number, block in enumerate(network.blocks, 1):
        down = " down" if block.down else ""
        layers[f"block{number}"] = f"ResBlock{down}, {block.conv_0.out_channels}"  # type: ignore[union-attr]
    return layers | {
        "minibatch_std": "minibatch std layer",
        "conv_out": f"3x3 conv2d, {network.conv_out.out_channels}",
        "pooling": "Global Sum Pooling",
        "linear_out": "FC layer → scalar" if network.linear_out.out_features == 1 else "FC layer",
    }


def decimals(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"


def _giga(value: float) -> str:
    return f"{value / 1e9:.3f}G" if value < 1e8 else f"{value / 1e9:.2f}G"


def _latent(config: dict[str, Any]) -> str:
    autoencoder = config["autoencoder"]
    side = config["images"]["resolution"] // 2 ** (len(autoencoder["multipliers"]) - 1)
    return f"{side}x{side}x{autoencoder['latent_channels']}"
