from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import STEPS, assert_same_bits, tiny_config

from lddgan.autoencoder.measure import HeldOut
from lddgan.autoencoder.tasks import train_autoencoder, train_slim_decoder
from lddgan.data.latents import cached_latents, to_unit_range
from lddgan.data.prepare import ImageSet
from lddgan.errors import RunStopped
from lddgan.models import build_space
from lddgan.runtime.progress import Progress, Timer

CPU = torch.device("cpu")


def image_set(count: int = 39) -> ImageSet:
    small = np.random.default_rng(0).integers(0, 256, (count, 2, 2, 1), dtype=np.uint8)
    return ImageSet(small.repeat(4, 1).repeat(4, 2), None, [], [str(i) for i in range(count)], "the images", [])


def config_of(autoencoder: dict | None = None, **stage1):
    config = tiny_config()
    return dataclasses.replace(
        config,
        autoencoder=dataclasses.replace(config.autoencoder, **(autoencoder or {})),
        stage1=dataclasses.replace(config.stage1, **stage1),
    )


def train(folder, autoencoder: dict | None = None, **stage1):
    config = config_of(autoencoder, **stage1)
    net = build_space(config).autoencoder
    train_autoencoder(config, net, image_set(), image_set(7), folder, CPU)
    return net, torch.load(folder / "checkpoints" / "stage1.pt", weights_only=True)


def rows(folder, stage: str = "stage1") -> list[dict]:
    return [json.loads(line) for line in (folder / "curves" / f"{stage}.jsonl").read_text().splitlines()]


def psnr(net) -> float:
    return HeldOut(image_set(7), lambda network, x: network(x), "").measure(net, None, CPU).psnr


def test_it_learns_and_the_discriminator_starts_late(tmp_path, monkeypatch):
    monkeypatch.setattr(Progress, "EVERY", 1)
    before = psnr(build_space(tiny_config()).autoencoder)
    net, state = train(tmp_path, learning_rate=1e-2, discriminator_ramp=4)
    assert psnr(net) > before + 3
    assert state["step"] == STEPS and state["identity"]["the data"] == "the images"
    curves = rows(tmp_path)
    assert sum("loss/reconstruction" in row for row in curves) == STEPS
    assert sum("loss/discriminator" in row for row in curves) == STEPS - 10
    assert [row["step"] for row in curves if "held_out/psnr" in row] == [20, 39]
    accuracies = [row["discriminator/accuracy"] for row in curves if "discriminator/accuracy" in row]
    assert np.mean(accuracies[-5:]) > 0.6  # it tells images from reconstructions
    rate = 1e-2 * (0.01 + 0.99 * (1 + math.cos(math.pi * (STEPS - 1) / STEPS)) / 2)
    for name in ("optimizer", "optimizer_d"):
        assert state["parts"][name]["param_groups"][0]["lr"] == pytest.approx(rate)
    assert (tmp_path / "reconstructions.png").read_bytes()[:4] == b"\x89PNG"


def test_both_optimisers_move_every_weight(tmp_path):
    net, state = train(tmp_path)
    fresh = build_space(tiny_config()).autoencoder.state_dict()
    assert [name for name, value in net.state_dict().items() if torch.equal(value, fresh[name])] == []
    _, unheard = train(tmp_path / "unheard", discriminator_start=1000)
    started, still = (part["parts"]["discriminator"] for part in (state, unheard))
    # All but the last bias: while no patch is beyond the margin, the two halves of the hinge cancel there.
    assert [name for name, value in started.items() if torch.equal(value, still[name])] in ([], ["5.bias"])


def test_before_its_start_the_discriminator_stays_as_it_was_made(tmp_path):
    _, one = train(tmp_path / "one", epochs=1, discriminator_start=1000)
    _, two = train(tmp_path / "two", epochs=2, discriminator_start=1000)
    for name, value in one["parts"]["discriminator"].items():
        assert torch.equal(value, two["parts"]["discriminator"][name]), name
    assert one["parts"]["optimizer_d"]["state"] == {}


