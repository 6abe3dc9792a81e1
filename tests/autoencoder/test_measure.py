from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lddgan.autoencoder.health import LOST_PSNR, Stage1Health
from lddgan.autoencoder.measure import Fidelity, HeldOut, psnr
from lddgan.data.prepare import ImageSet

CPU = torch.device("cpu")


def images(count: int, side: int = 16, channels: int = 3) -> ImageSet:
    pixels = np.random.default_rng(0).integers(60, 190, (count, side, side, channels), dtype=np.uint8)
    return ImageSet(pixels, None, [], [], "some", [])


def test_psnr_in_closed_form():
    assert psnr(0.04) == pytest.approx(20.0)  # 10 log10(2^2 / 0.2^2)
    assert psnr(0) < 127


def test_a_perfect_copy_and_one_that_is_brighter():
    held_out = HeldOut(images(250), lambda network, x: network(x), "grid.png")
    same = held_out.measure(nn.Identity(), None, CPU)
    assert same.ssim == pytest.approx(1) and same.frechet == pytest.approx(0, abs=1e-6) and same.psnr > 100
    shift = HeldOut(images(250), lambda network, x: x + 0.2, "grid.png").measure(nn.Identity(), None, CPU)
    assert shift.psnr == pytest.approx(20.0, abs=1e-3) and shift.ssim < 1
    assert shift.frechet == pytest.approx(48 * 0.04, rel=1e-3)  # the means of 4x4 cells of three channels
    assert shift.distance == shift.frechet and shift.row()["held_out/FD[pixels]"] == shift.frechet
    assert "PSNR 20.00 dB" in str(shift) and "FD[pixels] 1.92" in str(shift)


def test_too_few_images_for_a_gaussian_leave_psnr_to_pick_the_best():
    few = HeldOut(images(5), lambda network, x: x + 0.2, "grid.png").measure(nn.Identity(), None, CPU)
    assert few.frechet is None and few.distance == -few.psnr and "held_out/perceptual" not in few.row()


def test_the_network_is_measured_in_evaluation_mode_and_left_as_it_was(tmp_path):
    network = nn.Dropout(0.9).train()
    held_out = HeldOut(images(5, side=8), lambda network, x: network(x), "grid.png")
    assert held_out.measure(network, None, CPU).psnr > 100 and network.training
    held_out.show(network, tmp_path, CPU)
    assert (tmp_path / "grid.png").read_bytes()[:4] == b"\x89PNG"


def fidelity(psnr: float) -> Fidelity:
    return Fidelity(psnr, 0.9, None, None, "pixels")


def test_a_discriminator_that_costs_too_much_is_named_once():
    health = Stage1Health()
    assert health.of_fidelity(fidelity(30), adversarial=False) == []
    assert health.of_fidelity(fidelity(30 - LOST_PSNR / 2), adversarial=True) == []
    (warning,) = health.of_fidelity(fidelity(28), adversarial=True)
    assert "worsens held-out reconstruction (by 2.0 dB" in warning and "discriminator_weight" in warning
    assert health.of_fidelity(fidelity(28), adversarial=True) == []
    again = Stage1Health()
    again.load_state_dict(health.state_dict())
    assert len(again.of_fidelity(fidelity(28), adversarial=True)) == 1


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"discriminator/accuracy": 0.5}, "is blind"),
        ({"discriminator/accuracy": 0.999}, "overwhelms"),
        ({"codebook/used": 0.02}, "codebook collapses"),
    ],
)
def test_what_lasts_is_warned_of_and_what_passes_is_not(row, words):
    health, good = Stage1Health(), {"discriminator/accuracy": 0.8, "codebook/used": 0.9}
    said = [health.of_row(row) for _ in range(4)]
    assert [len(part) for part in said] == [0, 0, 1, 0] and words in said[2][0]
    for _ in range(2):
        assert health.of_row(good) == [] and health.of_row(row) == [] and health.of_row(row) == []
