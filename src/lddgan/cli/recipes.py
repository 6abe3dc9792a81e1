"""`lddgan recipes`: the recipes and what they cost."""

from __future__ import annotations

from lddgan.cli.main import Parser
from lddgan.estimate import model_cost
from lddgan.recipes import RECIPES


def main(arguments: list[str]) -> None:
    Parser(prog="lddgan recipes", description=__doc__).parse_args(arguments)
    print(f"{'recipe':<16} {'image':>11} {'latent':>10} {'parameters':>11} {'MACs/image':>11}  what it is")
    for name, build in RECIPES.items():
        config = build()
        cost = model_cost(config)
        image = "x".join(map(str, (config.images.resolution, config.images.resolution, config.images.channels)))
        channels, height, width = config.latent_shape
        parameters = cost["generator_params"] + cost["decoder_params"]
        summary = (build.__doc__ or "").strip().splitlines()[0]
        print(
            f"{name:<16} {image:>11} {f'{height}x{width}x{channels}':>10} {parameters / 1e6:>9.2f} M "
            f"{cost['sample_macs'] / 1e9:>9.2f} G  {summary}"
        )
    print(f"{'folder':<16} {'from data':>11} {'':>10} {'':>11} {'':>11}  your own images: sizes follow from the data")
    print("\nParameters: generator and decoder. MACs: all steps and the decoder, for one image.")
