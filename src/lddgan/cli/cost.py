"""`lddgan cost MODEL|RECIPE`: parameters, multiply-accumulates and memory, counted without running anything."""

from __future__ import annotations

import json
from pathlib import Path

from lddgan.cli.main import Parser
from lddgan.config import Config, load_yaml
from lddgan.estimate import model_cost, sample_memory
from lddgan.models import load_model
from lddgan.recipes import recipe

BATCH = 100


def main(arguments: list[str]) -> None:
    parser = Parser(prog="lddgan cost", description=__doc__)
    parser.add_argument("target", metavar="MODEL|RECIPE", help="a model or run folder, a recipe's name, or a .yaml")
    parser.add_argument("--json", action="store_true", help="print one JSON object, in raw counts and bytes")
    options = parser.parse_args(arguments)
    config = config_of(options.target)
    cost = model_cost(config) | {f"memory_bytes_batch_{n}": sample_memory(config, n) for n in (1, BATCH)}
    if options.json:
        print(json.dumps({"target": options.target, "num_steps": config.diffusion.num_steps, **cost}))
        return
    print(
        f"{'':<14}{'parameters':>14}{'MACs an image':>16}\n"
        f"{'generator':<14}{cost['generator_params'] / 1e6:>12,.2f} M{cost['generator_macs_per_step'] / 1e9:>14,.3f} G"
        f"  a step, of {config.diffusion.num_steps}\n"
        f"{'decoder':<14}{cost['decoder_params'] / 1e6:>12,.2f} M{cost['decoder_macs'] / 1e9:>14,.3f} G\n"
        f"{'whole sample':<14}{(cost['generator_params'] + cost['decoder_params']) / 1e6:>12,.2f} M"
        f"{cost['sample_macs'] / 1e9:>14,.3f} G\n"
        f"{'encoder':<14}{cost['encoder_params'] / 1e6:>12,.2f} M{cost['encoder_macs'] / 1e9:>14,.3f} G"
        "  not used to draw\n\n"
        f"memory        {cost['memory_bytes_batch_1'] / 2**30:.3f} GiB for one image, "
        f"{cost[f'memory_bytes_batch_{BATCH}'] / 2**30:.3f} GiB for {BATCH} at once\n"
        "              (weights and activations alive at once in float32, without what kernels take on top)"
    )


def config_of(target: str) -> Config:
    """The config of a model folder, a run folder, a YAML file or a recipe.

    Raises:
        UserError: it is none of these.
    """
    if Path(target).is_dir():
        return load_model(target)[0]
    return load_yaml(target) if target.endswith((".yaml", ".yml")) else recipe(target)
