"""Frechet distance between two sets of features, each summarised by a Gaussian (Heusel et al. 2017, Eq. 6)."""

from __future__ import annotations

import torch
from torch import Tensor

from lddgan.errors import UserError
from lddgan.metrics.manifold import Rows


class GaussianStatistics:
    """Mean and covariance of features that arrive in batches, in float64.

    The running sums are of deviations from the running mean (Chan et al. 1979), so that a mean far from zero costs no
    precision.
    """

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self._scatter = torch.zeros(dim, dim, dtype=torch.float64)  # sum of outer products of the deviations

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor, count: int | None = None) -> GaussianStatistics:
        """From a mean `[d]` and an unbiased covariance `[d, d]`; an unknown `count` is taken as just enough."""
        statistics = cls(len(mean))
        statistics.count = count or len(mean) + 1
        statistics.mean = mean.double()
        statistics._scatter = covariance.double() * (statistics.count - 1)
        return statistics

    @property
    def dim(self) -> int:
        return self.mean.shape[0]

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance, float64 `[d, d]`.

        Raises:
            UserError: at most d samples were seen, so that the covariance is not of full rank.
        """
        if self.count <= self.dim:
            raise UserError(
                f"{self.count} samples are too few for a Gaussian of {self.dim} features: give at least {self.dim + 1}"
            )
        return self._scatter / (self.count - 1)

    def update(self, features: Tensor) -> None:
        """Take in a batch of features `[B, d]`.

        Raises:
            UserError: a value is NaN or infinite.
        """
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"expected features [B, {self.dim}], got {list(features.shape)}")
        features = features.detach().cpu().double()
        if not torch.isfinite(features).all():
            raise UserError("the features hold NaN or infinite values: check the images and the feature network")
        if len(features):
            mean = features.mean(dim=0)
            centred = features - mean
            self._add(len(features), mean, centred.T @ centred)

    def merge(self, other: GaussianStatistics) -> None:
        """Take in all that `other` has seen."""
        if other.dim != self.dim:
            raise ValueError(f"cannot merge statistics of {other.dim} features into {self.dim}")
        if other.count:
            self._add(other.count, other.mean, other._scatter)

    def _add(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total = self.count + count
        shift = mean - self.mean
        self.mean = self.mean + shift * (count / total)
        self._scatter = self._scatter + scatter + torch.outer(shift, shift) * (self.count * count / total)
        self.count = total


def gaussian_statistics(features: Rows) -> GaussianStatistics:
    """Statistics of one set of features `[N, d]`. Raises UserError as `GaussianStatistics.update` does."""
    statistics = GaussianStatistics(features.shape[1])
    for start in range(0, len(features), 2048):
        statistics.update(features[start : start + 2048])
    return statistics


def frechet_distance(a: GaussianStatistics, b: GaussianStatistics) -> float:
    """`|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))` (Dowson & Landau 1982), at least 0, in squared features.

    The trace of the root of the product is the sum of the singular values of `S_a^(1/2) S_b^(1/2)`: it needs only roots
    of symmetric matrices, cannot turn complex, and does not square the conditioning.

    Raises:
        UserError: too few samples on either side.
    """
    if a.dim != b.dim:
        raise ValueError(f"cannot compare Gaussians of {a.dim} and {b.dim} features")
    covariance_a, covariance_b = a.covariance, b.covariance
    product_trace = torch.linalg.svdvals(_root(covariance_a) @ _root(covariance_b)).sum()
    distance = (a.mean - b.mean).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * product_trace
    return max(distance.item(), 0.0)


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    # Rounding leaves eigenvalues of a nearly singular covariance a little below zero.
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
