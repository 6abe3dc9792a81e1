"""Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020), in chunks.

The manifold of a set is the union of balls around its points, each reaching to the point's k-th nearest neighbour in
the set, itself left out. N real and M generated images, d features.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from lddgan.errors import UserError


class Rows(Protocol):
    """Features `[N, d]`: a tensor, or a file of them that is read slice by slice."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Tensor: ...


class ManifoldScores(NamedTuple):
    """`covered`, bool `[N]`: whether a real point's ball holds a generated one; coverage is its mean."""

    precision: float
    recall: float
    density: float
    coverage: float
    covered: Tensor


def manifold_scores(
    real: Rows,
    fake: Rows,
    k: int = 3,
    k_density: int = 5,
    chunk: int = 1024,
    device: str | torch.device = "cpu",
) -> ManifoldScores:
    """All four scores of features `real [N, d]` and `fake [M, d]`; the papers take `k` = 3 for the first two, 5 after.

    Precision is the share of `fake` inside the manifold of `real`, recall the reverse; density counts how many real
    balls hold a generated point, over `k_density`, and can exceed 1. At most `chunk x chunk` distances are held, and
    computed in float64: there the expansion `|a|^2 + |b|^2 - 2ab` of centred features keeps every distance that float32
    features can tell from zero.

    Raises:
        UserError: a set has too few samples, or holds NaN or infinite values.
    """
    _check(real, fake, max(k, k_density))
    centre = _mean(real, chunk)
    device = torch.device(device)
    near_real = _nearest_within(real, centre, max(k, k_density), chunk, device)
    radii, radii_density = near_real[:, k - 1], near_real[:, k_density - 1]
    radii_fake = _nearest_within(fake, centre, k, chunk, device)[:, -1]

    precise, recalled = torch.zeros(len(fake), dtype=torch.bool), torch.zeros(len(real), dtype=torch.bool)
    covered, held = torch.zeros(len(real), dtype=torch.bool), 0
    for i, some in _chunks(real, centre, chunk, device, "precision, recall, density, coverage"):
        for j, others in _chunks(fake, centre, chunk, device):
            distances = _squared_distances(some, others)
            precise[j] |= (distances <= radii[i, None].to(device)).any(0).cpu()
            recalled[i] |= (distances <= radii_fake[j].to(device)).any(1).cpu()
            inside = distances <= radii_density[i, None].to(device)
            covered[i] |= inside.any(1).cpu()
            held += int(inside.sum())
    return ManifoldScores(
        precision=precise.double().mean().item(),
        recall=recalled.double().mean().item(),
        density=held / (k_density * len(fake)),
        coverage=covered.double().mean().item(),
        covered=covered,
    )


def nearest_distances(queries: Tensor, points: Tensor, k: int = 1, chunk: int = 1024) -> Tensor:
    """Euclidean distances, float64 `[N]`, from `queries [N, d]` to their k-th nearest among `points [M, d]`.

    When both are the same tensor object, a point is not its own neighbour.
    """
    return nearest(queries, points, k, chunk)[0][:, -1]


def nearest(queries: Rows, points: Rows, k: int = 1, chunk: int = 1024) -> tuple[Tensor, Tensor]:
    """Euclidean distances, float64 `[N, k]`, and indices, int64 `[N, k]`, of the k nearest `points`, nearest first.

    When both are the same object, a point is not its own neighbour.
    """
    centre, device = _mean(points, chunk), torch.device("cpu")
    rows = [
        _k_nearest(some, points, centre, k, chunk, device, itself=i.start if queries is points else None)
        for i, some in _chunks(queries, centre, chunk, device)
    ]
    return torch.cat([d for d, _ in rows]).sqrt(), torch.cat([n for _, n in rows])


def _nearest_within(points: Rows, centre: Tensor, k: int, chunk: int, device: torch.device) -> Tensor:
    """Squared distances, float64 `[N, k]` on the CPU, from each point to its k nearest others."""
    rows = (
        _k_nearest(some, points, centre, k, chunk, device, itself=i.start)[0].cpu()
        for i, some in _chunks(points, centre, chunk, device, "nearest neighbours")
    )
    return torch.cat(list(rows))


def _k_nearest(
    queries: Tensor, points: Rows, centre: Tensor, k: int, chunk: int, device: torch.device, itself: int | None
) -> tuple[Tensor, Tensor]:
    """Squared distances and indices `[Q, k]`; `itself`: the place of the first query among the points, if it is one."""
    best = queries.new_full((len(queries), k), torch.inf)
    where = torch.zeros(len(queries), k, dtype=torch.long, device=device)
    for j, others in _chunks(points, centre, chunk, device):
        distances = _squared_distances(queries, others)
        if itself == j.start:
            distances.fill_diagonal_(torch.inf)
        closest, places = distances.topk(min(k, len(others)), dim=1, largest=False)
        best, order = torch.cat([best, closest], 1).topk(k, dim=1, largest=False)
        where = torch.cat([where, places + j.start], 1).gather(1, order)
    return best, where


def _chunks(
    rows: Rows, centre: Tensor, chunk: int, device: torch.device, label: str | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Centred float64 pieces with their places; with a `label`, under a progress bar if it takes long."""
    starts = range(0, len(rows), chunk)
    for start in tqdm(starts, desc=label, delay=2, leave=False, dynamic_ncols=True, disable=label is None):
        piece = slice(start, min(start + chunk, len(rows)))
        yield piece, rows[piece].to(device).double() - centre.to(device)


def _mean(rows: Rows, chunk: int) -> Tensor:
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    for start in range(0, len(rows), chunk):
        total += rows[start : start + chunk].double().sum(0).cpu()
    return total / len(rows)


def _check(real: Rows, fake: Rows, k: int) -> None:
    if len(real.shape) != 2 or len(fake.shape) != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(f"expected features [N, d] and [M, d], got {list(real.shape)} and {list(fake.shape)}")
    for name, features in (("real", real), ("generated", fake)):
        if len(features) <= k:
            raise UserError(f"{len(features)} {name} samples are too few for k = {k}: give at least {k + 1}")
        for start in range(0, len(features), 8192):
            if not torch.isfinite(features[start : start + 8192]).all():
                raise UserError(f"the {name} features hold NaN or infinite values: check the images and the network")


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """`[A, B]` from `[A, d]` and `[B, d]`. What is not above float64 rounding is exactly 0: duplicates stay so."""
    norms = a.square().sum(dim=1, keepdim=True) + b.square().sum(dim=1)
    distances = torch.addmm(norms, a, b.T, alpha=-2)
    return torch.where(distances > 1e-14 * norms, distances, 0.0)
