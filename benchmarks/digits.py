"""Are samples good digits? Measured against the embedded 1,797 real ones, on 8x8 pixels from 0 to 16.

    python benchmarks/digits.py MODEL [--n 1000] [--seed 0] [--json]
    python benchmarks/digits.py --samples X.npz

Larger samples are box-averaged to 8x8. A support-vector classifier (RBF, gamma 0.001, Platt probabilities) learns one
half of the real digits (a fixed shuffle); the other half, measured in the same way against the first, stands beside
each number. It prints:

- confident: share of samples whose top probability is above 0.9;
- rarest digit: share of the samples that the classifier takes for the digit it sees least;
- novelty: median distance of a sample to the nearest real digit over the median nearest-neighbour distance among real
  digits. Copies have 0;
- variety: within a digit, the variance of the samples summed over the pixels, over that of the real ones; of the digit
  that has the least. Averages have 0;
- recall, precision: Kynkaanniemi et al. 2019, k = 3, on the pixels.

The exit code is 1 when a bar is missed and 2 on bad input. The last line is JSON. Needs scikit-learn (extra `dev`).
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from samples import draw_samples, exit_code, parser, print_result
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

from lddgan import UserError
from lddgan.data.digits import load_digits
from lddgan.metrics.manifold import manifold_scores, nearest_distances

BARS = {"confident": 0.60, "rarest digit": 0.04, "novelty": 0.80, "variety": 0.60, "recall": 0.30}


def box_average(images: np.ndarray) -> np.ndarray:
    """Grey uint8 `[N, H, W, 1]` -> float `[N, 64]`, averaged over equal boxes to 8x8, on the scale 0..16.

    Raises:
        UserError: other channels, or a size that is not a multiple of 8x8.
    """
    count, height, width, channels = images.shape
    if channels != 1 or height != width or height % 8:
        raise UserError(
            f"the samples are {height}x{width} with {channels} channels: digits are grey, 8x8 or a multiple"
        )
    box = height // 8
    return images.reshape(count, 8, box, 8, box).mean(axis=(2, 4)).reshape(count, 64) * (16 / 255)


def train_classifier(digits: np.ndarray, labels: np.ndarray) -> SVC:
    with warnings.catch_warnings():
        # The option that fits Platt's sigmoids is deprecated; what replaces it gives other probabilities.
        warnings.simplefilter("ignore", FutureWarning)
        return SVC(gamma=0.001, probability=True, random_state=0).fit(digits, labels)  # pyright: ignore[reportArgumentType]


def measure(samples: np.ndarray, real: np.ndarray, real_labels: np.ndarray, classifier: SVC) -> dict[str, Any]:
    """The numbers of this benchmark for `samples [N, 64]` against `real [M, 64]`, some also for each digit."""
    probabilities = classifier.predict_proba(samples)
    predicted = probabilities.argmax(axis=1)
    shares = np.bincount(predicted, minlength=10) / len(samples)
    varieties = [_variance(samples[predicted == d]) / _variance(real[real_labels == d]) for d in range(10)]
    tensors = torch.from_numpy(samples), torch.from_numpy(real)
    novelty = nearest_distances(*tensors).median() / nearest_distances(tensors[1], tensors[1]).median()
    scores = manifold_scores(tensors[1], tensors[0])
    return {
        "confident": float((probabilities.max(axis=1) > 0.9).mean()),
        "rarest digit": float(shares.min()),
        "novelty": novelty.item(),
        "variety": float(min(varieties)),
        "recall": scores.recall,
        "precision": scores.precision,
        "shares": shares.tolist(),
        "varieties": [float(variety) for variety in varieties],
    }


def _variance(images: np.ndarray) -> float:
    return images.var(axis=0).sum() if len(images) else 0.0


def run(argv: Sequence[str] | None = None) -> int:
    args = parser("Measure samples of digits against the real ones.", n=1000).parse_args(argv)
    samples, facts = draw_samples(args)
    start = time.monotonic()
    pixels, labels = load_digits()
    digits = pixels.reshape(len(pixels), 64).astype(np.float64)
    learned, held_out = train_test_split(np.arange(len(digits)), test_size=0.5, random_state=0)
    classifier = train_classifier(digits[learned], labels[learned])
    values = measure(box_average(samples), digits, labels, classifier)
    reference = measure(digits[held_out], digits[learned], labels[learned], classifier)
    missed = [name for name, bar in BARS.items() if not values[name] >= bar]

    table = [("", "samples", "bar", "", "real, held out")]
    for name in (*BARS, "precision"):
        bar = f">= {BARS[name]:.2f}" if name in BARS else ""
        verdict = "" if name not in BARS else "MISSED" if name in missed else "pass"
        table.append((name, f"{values[name]:.3f}", bar, verdict, f"{reference[name]:.3f}"))
    facts["seconds"] = round(time.monotonic() - start, 1)
    print_result(table, facts, {**values, "held_out": reference, "bars": BARS, "passed": not missed}, args.json)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(exit_code(run))
