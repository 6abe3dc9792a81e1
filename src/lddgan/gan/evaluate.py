"""Quick measures of x_0 while it trains, in no network's features: its layout and its texture."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lddgan.data.latents import TrainingSet
from lddgan.metrics.frechet import frechet_distance, gaussian_statistics
from lddgan.metrics.manifold import manifold_scores
from lddgan.metrics.pooled import finest_grid, pooled_features

REFERENCE_IMAGES = 10_000
RECALL_IMAGES = 1000


class SampleScores(NamedTuple):
    """`frechet`: the distance to the training set, called FD[latent], FD[pixels] or FD[wavelet] by the space. `recall`:
    of `RECALL_IMAGES` of it. `deviation`: how much the samples differ from each other, over how much the training set
    does; 0 is collapse. All in `pooled_features`."""

    frechet: float
    recall: float
    deviation: float


class SampleEvaluation:
    """Scores of samples against the training set, in `pooled_features`.

    The grid is that of `finest_grid`; `lddgan.metrics.pooled.least_images` are needed.
    """

    def __init__(self, data: TrainingSet, normalise: Callable[[Tensor], Tensor]) -> None:
        count, (channels, side, _) = len(data), data.shape
        self._cells = finest_grid(channels, side, count)
        indices = torch.linspace(0, count - 1, min(REFERENCE_IMAGES, count)).long().split(1000)
        features = torch.cat([pooled_features(normalise(data.batch(part)), self._cells) for part in indices])
        self._reference = gaussian_statistics(features)
        self._spread = features.std(0).mean().item()
        self._some = features[:: max(1, len(features) // RECALL_IMAGES)][:RECALL_IMAGES]

    def __call__(self, x_0: Tensor) -> SampleScores:
        features = pooled_features(x_0, self._cells)
        return SampleScores(
            frechet=frechet_distance(self._reference, gaussian_statistics(features)),
            recall=manifold_scores(self._some, features).recall,
            deviation=features.std(0).mean().item() / max(self._spread, 1e-12),
        )
