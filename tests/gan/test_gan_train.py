from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from tiny import STEPS, tiny_config

from lddgan.data.latents import Latents
from lddgan.gan.evaluate import SampleEvaluation
from lddgan.gan.objective import weighted_learning
from lddgan.gan.train import Reporting, train_gan
from lddgan.metrics.frechet import frechet_distance, gaussian_statistics
from lddgan.metrics.pooled import least_images, pooled_features
from lddgan.models import build_generator
from lddgan.runtime.progress import Progress

CPU = torch.device("cpu")


def latents(count: int = 39, shape=(2, 4, 4), copies: int = 2) -> Latents:
    array = np.random.default_rng(0).standard_normal((copies, count, *shape)).astype(np.float32)
    return Latents(array, torch.zeros(2), torch.ones(2), "the hash")


def train(tmp_path, monkeypatch, **stage2):
    """Train; returns what was reported: rows of every step, (step, x_0) of the grids, names of the kept models."""
    config = tiny_config()
    config = dataclasses.replace(config, stage2=dataclasses.replace(config.stage2, **stage2), checkpoint_seconds=1e6)
    shown, kept, steps = [], [], []
    monkeypatch.setattr(Progress, "EVERY", 1)
    generator = build_generator(config)
    reporting = Reporting(
        lambda x_0, step: shown.append((step, x_0)), lambda net, name: kept.append((name, net)), grid_images=5
    )
    train_gan(config, generator, latents(), lambda raw: raw, tmp_path, CPU, reporting)
    for line in (tmp_path / "curves" / "stage2.jsonl").read_text().splitlines():
        steps.append(json.loads(line))
    return steps, shown, kept


@pytest.mark.parametrize("objective", ["adversarial", "reconstruction", "weighted"])
def test_the_three_objectives_weigh_the_reconstruction(tmp_path, monkeypatch, objective):
    rows, shown, kept = train(tmp_path, monkeypatch, objective=objective, epochs=4, report_every=100)
    weights = [row["lambda"] for row in rows if "lambda" in row]
    assert len(weights) == 4 * 39 // 8
    expected = {
        "adversarial": [0.0] * len(weights),
        "reconstruction": [1.0] * len(weights),
        "weighted": [weighted_learning((step * 8 // 39) / 4, 6.0) for step in range(len(weights))],
    }
    assert weights == pytest.approx(expected[objective])
    assert [step for step, _ in shown] == [19] and shown[0][1].shape == (5, 2, 4, 4)
    assert [name for name, _ in kept] == ["best", "model"]


def test_a_fraction_of_epochs_lets_rates_and_lambda_fall_at_every_step(tmp_path, monkeypatch):
    rows, _, _ = train(tmp_path, monkeypatch, objective="weighted", epochs=1.85, report_every=100)
    weights = [row["lambda"] for row in rows if "lambda" in row]
    assert len(weights) == 9 == int(1.85 * 39) // 8
    assert weights == pytest.approx([weighted_learning(step / 9, 6.0) for step in range(9)])


def test_penalty_is_lazy_and_rates_decay_by_epoch(tmp_path, monkeypatch):
    rows, shown, _ = train(tmp_path, monkeypatch)
    assert [row["step"] - 1 for row in rows if "r1" in row] == list(range(0, STEPS, 4))
    assert [step for step, _ in shown] == [20, 39]
    state = torch.load(tmp_path / "checkpoints" / "stage2.pt", weights_only=True)
    assert state["step"] == STEPS and state["identity"]["the data"] == "the hash"
    epoch = (STEPS - 1) * 8 // 39
    expected = 1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * epoch / 8)) / 2
    for name in ("optimizer_g", "optimizer_d"):
        assert state["parts"][name]["param_groups"][0]["lr"] == pytest.approx(expected)
    scores = [row["FD[latent]"] for row in rows if "FD[latent]" in row]
    assert state["parts"]["best"] == {"value": min(scores), "step": [20, 39][int(np.argmin(scores))]}


def test_pooled_features_are_means_and_deviations_of_cells():
    x_0 = torch.randn(3, 2, 4, 4)
    features = pooled_features(x_0, 2)
    cells = x_0.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)  # [B, C, 2, 2, 4 pixels]
    expected = torch.cat([cells.mean(4), cells.std(4, correction=0)], 1).flatten(1)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("count", "cells"), [(8, 1), (31, 1), (32, 2), (500, 2)])
def test_latent_frechet_against_direct_computation(count, cells):
    data = latents(count)
    evaluation = SampleEvaluation(data, lambda raw: 2 * raw)
    x_0 = torch.randn(50, 2, 4, 4)
    real = gaussian_statistics(pooled_features(2 * torch.from_numpy(data.array[0]), cells))
    expected = frechet_distance(real, gaussian_statistics(pooled_features(x_0, cells)))
    scores = evaluation(x_0)
    assert scores.frechet == pytest.approx(expected)
    ours, theirs = (pooled_features(x, cells).std(0).mean().item() for x in (x_0, 2 * torch.from_numpy(data.array[0])))
    assert scores.deviation == pytest.approx(ours / theirs, rel=1e-5)
    assert evaluation(x_0[:1].repeat(50, 1, 1, 1) + 1e-4 * x_0).deviation < 0.01  # collapse
    assert least_images(2) == 8
