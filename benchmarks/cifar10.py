"""How near are samples to CIFAR-10? FD[resnet56], precision and recall against the training images.

    python benchmarks/cifar10.py MODEL --data PATH --features-weights resnet56.safetensors [--n 10000] [--seed 0]

What `lddgan evaluate` prints, and beside it the FD of as many samples of a Gaussian fitted to the pixels: what a model
reaches that knows no more than means and covariances. FD[resnet56] is comparable only with itself on the same copy of
the data and the same n; it is not FID. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from samples import exit_code

from lddgan.cli.evaluate import as_table
from lddgan.data.prepare import prepare
from lddgan.data.sources import cache_folder
from lddgan.metrics.evaluate import Reference, evaluate
from lddgan.metrics.features import FeatureNetwork, load_features
from lddgan.metrics.frechet import GaussianStatistics, frechet_distance, gaussian_statistics
from lddgan.metrics.measured import Measured, features_of, from_model, from_path
from lddgan.pipeline import Pipeline
from lddgan.runtime.device import resolve_device


def pixel_gaussian(images: np.ndarray, n: int, seed: int) -> np.ndarray:
    """`n` samples, uint8 `[n, H, W, C]`, of the Gaussian of the pixels of `images`, clamped and rounded."""
    statistics = GaussianStatistics(images[0].size)
    for start in range(0, len(images), 1000):
        statistics.update(torch.from_numpy(np.array(images[start : start + 1000])).flatten(1))
    # Pixels that hang together exactly leave the covariance singular; this variance is far below that of rounding.
    covariance = statistics.covariance + 1e-3 * torch.eye(statistics.dim, dtype=torch.float64)
    root = torch.linalg.cholesky(covariance).float()
    noise = torch.randn(n, statistics.dim, generator=torch.Generator().manual_seed(seed))
    samples = statistics.mean.float() + noise @ root.T
    return samples.round().clamp(0, 255).byte().numpy().reshape(n, *images.shape[1:])


def gaussian_distance(data: str, reference: Measured, network: FeatureNetwork, n: int) -> float:
    """FD of `n` samples of the pixel Gaussian of the training images of `data`."""
    folder, drawn = cache_folder() / "features", []

    def read(rows: range) -> np.ndarray:
        if not drawn:  # only where the features are not in the cache yet
            drawn.append(pixel_gaussian(prepare(data, split="train", resolution=32, channels=3).images, n, seed=0))
        return drawn[0][rows.start : rows.stop]

    gaussian = Measured(n, reference.shape, read, f"{reference.key}-gaussian", {})
    ours, theirs = (features_of(network, images, folder)[0] for images in (gaussian, reference))
    return frechet_distance(gaussian_statistics(theirs), gaussian_statistics(ours))


def run(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure samples against the CIFAR-10 training images.")
    parser.add_argument("model", help="a model or run folder, or the name of a shipped model")
    parser.add_argument("--data", required=True, help="CIFAR-10: a folder, a zip, or cifar10 to download it")
    parser.add_argument("--features-weights", type=Path, required=True, help="safetensors file of the ResNet-56")
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    args = parser.parse_args(argv)
    network = load_features("resnet56", args.features_weights, resolve_device(args.device))
    samples = from_model(Pipeline.from_pretrained(args.model, args.device), args.model, args.n, args.seed)
    reference = from_path(args.data, "train", resolution=32, channels=3)
    metrics = evaluate(samples, Reference(reference), network)
    baseline = gaussian_distance(args.data, reference, network, args.n)
    ratio = metrics["frechet_distance"] / baseline
    print(as_table(metrics))
    print(f"\nFD[resnet56] of the pixel Gaussian  {baseline:.3f}, of which the model's is {ratio:.3f}")
    print(json.dumps({**metrics, "fd_pixel_gaussian": baseline, "ratio": ratio}))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(run))
