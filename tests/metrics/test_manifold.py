from __future__ import annotations

import pytest
import torch

from lddgan.errors import UserError
from lddgan.metrics.manifold import manifold_scores, nearest, nearest_distances


def gaussian(count: int, dim: int, seed: int) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def direct(real: torch.Tensor, fake: torch.Tensor, k: int, k_density: int) -> tuple[float, float, float, float]:
    """Precision, recall, density and coverage by their definitions, one pair of points at a time."""

    def balls(points: torch.Tensor, queries: torch.Tensor, k: int) -> list[list[bool]]:
        radii = [
            sorted((p - q).norm().item() for j, q in enumerate(points) if j != i)[k - 1] for i, p in enumerate(points)
        ]
        return [[bool((q - p).norm() <= r) for q in queries] for p, r in zip(points, radii, strict=True)]

    def inside_any(held: list[list[bool]]) -> float:
        columns = list(zip(*held, strict=True))
        return sum(any(column) for column in columns) / len(columns)

    real, fake = real.double(), fake.double()
    held = balls(real, fake, k_density)
    density = sum(map(sum, held)) / (k_density * len(fake))
    coverage = sum(any(row) for row in held) / len(real)
    return inside_any(balls(real, fake, k)), inside_any(balls(fake, real, k)), density, coverage


@pytest.mark.parametrize(("k", "k_density", "chunk"), [(1, 2, 7), (3, 5, 16), (3, 5, 1000), (5, 3, 2)])
def test_equals_the_definition_in_any_chunks(k, k_density, chunk):
    real, fake = gaussian(60, 3, seed=0), gaussian(45, 3, seed=1) * 0.7 + 0.8
    expected = direct(real, fake, k, k_density)
    assert manifold_scores(real, fake, k, k_density, chunk)[:4] == pytest.approx(expected)
    assert 0.1 < min(expected) and max(expected[0], expected[1], expected[3]) < 1


def test_the_covered_points_are_those_with_a_sample_in_their_ball():
    real = torch.tensor([[0.0], [1.0], [3.0], [10.0]])  # radii for k = 1: 1, 1, 2, 7
    covered = manifold_scores(real, torch.tensor([[2.5], [0.5]]), k=1, k_density=1).covered
    assert covered.tolist() == [True, True, True, False]


def test_precision_recall_are_those_of_torch_fidelity():
    from torch_fidelity.metric_prc import prc_features_to_metric

    real, fake = gaussian(300, 6, seed=0), gaussian(250, 6, seed=1) * 0.8 + 0.3
    theirs = prc_features_to_metric(fake, real, prc_neighborhood=3, verbose=False)  # the samples come first
    ours = manifold_scores(real, fake, chunk=100)
    assert ours.precision == pytest.approx(theirs["precision"], abs=1e-3)
    assert ours.recall == pytest.approx(theirs["recall"], abs=1e-3)


def test_a_small_case_by_hand():
    real = torch.tensor([[0.0], [1.0], [3.0], [10.0]])  # radii for k = 1: 1, 1, 2, 7
    fake = torch.tensor([[2.5], [3.5], [-1.5]])  # radii 1, 1, 4
    assert manifold_scores(real, fake, k=1, k_density=1)[:2] == (2 / 3, 3 / 4)  # -1.5 is in no ball; 10 is in no ball


def test_identical_sets_are_fully_covered_even_with_duplicates_and_a_far_mean():
    points = gaussian(300, 8, seed=0) + 1000
    points[:20] = points[0]
    scores = manifold_scores(points, points.clone(), chunk=64)
    assert (scores.precision, scores.recall, scores.coverage) == (1, 1, 1) and scores.density > 0.9
    assert manifold_scores(points[:20], points[:10])[:2] == (1, 1)  # all radii are zero


def test_collapse_keeps_precision_and_loses_recall():
    real = gaussian(1000, 8, seed=0)
    fake = real[:1] + 1e-3 * gaussian(500, 8, seed=1)
    scores = manifold_scores(real, fake)
    assert scores.precision == 1 and scores.recall <= 0.002 and scores.coverage < 0.2


def test_far_away_samples_have_neither():
    assert manifold_scores(gaussian(50, 4, seed=0), gaussian(50, 4, seed=1) + 100)[:4] == (0, 0, 0, 0)


def test_nearest_distances_are_those_of_cdist():
    points, queries = gaussian(70, 5, seed=0), gaussian(40, 5, seed=1)
    pairwise = torch.cdist(points.double(), points.double(), compute_mode="donot_use_mm_for_euclid_dist")
    across = torch.cdist(queries.double(), points.double(), compute_mode="donot_use_mm_for_euclid_dist")
    for k in (1, 3):
        torch.testing.assert_close(nearest_distances(points, points, k, chunk=16), pairwise.sort(dim=1).values[:, k])
        torch.testing.assert_close(nearest_distances(queries, points, k, chunk=16), across.sort(dim=1).values[:, k - 1])


def test_nearest_names_the_neighbours_and_leaves_a_point_itself_out():
    points = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    distances, indices = nearest(torch.tensor([[2.9], [6.0]]), points, k=2, chunk=3)
    torch.testing.assert_close(
        distances, torch.tensor([[0.1, 1.9], [1.0, 3.0]], dtype=torch.float64), atol=1e-6, rtol=0
    )
    assert indices.tolist() == [[2, 1], [3, 2]]
    assert nearest(points, points, chunk=3)[1].flatten().tolist() == [1, 0, 1, 2]


def test_too_few_samples_and_values_that_are_not_finite_are_refused():
    with pytest.raises(UserError, match="5 generated samples are too few for k = 5: give at least 6"):
        manifold_scores(gaussian(9, 2, seed=0), gaussian(5, 2, seed=1))
    bad = gaussian(9, 2, seed=0)
    bad[0, 0] = torch.nan
    with pytest.raises(UserError, match="real features hold NaN"):
        manifold_scores(bad, gaussian(9, 2, seed=1))
    with pytest.raises(ValueError, match="features"):
        manifold_scores(gaussian(9, 2, seed=0), gaussian(9, 3, seed=0))
