from __future__ import annotations

import pytest
import torch

from lddgan.errors import UserError
from lddgan.metrics.precision_recall import nearest_distances, precision_recall


def gaussian(count: int, dim: int, seed: int) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def direct(real: torch.Tensor, fake: torch.Tensor, k: int) -> tuple[float, float]:
    def share(points: torch.Tensor, queries: torch.Tensor) -> float:
        radii = [
            sorted((p - q).norm().item() for j, q in enumerate(points) if j != i)[k - 1] for i, p in enumerate(points)
        ]
        inside = [any((q - p).norm() <= r for p, r in zip(points, radii, strict=True)) for q in queries]
        return sum(inside) / len(inside)

    real, fake = real.double(), fake.double()
    return share(real, fake), share(fake, real)


@pytest.mark.parametrize(("k", "chunk"), [(1, 7), (3, 16), (3, 1000), (5, 2)])
def test_equals_the_definition_in_any_chunks(k, chunk):
    real, fake = gaussian(60, 3, seed=0), gaussian(45, 3, seed=1) * 0.7 + 0.8
    expected = direct(real, fake, k)
    assert precision_recall(real, fake, k, chunk) == pytest.approx(expected)
    assert 0.1 < min(expected) < max(expected) < 1


def test_a_small_case_by_hand():
    real = torch.tensor([[0.0], [1.0], [3.0], [10.0]])  # radii for k = 1: 1, 1, 2, 7
    fake = torch.tensor([[2.5], [3.5], [-1.5]])  # radii 1, 1, 4
    assert precision_recall(real, fake, k=1) == (2 / 3, 3 / 4)  # -1.5 is in no ball; 10 is in no ball


def test_identical_sets_are_fully_covered_even_with_duplicates_and_a_far_mean():
    points = gaussian(300, 8, seed=0) + 1000
    points[:20] = points[0]
    assert precision_recall(points, points.clone(), chunk=64) == (1, 1)
    assert precision_recall(points[:20], points[:10]) == (1, 1)  # all radii are zero


def test_collapse_keeps_precision_and_loses_recall():
    real = gaussian(1000, 8, seed=0)
    fake = real[:1] + 1e-3 * gaussian(500, 8, seed=1)
    precision, recall = precision_recall(real, fake)
    assert precision == 1 and recall <= 0.002


def test_far_away_samples_have_neither():
    assert precision_recall(gaussian(50, 4, seed=0), gaussian(50, 4, seed=1) + 100) == (0, 0)


def test_nearest_distances_are_those_of_cdist():
    points, queries = gaussian(70, 5, seed=0), gaussian(40, 5, seed=1)
    pairwise = torch.cdist(points.double(), points.double(), compute_mode="donot_use_mm_for_euclid_dist")
    across = torch.cdist(queries.double(), points.double(), compute_mode="donot_use_mm_for_euclid_dist")
    for k in (1, 3):
        torch.testing.assert_close(nearest_distances(points, points, k, chunk=16), pairwise.sort(dim=1).values[:, k])
        torch.testing.assert_close(nearest_distances(queries, points, k, chunk=16), across.sort(dim=1).values[:, k - 1])


def test_too_few_samples_and_values_that_are_not_finite_are_refused():
    with pytest.raises(UserError, match="3 generated samples are too few for k = 3: give at least 4"):
        precision_recall(gaussian(9, 2, seed=0), gaussian(3, 2, seed=1))
    bad = gaussian(9, 2, seed=0)
    bad[0, 0] = torch.nan
    with pytest.raises(UserError, match="real features hold NaN"):
        precision_recall(bad, gaussian(9, 2, seed=1))
    with pytest.raises(ValueError, match="features"):
        precision_recall(gaussian(9, 2, seed=0), gaussian(9, 3, seed=0))
