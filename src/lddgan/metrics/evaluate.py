"""Every score of a set of samples against a reference set, with the protocol that makes it comparable.

N reference images, M samples, d features.
"""

from __future__ import annotations

import importlib.metadata
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lddgan.data.sources import cache_folder
from lddgan.errors import UserError
from lddgan.metrics.features import FeatureNetwork
from lddgan.metrics.frechet import frechet_distance, gaussian_statistics
from lddgan.metrics.manifold import ManifoldScores, manifold_scores
from lddgan.metrics.measured import JPEG_QUALITY, Measured, Protocol, Rows, features_of
from lddgan.metrics.statistics_files import load_statistics, save_statistics
from lddgan.runtime.device import describe
from lddgan.runtime.parallel import world

KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000
INCEPTION_SCORE_SPLITS = 10
SHUFFLE_SEED = 2020
PACKAGES = ("lddgan", "torch", "torchvision", "torch-fidelity", "numpy", "pillow")


@dataclass(frozen=True)
class Reference:
    """What samples are compared with: a set of images, or only its statistics from a file."""

    images: Measured | None = None
    statistics: Path | None = None


def evaluate(
    samples: Measured,
    reference: Reference,
    network: FeatureNetwork,
    protocol: Protocol = "png",
    export: Path | None = None,
) -> dict[str, Any]:
    """All scores, and all that must be the same for another number to be comparable.

    Features go through files in the cache folder: memory does not grow with the number of images, and a call that was
    interrupted goes on. Those of the reference stay there for the next time. A file of statistics gives the Frechet
    distance and the Inception score alone; the other scores are then None.

    Args:
        export: where the reference's mean and covariance go, as an `.npz`.

    Returns:
        `frechet_distance`, `kernel_distance` (and `_std`), `inception_score` (and `_std`), `precision`, `recall`,
        `density`, `coverage`, `coverage_per_class`, and the record of the protocol.

        Of several processes the first has them, the others, which have shared the images, nothing.

    Raises:
        UserError: samples and reference of different sizes or channels; too few images; a statistics file of another
            network; values that are not finite.
        RunStopped: interrupted.
    """
    started = time.monotonic()
    _require_same_shape(samples, reference)
    folder = cache_folder() / "features"
    theirs: Rows | None = None
    if reference.images is not None:
        theirs, _ = features_of(network, reference.images, folder)
        reference_statistics, reference_facts = gaussian_statistics(theirs), reference.images.facts
    else:
        assert reference.statistics is not None
        reference_statistics, reference_facts = load_statistics(reference.statistics, network.name, network.dim)
    ours, logits = features_of(network, samples, folder, protocol)
    if not world().first:
        return {}
    distance = frechet_distance(reference_statistics, gaussian_statistics(ours))
    if export is not None:
        save_statistics(export, reference_statistics, network.name, network.weights_hash)

    inception, inception_std = inception_score(logits)
    scores: dict[str, Any] = {
        "score": "FID" if network.name == "inception" else f"FD[{network.name}]",
        "frechet_distance": distance,
        "kernel_distance": None, "kernel_distance_std": None,
        "inception_score": inception, "inception_score_std": inception_std,
        "precision": None, "recall": None, "density": None, "coverage": None, "coverage_per_class": None,
    }  # fmt: skip
    if theirs is not None and reference.images is not None:
        scores["kernel_distance"], scores["kernel_distance_std"] = kernel_distance(theirs, ours)
        manifold = manifold_scores(theirs, ours, device=_float64_device(network.device))
        scores |= {name: getattr(manifold, name) for name in ("precision", "recall", "density", "coverage")}
        scores["coverage_per_class"] = _per_class(manifold, reference.images)
    if samples.facts.get("model"):
        ours.path.unlink()  # they can be drawn again; on disk they would only pile up
    return scores | {
        "features": network.name, "feature_network": network.title, "weights_sha256": network.weights_hash,
        "preprocessing": network.preprocessing, "protocol": protocol,
        "protocol_detail": f"samples as JPEG, quality {JPEG_QUALITY}" if protocol == "jpeg" else "samples as they are",
        "n_samples": samples.count, "n_reference": reference_facts["count"],
        "samples": samples.facts, "reference": reference_facts,
        "k": {"precision_recall": 3, "density_coverage": 5},
        "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in PACKAGES},
        "hardware": describe(network.device), "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip


def kernel_distance(real: Rows, fake: Rows) -> tuple[float, float]:
    """Mean and deviation over random subsets of the unbiased squared MMD with a cubic kernel (Binkowski et al. 2018).

    100 subsets of 1,000, or of the smaller set's size.

    Raises:
        UserError: fewer than two images on a side.
    """
    from torch_fidelity.metric_kid import kernel_mmd  # takes a second to import

    size = min(KID_SUBSET_SIZE, len(real), len(fake))
    if size < 2:
        raise UserError("a kernel distance takes at least 2 images on each side: give more")
    random = np.random.default_rng(SHUFFLE_SEED)
    values = []
    for _ in range(KID_SUBSETS):
        x, y = (
            rows.take(np.sort(random.choice(len(rows), size, replace=False))).double().numpy() for rows in (real, fake)
        )
        values.append(
            kernel_mmd(x, y, kid_kernel="poly", kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None,
                       kid_kernel_poly_coef0=1)
        )  # fmt: skip
    return float(np.mean(values)), float(np.std(values))


def inception_score(logits: Rows) -> tuple[float, float]:
    """`exp(E KL(p(y|x) | p(y)))`, mean and deviation over ten random splits (Salimans et al. 2016)."""
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

    order = np.random.default_rng(SHUFFLE_SEED).permutation(len(logits))
    splits = [part for part in np.array_split(order, INCEPTION_SCORE_SPLITS) if len(part)]
    values = [
        isc_features_to_metric(logits.take(np.sort(part)), splits=1, shuffle=False)[KEY_METRIC_ISC_MEAN]
        for part in splits
    ]
    return float(np.mean(values)), float(np.std(values))


def _require_same_shape(samples: Measured, reference: Reference) -> None:
    if reference.images is None or samples.shape == reference.images.shape:
        return
    (height, width, channels), theirs = samples.shape, reference.images.shape
    if channels != theirs[2]:
        raise UserError(
            f"the samples have {channels} channels and the data {theirs[2]}: give --channels {theirs[2]} to convert "
            "both"
        )
    raise UserError(
        f"the samples are {width}x{height} and the data {theirs[1]}x{theirs[0]} px: give --resolution {height} to "
        "resize both"
    )


def _per_class(manifold: ManifoldScores, images: Measured) -> dict[str, float] | None:
    if images.labels is None:
        return None
    labels = torch.from_numpy(np.asarray(images.labels))
    return {
        name: manifold.covered[labels == index].double().mean().item()
        for index, name in enumerate(images.classes)
        if (labels == index).any()
    }


def _float64_device(device: torch.device) -> torch.device:
    return device if device.type == "cuda" else torch.device("cpu")  # mps has no float64
