"""Quick measures of x_0 while it trains, in no network's features: the layout and the texture of the latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lddgan.data.latents import Latents
from lddgan.metrics.frechet import frechet_distance, gaussian_statistics
from lddgan.metrics.manifold import manifold_scores
from lddgan.metrics.pooled import finest_grid, pooled_features

REFERENCE_IMAGES = 10_000
RECALL_IMAGES = 1000


class LatentScores(NamedTuple):
    """`frechet`: FD[latent]. `recall`: of `RECALL_IMAGES` training latents. `deviation`: how much the samples differ
    from each other, over how much training latents do (both in `pooled_features`); 0 is collapse."""

    frechet: float
    recall: float
    deviation: float


class LatentEvaluation:
    """Scores of samples against the training latents, in `pooled_features`.

    The grid is that of `finest_grid`; `lddgan.metrics.pooled.least_images` are needed.
    """

    def __init__(self, latents: Latents, normalise: Callable[[Tensor], Tensor]) -> None:
        _, count, channels, side, _ = latents.array.shape
        self._cells = finest_grid(channels, side, count)
        indices = torch.linspace(0, count - 1, min(REFERENCE_IMAGES, count)).long().split(1000)
        features = torch.cat([pooled_features(normalise(latents.batch(part)), self._cells) for part in indices])
        self._reference = gaussian_statistics(features)
        self._spread = features.std(0).mean().item()
        self._some = features[:: max(1, len(features) // RECALL_IMAGES)][:RECALL_IMAGES]

    def __call__(self, x_0: Tensor) -> LatentScores:
        features = pooled_features(x_0, self._cells)
        return LatentScores(
            frechet=frechet_distance(self._reference, gaussian_statistics(features)),
            recall=manifold_scores(self._some, features).recall,
            deviation=features.std(0).mean().item() / max(self._spread, 1e-12),
        )
