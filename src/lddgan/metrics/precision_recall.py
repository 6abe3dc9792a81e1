"""Improved precision and recall (Kynkaanniemi et al. 2019, Eq. 1 and 2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lddgan.errors import UserError


class PrecisionRecall(NamedTuple):
    precision: float
    recall: float


def precision_recall(real: Tensor, fake: Tensor, k: int = 3, chunk: int = 1024) -> PrecisionRecall:
    """Precision, the share of `fake` inside the manifold of `real`, and recall, the reverse; both in [0, 1].

    `real [N, d]` and `fake [M, d]` are features. The manifold of a set is the union of balls around its points, each
    reaching to the point's k-th nearest neighbour in the set, itself left out. Never more than `chunk x chunk`
    distances are held. They are computed in float64: there the expansion `|a|^2 + |b|^2 - 2ab` of centred features
    keeps every distance that float32 features can tell from zero.

    Raises:
        UserError: a set has at most k samples, or holds NaN or infinite values.
    """
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(f"expected features [N, d] and [M, d], got {list(real.shape)} and {list(fake.shape)}")
    for name, features in (("real", real), ("generated", fake)):
        if len(features) <= k:
            raise UserError(f"{len(features)} {name} samples are too few for k = {k}: give at least {k + 1}")
        if not torch.isfinite(features).all():
            raise UserError(f"the {name} features hold NaN or infinite values: check the images and the network")
    centre = torch.cat([real, fake]).mean(dim=0, dtype=torch.float64)
    real, fake = real.double() - centre, fake.double() - centre
    return PrecisionRecall(
        precision=_covered_share(real, _squared_radii(real, k, chunk), fake, chunk),
        recall=_covered_share(fake, _squared_radii(fake, k, chunk), real, chunk),
    )


def nearest_distances(queries: Tensor, points: Tensor, k: int = 1, chunk: int = 1024) -> Tensor:
    """Euclidean distances, float64 `[N]`, from `queries [N, d]` to their k-th nearest among `points [M, d]`.

    When both are the same tensor object, a point is not its own neighbour.
    """
    centre = points.mean(dim=0, dtype=torch.float64)
    centred = points.double() - centre
    if queries is points:
        return _squared_radii(centred, k, chunk).sqrt()
    return _kth_nearest(queries.double() - centre, centred, k, chunk, same=False).sqrt()


def _squared_radii(points: Tensor, k: int, chunk: int) -> Tensor:
    return _kth_nearest(points, points, k, chunk, same=True)


def _kth_nearest(queries: Tensor, points: Tensor, k: int, chunk: int, same: bool) -> Tensor:
    """Squared distance `[N]` from each query to its k-th nearest point; with `same`, not counting itself."""
    radii = []
    for row, some in enumerate(queries.split(chunk)):
        nearest = some.new_full((len(some), k), torch.inf)
        for column, others in enumerate(points.split(chunk)):
            distances = _squared_distances(some, others)
            if same and row == column:
                distances.fill_diagonal_(torch.inf)
            closest = distances.topk(min(k, len(others)), dim=1, largest=False, sorted=False).values
            nearest = torch.cat([nearest, closest], dim=1).topk(k, dim=1, largest=False).values
        radii.append(nearest[:, -1])
    return torch.cat(radii)


def _covered_share(centres: Tensor, squared_radii: Tensor, queries: Tensor, chunk: int) -> float:
    """Share of `queries` that lie in the ball of at least one of `centres`."""
    covered = 0
    for some in queries.split(chunk):
        inside = torch.zeros(len(some), dtype=torch.bool, device=some.device)
        for others, radii in zip(centres.split(chunk), squared_radii.split(chunk), strict=True):
            inside |= (_squared_distances(some, others) <= radii).any(dim=1)
        covered += int(inside.sum())
    return covered / len(queries)


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """`[A, B]` from `[A, d]` and `[B, d]`. What is not above float64 rounding is exactly 0: duplicates stay so."""
    norms = a.square().sum(dim=1, keepdim=True) + b.square().sum(dim=1)
    distances = torch.addmm(norms, a, b.T, alpha=-2)
    return torch.where(distances > 1e-14 * norms, distances, 0.0)
