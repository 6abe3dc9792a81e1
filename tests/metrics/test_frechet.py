from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lddgan.errors import UserError
from lddgan.metrics.frechet import GaussianStatistics, frechet_distance, gaussian_statistics


def gaussian(count: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_moments(mean: torch.Tensor, covariance: torch.Tensor) -> GaussianStatistics:
    """Statistics of samples whitened and coloured so that their moments are exactly those given."""
    samples = gaussian(200, len(mean))
    samples = samples - samples.mean(dim=0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(samples.T @ samples / 199), samples.T, upper=False).T
    return gaussian_statistics(white @ torch.linalg.cholesky(covariance).T + mean)


def rotation(dim: int) -> torch.Tensor:
    return torch.linalg.qr(gaussian(dim, dim, seed=5)).Q


def test_statistics_equal_numpy_for_any_batches_and_merges():
    features = (gaussian(103, 5) @ gaussian(5, 5, seed=1)).float() + 1000  # a mean that would cancel in float32
    one = gaussian_statistics(features)
    batched, left, right = GaussianStatistics(5), GaussianStatistics(5), GaussianStatistics(5)
    for batch in features.split([1, 0, 40, 62]):
        batched.update(batch)
    left.update(features[:30])
    right.update(features[30:])
    left.merge(right)
    left.merge(GaussianStatistics(5))
    for statistics in (one, batched, left):
        assert statistics.count == 103 and statistics.covariance.dtype == torch.float64
        np.testing.assert_allclose(statistics.mean, features.double().mean(dim=0), rtol=1e-14)
        np.testing.assert_allclose(statistics.covariance, np.cov(features.double().numpy().T), rtol=1e-9)


def test_distance_of_translated_and_scaled_sets_is_the_closed_form():
    features = gaussian(300, 4) @ gaussian(4, 4, seed=1)
    a, shift = gaussian_statistics(features), torch.tensor([3.0, 0.0, -4.0, 1.0])
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(a, gaussian_statistics(features + shift)) == pytest.approx(26.0, rel=1e-12)
    # s x has covariance s^2 S: tr(S) (1 - s)^2 + |mu|^2 (1 - s)^2.
    expected = (a.covariance.trace() + a.mean.square().sum()).item() * 4
    assert frechet_distance(a, gaussian_statistics(3 * features)) == pytest.approx(expected, rel=1e-12)


def test_distance_of_commuting_covariances_is_that_of_their_roots():
    q = rotation(6)
    first, second = torch.tensor([1.0, 4.0, 9.0, 0.25, 2.0, 3.0]), torch.tensor([2.0, 1.0, 0.01, 5.0, 2.0, 7.0])
    a = with_moments(torch.zeros(6).double(), q * first.double() @ q.T)
    b = with_moments(torch.ones(6).double(), q * second.double() @ q.T)
    expected = 6 + (first.double().sqrt() - second.double().sqrt()).square().sum().item()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-10)


def test_distance_of_general_2x2_covariances_is_the_closed_form():
    # For 2x2: tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)).
    s, t = torch.tensor([[2.0, 1.2], [1.2, 1.0]]).double(), torch.tensor([[0.5, -0.3], [-0.3, 3.0]]).double()
    product_root = math.sqrt((s @ t).trace().item() + 2 * math.sqrt((torch.det(s) * torch.det(t)).item()))
    expected = (s.trace() + t.trace()).item() - 2 * product_root
    zero = torch.zeros(2).double()
    assert frechet_distance(with_moments(zero, s), with_moments(zero, t)) == pytest.approx(expected, rel=1e-10)


def test_dead_and_duplicate_features_do_not_break_it():
    features = gaussian(500, 3)
    wide = torch.cat([features, features, torch.zeros(500, 2)], dim=1)  # rank 3 of 8
    a = gaussian_statistics(wide)
    assert frechet_distance(a, gaussian_statistics(wide + 1)) == pytest.approx(8.0, rel=1e-9)
    assert 0 <= frechet_distance(a, a) < 1e-9


def test_too_few_samples_and_values_that_are_not_finite_are_refused():
    few = gaussian_statistics(gaussian(8, 8))
    with pytest.raises(UserError, match="8 samples are too few for a Gaussian of 8 features: give at least 9"):
        frechet_distance(few, gaussian_statistics(gaussian(9, 8)))
    for bad in (math.nan, math.inf):
        features = gaussian(9, 8)
        features[3, 3] = bad
        with pytest.raises(UserError, match="NaN or infinite"):
            gaussian_statistics(features)
    with pytest.raises(ValueError, match="7"):
        GaussianStatistics(8).update(gaussian(9, 7))
