from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lddgan.errors import UserError
from lddgan.metrics.evaluate import Reference, evaluate, inception_score, kernel_distance
from lddgan.metrics.features import FeatureNetwork
from lddgan.metrics.measured import Measured, Rows


class Means(nn.Module):
    """The mean of each channel as features, scaled as logits."""

    title, dim, resolution, antialias = "means", 3, 8, True

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        means = images.mean(dim=(2, 3)) * 255
        return means, means / 10


@pytest.fixture
def network(monkeypatch, tmp_path) -> FeatureNetwork:
    monkeypatch.setenv("LDDGAN_CACHE", str(tmp_path))
    return FeatureNetwork("means", Means(), "0123456789abcdef0123")  # pyright: ignore[reportArgumentType]


def flat(levels: np.ndarray, labels: np.ndarray | None = None, **facts) -> Measured:
    """Flat images of the RGB `levels [N, 3]`, so that features can be told by hand."""
    images = np.broadcast_to(levels.astype(np.uint8)[:, None, None, :], (len(levels), 8, 8, 3)).copy()
    return Measured(
        len(images), (8, 8, 3), lambda rows: images[rows.start : rows.stop], f"{levels.sum()}-{levels.std():.6f}",
        {"path": "flat", "count": len(images), **facts}, labels, ("dark", "bright"),
    )  # fmt: skip


def levels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(50, 150, (count, 3))


def rows(tmp_path, values: torch.Tensor) -> Rows:
    (tmp_path / "rows").write_bytes(values.float().numpy().tobytes())
    return Rows(tmp_path / "rows", len(values), values.shape[1], 0, values.shape[1])


def test_identical_sets_and_a_shift(network):
    real = levels(80)
    same = evaluate(flat(real), Reference(flat(real)), network)
    assert same["score"] == "FD[means]" and same["frechet_distance"] < 1e-6
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)
    shifted = evaluate(flat(real + [30, 40, 0]), Reference(flat(real)), network)
    assert shifted["frechet_distance"] == pytest.approx(2500, rel=1e-4)
    assert shifted["kernel_distance"] > same["kernel_distance"]
    assert shifted["n_samples"] == shifted["n_reference"] == 80
    for key in ("weights_sha256", "preprocessing", "protocol", "versions", "hardware", "reference"):
        assert shifted[key]
    assert shifted["seconds"] >= 0


def test_a_collapsed_generator_has_precision_and_no_recall(network):
    real = levels(200)
    scores = evaluate(flat(np.repeat(real[:1], 200, 0)), Reference(flat(real)), network)
    assert scores["precision"] == 1 and scores["recall"] <= 0.02


def test_coverage_is_told_for_each_class(network):
    dark, bright = levels(60), levels(60, seed=1) + 100
    labels = np.repeat([0, 1], 60)
    real = flat(np.concatenate([dark, bright]), labels)
    scores = evaluate(flat(dark), Reference(real), network)
    assert scores["coverage_per_class"]["dark"] == 1
    assert scores["coverage_per_class"]["bright"] < 0.3
    assert scores["coverage"] == pytest.approx(sum(scores["coverage_per_class"].values()) / 2)


def test_exported_statistics_give_the_same_distance_and_nothing_else(network, tmp_path):
    real, fake = levels(80), levels(80, seed=1) + 20
    whole = evaluate(flat(fake), Reference(flat(real)), network, export=tmp_path / "real.npz")
    alone = evaluate(flat(fake), Reference(statistics=tmp_path / "real.npz"), network)
    assert alone["frechet_distance"] == pytest.approx(whole["frechet_distance"], rel=1e-9)
    assert alone["n_reference"] == 80
    assert alone["precision"] is None and alone["kernel_distance"] is None


def test_sets_that_do_not_match_and_too_small_ones_are_refused(network):
    real = flat(levels(80))
    large = Measured(80, (16, 16, 3), real.read, "large", {})
    grey = Measured(80, (8, 8, 1), real.read, "grey", {})
    with pytest.raises(UserError, match="16x16 and the data 8x8 px: give --resolution"):
        evaluate(large, Reference(real), network)
    with pytest.raises(UserError, match="1 channels and the data 3"):
        evaluate(grey, Reference(real), network)
    with pytest.raises(UserError, match="3 samples are too few for a Gaussian of 3"):
        evaluate(flat(levels(3)), Reference(real), network)


def test_features_of_a_model_do_not_stay(network, tmp_path):
    evaluate(flat(levels(80, seed=2), model="m"), Reference(flat(levels(80))), network)
    assert len(list((tmp_path / "features").iterdir())) == 1


def test_kernel_distance_is_the_unbiased_mmd(tmp_path):
    """Of sets no larger than a subset every draw is the whole set: the estimate by its definition."""
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 5, generator=random), torch.randn(40, 5, generator=random) + 0.5
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    value, deviation = kernel_distance(rows(tmp_path / "a", x), rows(tmp_path / "b", y))

    def kernel(a, b):
        return (a.double() @ b.double().T / 5 + 1) ** 3

    off = 1 - torch.eye(40).double()
    expected = ((kernel(x, x) * off).sum() + (kernel(y, y) * off).sum()) / (40 * 39) - 2 * kernel(x, y).mean()
    assert value == pytest.approx(expected.item(), rel=1e-5) and deviation < 1e-6


def test_inception_score_at_its_ends(tmp_path):
    sure = 100 * torch.nn.functional.one_hot(torch.arange(1000) % 10).float()
    value, deviation = inception_score(rows(tmp_path, sure))
    assert 9.5 < value <= 10 + 1e-9 and deviation < 0.5  # ten classes, each sure; a split holds them almost equally
    same, _ = inception_score(rows(tmp_path, torch.ones(1000, 10)))
    assert same == pytest.approx(1)
