"""`lddgan recipes`: the recipes and what they cost."""

from __future__ import annotations

import json

from lddgan.cli.main import Parser
from lddgan.estimate import model_cost
from lddgan.recipes import RECIPES


def main(arguments: list[str]) -> None:
    parser = Parser(prog="lddgan recipes", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object, in raw counts")
    options = parser.parse_args(arguments)
    configs = {name: build() for name, build in RECIPES.items()}
    costs = {name: model_cost(config) for name, config in configs.items()}
    summaries = {name: (build.__doc__ or "").strip().splitlines()[0] for name, build in RECIPES.items()}
    if options.json:
        print(json.dumps({name: {"summary": summaries[name], **costs[name]} for name in RECIPES}))
        return
    print(f"{'recipe':<25} {'image':>11} {'diffused':>10} {'parameters':>11} {'MACs/image':>11}  what it is")
    for name, config in configs.items():
        image = "x".join(map(str, (config.images.resolution, config.images.resolution, config.images.channels)))
        channels, height, width = config.space_shape
        parameters = costs[name]["generator_params"] + costs[name]["decoder_params"]
        print(
            f"{name:<25} {image:>11} {f'{height}x{width}x{channels}':>10} {parameters / 1e6:>9.2f} M "
            f"{costs[name]['sample_macs'] / 1e9:>9.2f} G  {summaries[name]}"
        )
    print(f"{'folder':<25} {'from data':>11} {'':>10} {'':>11} {'':>11}  your own images: sizes follow from the data")
    print("\nDiffused: the size of what the diffusion runs on. Parameters: generator and decoder.")
    print("MACs: all steps and the decoder, for one image.")
