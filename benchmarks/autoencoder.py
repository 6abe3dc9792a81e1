"""How faithful is an autoencoder, by its own decoder, by its slim one, and beside the best linear codec of its size?

    python benchmarks/autoencoder.py MODEL --data PATH --features NETWORK --features-weights FILE [--split test]

PSNR is of the mean squared error over all images of the split; the distance is between the reconstructions and the same
images. The linear codec is the principal components of f x f patches of the training images, as many as the latent has
channels. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from samples import exit_code
from torch import Tensor

from lddgan.autoencoder.measure import psnr
from lddgan.autoencoder.model import Autoencoder
from lddgan.data.latents import to_uint8, to_unit_range, weights_hash
from lddgan.data.prepare import prepare
from lddgan.estimate import model_cost
from lddgan.metrics.evaluate import Reference, evaluate
from lddgan.metrics.features import NETWORKS, load_features
from lddgan.metrics.measured import CHUNK, Measured, evenly_spread, from_path
from lddgan.models import load_space
from lddgan.runtime.device import resolve_device

COMPONENTS_FROM = 5000
"""Training images whose patches give the principal components, as for a linear shortcut."""


def linear_codec(images: Tensor, factor: int, latent_channels: int) -> Autoencoder:
    """The smallest autoencoder with a linear shortcut, set to the principal components of `images [N, C, R, R]` and
    nothing beside it."""
    levels = (1,) * factor.bit_length()
    codec = Autoencoder(
        channels=images.shape[1], latent_channels=latent_channels, width=4, multipliers=levels, num_blocks=1,
        linear_shortcut=True,
    )  # fmt: skip
    codec.fit_shortcut(images)
    return codec.eval()


def run(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure an autoencoder on held-out images.")
    parser.add_argument("model", help="a model folder, a run folder that has trained its autoencoder, a shipped model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="test", choices=("train", "test"))
    parser.add_argument("--features", default="resnet56", choices=NETWORKS)
    parser.add_argument("--features-weights", type=Path)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    args = parser.parse_args(argv)
    device = resolve_device(args.device)
    network = load_features(args.features, args.features_weights, device)
    config, space = load_space(args.model)
    space.to(device).eval()
    side, channels = config.images.resolution, config.images.channels
    train = prepare(args.data, split="train", resolution=side, channels=channels)
    some = to_unit_range(train.batch(evenly_spread(len(train), COMPONENTS_FROM)))
    linear = linear_codec(some, config.factor, config.space_shape[0]).to(device)

    ways: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
        "linear": (linear, weights_hash(linear)),
        "full": (space.autoencoder, weights_hash(space.autoencoder)),
    }
    if space.slim_decoder is not None:
        slim = space.slim_decoder
        ways["slim"] = (lambda images: slim(space.encode(images)), weights_hash(space))
    originals = from_path(args.data, args.split, resolution=side, channels=channels)
    cost, results = model_cost(config), {}
    macs = {"full": cost["decoder_macs"], "slim": cost.get("slim_decoder_macs", 0)}
    print(f"{'decoder':<10}{'PSNR (dB)':>12}{f'FD[{args.features}]':>24}{'MACs':>16}")
    for name, (reconstruct, digest) in ways.items():
        scores = measure(reconstruct, digest, originals, network, device)
        results[name] = scores
        count = f"{macs[name] / 1e6:,.1f} M" if name in macs else ""
        print(f"{name:<10}{scores['psnr']:>12.2f}{scores['frechet_distance']:>24.3f}{count:>16}", flush=True)
    print(json.dumps({"model": args.model, "split": args.split, "images": originals.count, **results, **cost}))
    return 0


def measure(
    reconstruct: Callable[[Tensor], Tensor], digest: str, originals: Measured, network: Any, device: torch.device
) -> dict[str, Any]:
    """PSNR and Frechet distance of all reconstructions."""
    errors: dict[int, float] = {}

    @torch.inference_mode()
    def read(rows: range) -> np.ndarray:
        images = to_unit_range(torch.from_numpy(np.array(originals.read(rows))))
        ours = torch.cat([reconstruct(part.to(device)).float().clamp(-1, 1).cpu() for part in images.split(100)])
        errors[rows.start] = float((ours - images).square().sum())
        return to_uint8(ours).numpy()

    key = f"{digest[:24]}-{originals.key[:24]}-psnr"
    facts = {"autoencoder_sha256": digest, "count": originals.count}
    scores = evaluate(Measured(originals.count, originals.shape, read, key, facts), Reference(originals), network)
    for start in range(0, originals.count, CHUNK):  # those whose features were in the cache have not been read
        if start not in errors:
            read(range(start, min(start + CHUNK, originals.count)))
    values = originals.count * int(np.prod(originals.shape))
    return {**scores, "psnr": psnr(sum(errors.values()) / values)}


if __name__ == "__main__":
    sys.exit(exit_code(run))
