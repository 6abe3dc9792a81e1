from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lddgan.metrics.features import FeatureNetwork
from lddgan.metrics.measured import from_path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import cifar10 as benchmark  # noqa: E402  # pyright: ignore[reportMissingImports]


class Means(nn.Module):
    """Two features that can be computed by hand, the mean of red and of green; the class is the brighter one."""

    title, dim, resolution, antialias = "means", 2, 32, True

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = images[:, :2].mean(dim=(2, 3)) * 255
        return features, features


def flat_images(levels: np.ndarray) -> np.ndarray:
    """One flat image for each row of RGB levels."""
    return np.broadcast_to(levels.astype(np.uint8)[:, None, None, :], (len(levels), 32, 32, 3)).copy()


@pytest.fixture
def network(monkeypatch, tmp_path) -> FeatureNetwork:
    monkeypatch.setenv("LDDGAN_CACHE", str(tmp_path / "cache"))
    network = FeatureNetwork("resnet56", Means(), "0123456789abcdef0123")  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(benchmark, "load_features", lambda *_: network)
    return network


def test_pixel_gaussian_has_the_moments_of_the_images():
    rng = np.random.default_rng(0)
    mixing = np.array([[20.0, 10.0, 0.0], [0.0, 15.0, 5.0], [0.0, 0.0, 10.0]])
    levels = (rng.normal(size=(4000, 2, 3)) @ mixing + [100, 120, 140]).round().clip(0, 255).astype(np.uint8)
    images = levels.reshape(4000, 2, 1, 3)
    drawn = benchmark.pixel_gaussian(images, 20000, seed=0)
    assert drawn.dtype == np.uint8 and drawn.shape == (20000, 2, 1, 3)
    flat, flat_drawn = images.reshape(4000, 6).astype(float), drawn.reshape(20000, 6).astype(float)
    np.testing.assert_allclose(flat_drawn.mean(axis=0), flat.mean(axis=0), atol=0.6)
    np.testing.assert_allclose(np.cov(flat_drawn.T), np.cov(flat.T), atol=15)  # variances are 325 to 425
    np.testing.assert_array_equal(drawn, benchmark.pixel_gaussian(images, 20000, seed=0))


def test_the_program_measures_a_shift_of_the_levels(network, monkeypatch, tmp_path, capsys):
    levels = np.random.default_rng(0).integers(50, 150, (120, 3))
    for split, images in (("train", flat_images(levels[:60])), ("test", flat_images(levels[60:61]))):
        (tmp_path / "set" / split).mkdir(parents=True)
        for index, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / "set" / split / f"{index:02d}.png")
    np.savez(tmp_path / "shifted.npz", images=flat_images(levels[:60] + [30, 40, 0]))
    # A Gaussian of 3,072 pixels takes more images, and a model of CIFAR-10 more time, than a test should spend.
    monkeypatch.setattr(benchmark, "pixel_gaussian", lambda images, n, seed: flat_images(levels[:n] + [0, 10, 0]))
    monkeypatch.setattr(benchmark, "from_model", lambda *_: from_path(str(tmp_path / "shifted.npz"), "all"))
    monkeypatch.setattr(benchmark.Pipeline, "from_pretrained", lambda *_: None)
    arguments = ["model", "--data", str(tmp_path / "set"), "--features-weights", "unused", "--device", "cpu"]
    assert benchmark.run([*arguments, "--n", "60"]) == 0
    result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert result["frechet_distance"] == pytest.approx(30**2 + 40**2, rel=1e-4)
    assert result["fd_pixel_gaussian"] == pytest.approx(10**2, rel=1e-4)
    assert result["ratio"] == pytest.approx(25, rel=1e-3)
    assert result["n_reference"] == result["n_samples"] == 60
    assert result["precision"] < 1 and result["recall"] < 1
