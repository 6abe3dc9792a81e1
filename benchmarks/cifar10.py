"""How near are samples to CIFAR-10? FD[resnet56], precision and recall (k = 3) against the training images.

    python benchmarks/cifar10.py MODEL --data PATH --features-weights resnet56.safetensors [--n 10000] [--seed 0]
    python benchmarks/cifar10.py --samples X.npz --data PATH --features-weights resnet56.safetensors

Beside it stands the FD of as many samples of a Gaussian fitted to the pixels: what a model reaches that knows no more
than means and covariances. The features of the training images and of the Gaussian are kept in the cache folder.
FD[resnet56] is comparable only with itself on the same copy of the data and the same n; it is not FID. The last line is
JSON.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from samples import draw_samples, exit_code, parser, print_result
from torch import Tensor

from lddgan import UserError
from lddgan.data.prepare import ImageSet, prepare
from lddgan.data.sources import cache_folder
from lddgan.metrics.features import FeatureNetwork, extract, load_features
from lddgan.metrics.frechet import GaussianStatistics, frechet_distance, gaussian_statistics
from lddgan.metrics.precision_recall import precision_recall
from lddgan.runtime.device import resolve_device
from lddgan.runtime.files import atomic_write


def batches(images: np.ndarray, size: int = 1000) -> Iterator[np.ndarray]:
    for start in range(0, len(images), size):
        yield np.array(images[start : start + size])


def pixel_gaussian(images: np.ndarray, n: int, seed: int) -> np.ndarray:
    """`n` samples, uint8 `[n, H, W, C]`, of the Gaussian of the pixels of `images`, clamped and rounded."""
    statistics = GaussianStatistics(images[0].size)
    for batch in batches(images):
        statistics.update(torch.from_numpy(batch).flatten(1))
    # Pixels that hang together exactly leave the covariance singular; this variance is far below that of rounding.
    covariance = statistics.covariance + 1e-3 * torch.eye(statistics.dim, dtype=torch.float64)
    root = torch.linalg.cholesky(covariance).float()
    noise = torch.randn(n, statistics.dim, generator=torch.Generator().manual_seed(seed))
    samples = statistics.mean.float() + noise @ root.T
    return samples.round().clamp(0, 255).byte().numpy().reshape(n, *images.shape[1:])


def cached_features(key: str, network: FeatureNetwork, images: Callable[[], np.ndarray]) -> Tensor:
    """Features of `images()`, from the cache folder when they are there under `key` and this network."""
    path = cache_folder() / "features" / f"{key}-{network.name}-{network.weights_hash[:16]}.npy"
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError):  # absent or damaged
        pictures = images()
        features = extract(network, batches(pictures), total=len(pictures))
        with atomic_write(path) as temporary:
            np.save(temporary, features.numpy())
        return features


def gaussian_features(data: ImageSet, network: FeatureNetwork, n: int) -> Tensor:
    return cached_features(f"{data.hash}-gaussian-{n}", network, lambda: pixel_gaussian(data.images, n, seed=0))


def run(argv: Sequence[str] | None = None) -> int:
    options = parser("Measure samples against the CIFAR-10 training images.", n=10_000)
    options.add_argument("--data", required=True, help="CIFAR-10: a folder, a zip, or cifar10 to download it")
    options.add_argument("--features-weights", type=Path, required=True, help="safetensors file of the ResNet-56")
    args = options.parse_args(argv)
    network = load_features("resnet56", args.features_weights, resolve_device(args.device))
    data = prepare(args.data, split="train", resolution=32, channels=3)
    samples, facts = draw_samples(args)
    if samples.shape[1:] != data.images.shape[1:]:
        raise UserError(f"the samples are {list(samples.shape[1:])}: CIFAR-10 needs [32, 32, 3]")
    start = time.monotonic()
    real = cached_features(data.hash, network, lambda: data.images)
    fake = extract(network, batches(samples), total=len(samples))
    statistics = gaussian_statistics(real)
    distance = frechet_distance(statistics, gaussian_statistics(fake))
    baseline = frechet_distance(statistics, gaussian_statistics(gaussian_features(data, network, len(samples))))
    precision, recall = precision_recall(real, fake, k=3)
    facts["seconds"] = round(time.monotonic() - start, 1)

    table = [
        ("FD[resnet56]", f"{distance:.3f}"),
        ("FD[resnet56] of the pixel Gaussian", f"{baseline:.3f}"),
        ("ratio", f"{distance / baseline:.3f}"),
        ("precision", f"{precision:.3f}"),
        ("recall", f"{recall:.3f}"),
    ]
    values = {
        "reference_images": len(real),
        "fd_resnet56": distance,
        "fd_resnet56_pixel_gaussian": baseline,
        "precision": precision,
        "recall": recall,
    }
    print_result(table, facts, values, args.json)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(run))
