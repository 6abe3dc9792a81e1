"""What drawing pixels from a latent costs: the published decoder the plain way, ours, and the slim one.

    python benchmarks/decoder.py [--recipe cifar10 lsun-church256] [--batch 4] [--rounds 5] [--device cpu]

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

import torch
from parity import relative_error
from plain import compare, liven, plain_copy
from samples import exit_code

from lddgan.bench import convolution_peak
from lddgan.estimate import model_cost
from lddgan.models import build_space
from lddgan.recipes import recipe
from lddgan.runtime.device import describe, resolve_device
from lddgan.spaces.latent import LatentSpace


@torch.inference_mode()
def measure(name: str, batch: int, rounds: int, device: torch.device, peak: float) -> dict[str, float]:
    """Print a line for each decoder of a recipe; the ratios by `RECIPE_DECODER`."""
    config = recipe(name)
    space = liven(build_space(config)).to(device).to(memory_format=torch.channels_last).eval()
    assert isinstance(space, LatentSpace)
    plain, x_0 = plain_copy(space.autoencoder.decoder), torch.randn(batch, *config.space_shape, device=device)
    cost, ratios = model_cost(config), {}
    for decoder in space.decoders:
        space.decoder = decoder
        comparison = compare(lambda: plain(x_0), lambda: space.decode(x_0), rounds, device)
        macs = cost["slim_decoder_macs" if decoder == "slim" else "decoder_macs"]
        note = f"{macs / 1e9:.2f} GMAC, {macs * batch / comparison.ours / peak:.2f} of the peak"
        if decoder == "full":
            note += f", error {relative_error(space.decode(x_0), plain(x_0)):.1e}"
        print(f"{name + ', ' + decoder:<22} {comparison}  {note}")
        ratios[f"{name}_{decoder}"] = round(comparison.ratio, 3)
    return ratios


def run(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Speed of the decoders against the plain baseline.")
    parser.add_argument("--recipe", nargs="+", default=["cifar10", "lsun-church256"])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    device = resolve_device(args.device)
    peak = convolution_peak(device)
    result: dict[str, object] = {"hardware": describe(device), "torch": torch.__version__, "batch": args.batch}
    print(f"{'':<22} {'plain':>12}  {'ours':>12}  {'ratio':>7}  (quartiles)")
    for name in args.recipe:
        result |= measure(name, args.batch, args.rounds, device, peak)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(run))
