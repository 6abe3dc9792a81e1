from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from tiny import STEPS, tiny_config

from lddgan.autoencoder.objective import psnr
from lddgan.autoencoder.train import reconstruct, train_autoencoder
from lddgan.data.latents import to_unit_range
from lddgan.data.prepare import ImageSet
from lddgan.errors import RunStopped
from lddgan.models import build_space
from lddgan.runtime.progress import Progress

CPU = torch.device("cpu")


def image_set(count: int = 39) -> ImageSet:
    small = np.random.default_rng(0).integers(0, 256, (count, 2, 2, 1), dtype=np.uint8)
    return ImageSet(small.repeat(4, 1).repeat(4, 2), None, [], [str(i) for i in range(count)], "the images", [])


def train(folder, **stage1):
    config = tiny_config()
    config = dataclasses.replace(config, stage1=dataclasses.replace(config.stage1, **stage1))
    net = build_space(config).autoencoder
    train_autoencoder(config, net, image_set(), image_set(7), folder, CPU)
    return net, torch.load(folder / "checkpoints" / "stage1.pt", weights_only=True)


def test_it_learns_and_the_discriminator_starts_late(tmp_path, monkeypatch):
    monkeypatch.setattr(Progress, "EVERY", 1)
    fresh = build_space(tiny_config()).autoencoder
    images = image_set(7).batch(torch.arange(7))
    before = psnr(reconstruct(fresh, images, CPU), to_unit_range(images))
    net, state = train(tmp_path, learning_rate=1e-2)
    assert psnr(reconstruct(net, images, CPU), to_unit_range(images)) > before + 3
    assert state["step"] == STEPS and state["identity"]["the data"] == "the images"
    lines = (tmp_path / "curves" / "stage1.jsonl").read_text().splitlines()
    assert sum("loss/reconstruction" in line for line in lines) == STEPS
    assert sum("loss/discriminator" in line for line in lines) == STEPS - 10
    assert sum("psnr/held_out" in line for line in lines) == 2  # at steps 20 and 39
    rate = 1e-2 * (0.01 + 0.99 * (1 + math.cos(math.pi * (STEPS - 1) / STEPS)) / 2)
    for name in ("optimizer", "optimizer_d"):
        assert state["parts"][name]["param_groups"][0]["lr"] == pytest.approx(rate)
    assert (tmp_path / "reconstructions.png").read_bytes()[:4] == b"\x89PNG"


def test_before_its_start_the_discriminator_stays_as_it_was_made(tmp_path):
    _, one = train(tmp_path / "one", epochs=1, discriminator_start=1000)
    _, two = train(tmp_path / "two", epochs=2, discriminator_start=1000)
    for name, value in one["parts"]["discriminator"].items():
        assert torch.equal(value, two["parts"]["discriminator"][name]), name
    assert one["parts"]["optimizer_d"]["state"] == {}


def test_a_loss_that_is_not_finite_stops_at_its_step_and_the_checkpoint_is_of_the_step_before(tmp_path, monkeypatch):
    import lddgan.autoencoder.train as module

    original, calls = module.reconstruction_loss, []

    def poisoned(reconstructions, images):
        calls.append(1)
        return original(reconstructions, images) * (float("nan") if len(calls) == 6 else 1)

    monkeypatch.setattr(module, "reconstruction_loss", poisoned)
    with pytest.raises(RunStopped, match=r"step 5: loss = nan.* is not finite.*stage1\.pt' holds"):
        train(tmp_path)
    state = torch.load(tmp_path / "checkpoints" / "stage1.pt", weights_only=True)
    assert state["step"] == 5
    assert all(bool(value.isfinite().all()) for value in state["parts"]["autoencoder"].values())
