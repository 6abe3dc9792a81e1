from __future__ import annotations

import pytest
import torch
from torch import nn

from lddgan.autoencoder.objective import (
    PatchDiscriminator,
    adaptive_weight,
    hinge_loss,
    kl_factor,
    ramp,
    reconstruction_loss,
)


def test_reconstruction_loss():
    images = torch.zeros(2, 1, 1, 2)
    assert reconstruction_loss(torch.tensor([[[[1.0, -2.0]]], [[[0.0, 0.5]]]]), images).tolist() == [1.5, 0.25]


def test_hinge_loss_in_closed_form_and_without_a_way_to_the_autoencoder():
    scale = nn.Parameter(torch.tensor(1.0))
    discriminator = lambda x: scale * x.flatten(1).mean(1)  # noqa: E731
    images = torch.tensor([0.5, 3.0]).view(2, 1, 1, 1)  # relu(1 - D): 0.5, 0
    fakes = torch.tensor([-2.0, 0.5]).view(2, 1, 1, 1).requires_grad_(True)  # relu(1 + D): 0, 1.5
    loss, accuracy = hinge_loss(discriminator, images, fakes)
    assert accuracy.item() == 0.75  # both images above 0, one of the fakes below
    assert loss.item() == pytest.approx(0.5 * (0.25 + 0.75))
    loss.backward()
    assert fakes.grad is None and scale.grad.item() == pytest.approx(0.5 * (-0.25 + 0.25))


def test_adaptive_weight_is_the_ratio_of_gradient_norms_and_clamped():
    last = nn.Parameter(torch.tensor([3.0, 4.0]))
    weight = adaptive_weight((last * torch.tensor([3.0, 4.0])).sum(), 0.5 * last[0], last)
    assert weight.item() == pytest.approx(5 / (0.5 + 1e-4)) and not weight.requires_grad
    assert adaptive_weight(1e6 * last.sum(), 0 * last.sum(), last).item() == 1e4


def test_the_ramp_grows_over_its_steps_and_without_any_is_at_once_full():
    assert [ramp(step, 3) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert ramp(0, 0) == 1.0


def test_a_kl_divergence_beside_a_mean_error_weighs_as_in_ldm_beside_a_sum():
    # sum(|x|) + 1e-6 KL, divided by the number of values, is mean(|x|) + 1e-6 / values KL.
    assert kl_factor(1e-6, 3 * 32 * 32) * 3072 == pytest.approx(1e-6)


@pytest.mark.parametrize(("side", "patches"), [(8, 2), (16, 2), (32, 2), (64, 6), (256, 30)])
def test_patches_and_the_receptive_field(side, patches):
    net = PatchDiscriminator(1, 2, side).eval()
    assert net(torch.zeros(1, 1, side, side)).shape == (1, 1, patches, patches)
    if side == 256:
        x = torch.zeros(1, 1, side, side, requires_grad=True)
        net(x)[0, 0, 15, 15].backward()
        rows = x.grad[0, 0].abs().sum(1).nonzero().flatten()
        assert rows.max() - rows.min() + 1 == 70
