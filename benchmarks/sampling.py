"""How fast a model draws, as ratios to the plain baseline in one run, and how near to the machine's limit.

    python benchmarks/sampling.py [--rounds 5] [--batch 100] [--engine torch] [--device cpu]

CIFAR-10 and LSUN Church at the paper's sizes with weights as large as trained ones. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

import torch
from parity import relative_error
from plain import compare, liven, plain_copy, plain_drawer, plain_filters
from samples import exit_code

from lddgan.bench import convolution_peak
from lddgan.drawing import in_bfloat16
from lddgan.estimate import model_cost
from lddgan.models import build_generator, build_space
from lddgan.pipeline import ENGINES, Pipeline
from lddgan.recipes import recipe
from lddgan.runtime.device import describe, fast_bfloat16, resolve_device
from lddgan.runtime.seeds import image_draws


def pipeline(name: str, device: torch.device) -> Pipeline:
    """A pipeline of a recipe's sizes with livened weights."""
    config = recipe(name)
    space, generator = build_space(config), build_generator(config)
    liven(space)
    liven(generator, 1)
    return Pipeline(config, space, generator, device.type)


def run(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Speed of sampling against the plain baseline.")
    parser.add_argument("--recipe", default="cifar10")
    parser.add_argument("--large", default="lsun-church256", help="the recipe of which one image is drawn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--engine", default="torch", choices=ENGINES, help="of our whole samplings")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    device = resolve_device(args.device)
    result: dict[str, object] = {
        "recipe": args.recipe,
        "hardware": describe(device),
        "torch": torch.__version__,
        "batch": args.batch,
    }
    spread = {}
    print(f"{'':<16} {'plain':>12}  {'ours':>12}  {'ratio':>7}  (quartiles)")

    def show(name: str, comparison, note: str = "") -> None:
        print(f"{name:<16} {comparison}  {note}")
        result[name], spread[name] = round(comparison.ratio, 3), [round(part, 3) for part in comparison.quartiles]

    pipe = pipeline(args.recipe, device)
    config = pipe.config
    x, ((z, _), *_) = image_draws(0, range(args.batch), config.space_shape, config.generator.latent_dim, 1, device)
    t = torch.full((args.batch,), 2, device=device)
    plain_generator = plain_copy(pipe.generator)

    @torch.inference_mode()
    def plain_step() -> torch.Tensor:
        with plain_filters():
            return plain_generator(x, t, z)

    @torch.inference_mode()
    def our_step() -> torch.Tensor:
        return pipe.generator(x, t[:1], z)

    error = relative_error(our_step(), plain_step())
    show("generator_fp32", compare(plain_step, our_step, args.rounds, device), f"error {error:.1e}")
    if fast_bfloat16(device):
        reduced, _ = in_bfloat16(pipe.generator, pipe.space)

        @torch.inference_mode()
        def half_step() -> torch.Tensor:
            return reduced(x, t[:1], z)

        error = relative_error(half_step(), plain_step())
        show("generator_bf16", compare(plain_step, half_step, args.rounds, device), f"error {error:.1e}")
        del reduced
    else:
        print("generator_bf16   not measured: this chip has no fast bfloat16")
        result["generator_bf16"] = None

    indices, draw = range(args.batch), plain_drawer(pipe, range(args.batch))
    pipe.engine = args.engine
    peak, cost = convolution_peak(device, getattr(torch, pipe.drawn_in)), model_cost(config)
    for decoder, name, macs in (
        ("full", "sampling_full", "sample_macs"),
        ("slim", "sampling_slim", "slim_sample_macs"),
    ):
        pipe.decoder = decoder
        comparison = compare(draw, lambda: pipe.draw(indices), args.rounds, device)
        fraction = cost[macs] * args.batch / comparison.ours / peak
        show(name, comparison, f"{fraction:.2f} of the peak of {2 * peak / 1e9:,.0f} GFLOP/s in {pipe.drawn_in}")
        result["peak_fraction" if decoder == "full" else "peak_fraction_slim"] = round(fraction, 3)

    large = pipeline(args.large, device)
    large.engine = args.engine
    draw_large = plain_drawer(large, range(1))
    show("sampling_256", compare(draw_large, lambda: large.draw(range(1)), args.rounds, device))
    print(json.dumps({**result, "spread": spread}))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(run))
