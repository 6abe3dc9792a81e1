"""`lddgan sample MODEL`: draw images."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tqdm import tqdm

from lddgan.cli.main import Parser
from lddgan.errors import UserError
from lddgan.pipeline import ENGINES, PRECISIONS, Pipeline
from lddgan.reports.writers import open_writer
from lddgan.runtime.device import DEVICES, describe, resolve_device
from lddgan.runtime.parallel import World, joined
from lddgan.spaces.latent import DECODERS


def main(arguments: list[str]) -> None:
    parser = Parser(prog="lddgan sample", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="a model or run folder, or the name of a shipped model")
    parser.add_argument("-n", type=int, default=64, help="how many images (default 64)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=64, help="images drawn at once; it does not change them")
    parser.add_argument("--out", type=Path, default=Path("samples.png"), help="a folder, .zip, .npz, or a grid .png")
    parser.add_argument("--decoder", choices=DECODERS, help="slim (the default where the model has one) or full")
    parser.add_argument("--engine", default="auto", choices=ENGINES, help="what draws (Pipeline.engine says more)")
    parser.add_argument("--precision", default="auto", choices=PRECISIONS, help="auto: bfloat16 where it is fast")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    options = parser.parse_args(arguments)
    if options.n < 1 or options.batch < 1:
        raise UserError(f"cannot draw {options.n} images in batches of {options.batch}: give positive numbers")

    with joined(resolve_device(options.device)) as everyone:
        _sample(options, everyone)


def _sample(options: argparse.Namespace, everyone: World) -> None:
    pipe = Pipeline.from_pretrained(
        options.model, options.device, options.decoder, options.engine, options.precision
    )  # fmt: skip
    images = pipe.stream(options.n, options.seed, options.batch)
    if not everyone.first:  # its images go to the first one, which writes
        for _ in images:
            pass
        return
    with open_writer(options.out, options.n) as write:
        bar = tqdm(total=options.n, unit="image", dynamic_ncols=True)
        started = time.monotonic()
        for part in images:
            write(part)
            bar.update(len(part))
        seconds = time.monotonic() - started
        bar.close()
    print(f"{options.n} images of seed {options.seed} in '{options.out}', {seconds:.1f} s on {describe(pipe.device)}")
