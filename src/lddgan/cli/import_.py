"""`lddgan import FILE...`: released checkpoints of DDGAN, WDDGAN and LDDGAN as a model folder."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from lddgan.cli.main import Parser
from lddgan.errors import UserError
from lddgan.interop.imported import PUBLISHED, import_model
from lddgan.models import save_model


def main(arguments: list[str]) -> None:
    parser = Parser(prog="lddgan import", description=__doc__)
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE",
        help="netG_*.pth or a training's content.pth and, for lddgan, the autoencoder's .ckpt",
    )  # fmt: skip
    parser.add_argument("--as", dest="system", required=True, choices=PUBLISHED, help="whose checkpoint it is")
    parser.add_argument("--to", type=Path, required=True, metavar="MODEL_FOLDER")
    parser.add_argument("--resolution", type=int, help="of the images, in pixels (default: as published)")
    parser.add_argument("--num-steps", type=int, help="denoising steps T (default: as published)")
    parser.add_argument(
        "--tanh", action=argparse.BooleanOptionalAction, help="the generator ends in tanh (default: yes)"
    )
    parser.add_argument(
        "--latent-scale", type=float, help="what lddgan's latents were divided by (default: as released)"
    )
    options = parser.parse_args(arguments)
    for name in ("resolution", "num_steps", "latent_scale"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"--{name.replace('_', '-')} {value} is not positive: give another")
    if (options.to / "config.json").exists():
        raise UserError(f"'{options.to}' already holds a model: give another folder with --to")
    config, space, generator = import_model(
        options.files, options.system, resolution=options.resolution, num_steps=options.num_steps, tanh=options.tanh,
        latent_scale=options.latent_scale,
    )  # fmt: skip
    save_model(options.to, config, space, generator)
    side = config.images.resolution
    print(
        f"{options.system} with {config.diffusion.num_steps} steps at {side}x{side} as '{options.to}', "
        f"draw with: lddgan sample {options.to} -n 64 --out samples.png"
    )