def test_the_averaged_weights_that_did_best_on_held_out_images_are_kept(tmp_path, monkeypatch):
    measured = iter([3.0, 1.0, 2.0])

    def measure(self, network, *rest):
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        fidelity = original(self, network, *rest)
        return fidelity._replace(frechet=next(measured))

    seen, original = [], HeldOut.measure
    monkeypatch.setattr(HeldOut, "measure", measure)
    net, state = train(tmp_path, report_every=15)
    assert_same_bits(dict(net.state_dict()), seen[1])
    assert_same_bits(load_file(tmp_path / "checkpoints" / "stage1_best.safetensors"), seen[1])
    assert state["parts"]["best"] == {"value": 1.0, "step": 30}
    last = {k.removeprefix("module."): v for k, v in state["parts"]["ema"].items() if k != "n_averaged"}
    assert_same_bits(last, seen[2])  # what is measured is the average
    again = build_space(config_of(report_every=15)).autoencoder
    train_autoencoder(config_of(report_every=15), again, image_set(), image_set(7), tmp_path, CPU)
    assert_same_bits(dict(again.state_dict()), seen[1])  # a finished stage gives it back


def test_a_kl_penalty_pulls_the_latent_towards_the_normal(tmp_path, monkeypatch):
    monkeypatch.setattr(Progress, "EVERY", 1)
    weak, _ = train(tmp_path / "weak", {"kind": "kl"}, kl_weight=1e-9, epochs=8)
    strong, _ = train(tmp_path / "strong", {"kind": "kl"}, kl_weight=3.0, epochs=8)
    images = to_unit_range(image_set(7).batch(range(7)))
    means = [net.encoder(images).square().mean().item() for net in (weak, strong)]
    assert means[1] < 0.5 * means[0]
    assert rows(tmp_path / "strong")[-2]["loss/latent"] < rows(tmp_path / "weak")[-2]["loss/latent"]


def test_a_codebook_is_used_and_its_dead_codes_revive(tmp_path, monkeypatch):
    monkeypatch.setattr(Progress, "EVERY", 1)
    monkeypatch.setattr("lddgan.autoencoder.train.REVIVE_EVERY", 10)
    # So short a memory that codes unused for some steps count as dead.
    monkeypatch.setattr("lddgan.autoencoder.quantiser.CodebookUse.DECAY", 0.3)
    net, state = train(tmp_path, {"kind": "quantised", "codebook_size": 64})
    used = [row["codebook/used"] for row in rows(tmp_path) if "codebook/used" in row]
    perplexity = [row["codebook/perplexity"] for row in rows(tmp_path) if "codebook/perplexity" in row]
    assert used[8] < 0.9 and max(used[9:]) > used[8]
    assert all(1 <= value <= 64.001 for value in perplexity)
    assert state["parts"]["codebook_use"]["counts"].shape == (64,)
    latent = net.encoder(to_unit_range(image_set(7).batch(range(7))))
    assert len(latent.unique()) > 64  # the latent itself stays continuous


def test_a_slim_decoder_learns_from_cached_latents_without_the_encoder(tmp_path, monkeypatch):
    config = config_of()
    space = build_space(config)
    space.requires_grad_(False)
    latents = cached_latents(tmp_path, space, image_set(), True, CPU)
    space.set_statistics(latents.mean, space.channel_scale(latents.std))
    space.slim_decoder.requires_grad_(True)
    before = {name: value.clone() for name, value in space.autoencoder.state_dict().items()}
    encoded = []
    forward = space.autoencoder.encoder.forward
    monkeypatch.setattr(space.autoencoder.encoder, "forward", lambda x: encoded.append(len(x)) or forward(x))
    train_slim_decoder(config, space, latents, image_set(), image_set(7), tmp_path, CPU)
    assert_same_bits(dict(space.autoencoder.state_dict()), before)
    assert encoded == [7] * len(encoded) and len(encoded) == 4  # the held-out images alone: measured, shown, twice
    curves = [row["held_out/psnr"] for row in rows(tmp_path, "decoder") if "held_out/psnr" in row]
    assert len(curves) == 2 and curves[1] > 8
    assert (tmp_path / "reconstructions-slim.png").exists()


def test_a_loss_that_is_not_finite_stops_at_its_step_and_the_checkpoint_is_of_the_step_before(tmp_path, monkeypatch):
    import lddgan.autoencoder.train as module

    original, calls = module.reconstruction_loss, []

    def poisoned(reconstructions, images):
        calls.append(1)
        return original(reconstructions, images) * (float("nan") if len(calls) == 6 else 1)

    monkeypatch.setattr(module, "reconstruction_loss", poisoned)
    monkeypatch.setattr(module, "Timer", lambda seconds: Timer(0.0))  # a checkpoint after every step
    with pytest.raises(RunStopped, match=r"step 5: loss = nan.* is not finite.*stage1\.pt' holds"):
        train(tmp_path)
    state = torch.load(tmp_path / "checkpoints" / "stage1.pt", weights_only=True)
    assert state["step"] == 5
    assert all(bool(value.isfinite().all()) for value in state["parts"]["network"].values())
