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
    cost = model_cost(config) | {f"memory_bytes_batch_{n}": sample_memory(config, n, slim=True) for n in (1, BATCH)}
    if options.json:
        print(json.dumps({"target": options.target, "num_steps": config.diffusion.num_steps, **cost}))
        return
    generator, decoder, steps = cost["generator_params"], cost["decoder_params"], config.diffusion.num_steps
    lines = [
        f"{'':<18}{'parameters':>14}{'MACs an image':>16}",
        _line("generator", generator, cost["generator_macs_per_step"]) + f"  a step, of {steps}",
        _line("decoder", decoder, cost["decoder_macs"]) + ("" if decoder else f"  none: the space is {config.space}"),
        _line("whole sample", generator + decoder, cost["sample_macs"]),
    ]
    if "slim_decoder_params" in cost:
        slim = cost["slim_decoder_params"]
        lines += [
            _line("slim decoder", slim, cost["slim_decoder_macs"]),
            _line("whole sample, slim", generator + slim, cost["slim_sample_macs"]) + "  what is drawn with",
        ]
    if cost["encoder_params"]:
        lines.append(_line("encoder", cost["encoder_params"], cost["encoder_macs"]) + "  not used to draw")
    lines += [
        "",
        f"memory            {cost['memory_bytes_batch_1'] / 2**30:.3f} GiB for one image, "
        f"{cost[f'memory_bytes_batch_{BATCH}'] / 2**30:.3f} GiB for {BATCH} at once",
        "                  (weights and activations alive at once in float32, without what kernels take on top)",
    ]
    print("\n".join(lines))


def _line(name: str, parameters: float, macs: float) -> str:
    return f"{name:<18}{parameters / 1e6:>12,.2f} M{macs / 1e9:>14,.3f} G"


def config_of(target: str) -> Config:
    """The config of a model folder, a run folder, a YAML file or a recipe.

    Raises:
        UserError: it is none of these.
    """
    if Path(target).is_dir():
        return load_model(target)[0]
    return load_yaml(target) if target.endswith((".yaml", ".yml")) else recipe(target)
