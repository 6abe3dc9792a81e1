from __future__ import annotations

import pytest
import torch

from lddgan.autoencoder.model import Autoencoder
from lddgan.networks.layers import GroupNorm


@pytest.mark.parametrize(
    ("channels", "multipliers", "side", "latent_side"),
    [(1, (1, 2), 8, 4), (3, (1, 2, 4), 16, 4), (4, (1,), 8, 8), (3, (1, 2, 4, 4), 32, 4)],
)
def test_factor_and_shapes(channels, multipliers, side, latent_side):
    net = Autoencoder(channels=channels, latent_channels=5, width=8, multipliers=multipliers, num_blocks=1)
    latent = net.encoder(torch.randn(2, channels, side, side))
    assert latent.shape == (2, 5, latent_side, latent_side)
    assert net.decoder(latent).shape == (2, channels, side, side)


def test_groups_of_the_norm():
    assert [GroupNorm(channels).num_groups for channels in (4, 8, 14, 64, 128, 512)] == [1, 2, 2, 16, 32, 32]


def test_tanh_bounds_the_decoder_and_dropout_is_silent_in_evaluation():
    torch.manual_seed(0)
    net = Autoencoder(channels=1, latent_channels=2, width=8, multipliers=(1, 2), num_blocks=1, tanh=True, dropout=0.5)
    with torch.no_grad():
        net.decoder.conv_out.weight.mul_(100)
    images = torch.randn(2, 1, 8, 8)
    assert net(images).abs().max() <= 1 and not torch.equal(net(images), net(images))
    net.eval()
    assert torch.equal(net(images), net(images))
    assert net.last_layer is net.decoder.conv_out.weight


def test_attention_stands_where_it_is_asked_for():
    plain, attentive = (
        Autoencoder(channels=1, latent_channels=2, width=8, multipliers=(1, 2), num_blocks=2, attention_levels=levels)
        for levels in ((), (1,))
    )
    # 16 channels: norm 32, four 1x1 convolutions 4 * (256 + 16); two blocks in the encoder, three in the decoder
    extra = sum(p.numel() for p in attentive.parameters()) - sum(p.numel() for p in plain.parameters())
    assert extra == 5 * (32 + 4 * (256 + 16))


def shortcut_net(latent_channels: int) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(
        channels=3, latent_channels=latent_channels, width=8, multipliers=(1, 2), num_blocks=1, linear_shortcut=True
    )


def test_the_linear_shortcut_starts_as_the_principal_components_of_the_patches():
    random = torch.Generator().manual_seed(0)
    mixing = torch.randn(12, 12, generator=random) * torch.linspace(2, 0.05, 12)
    patches = torch.randn(64 * 16, 12, generator=random) @ mixing.T * 0.1 + 0.2
    images = torch.nn.functional.fold(patches.view(64, 16, 12).transpose(1, 2), 8, 2, stride=2)
    net = shortcut_net(5)
    net.fit_shortcut(images)
    with torch.no_grad():
        latent, reconstructions = net.encoder(images), net(images)
    # By Eckart and Young the mean squared error is the sum of the variances that were left out.
    left_out = torch.linalg.eigvalsh(torch.cov(patches.double().T))[:-5].sum() * (64 * 16 - 1) / (64 * 16)
    assert (reconstructions - images).square().sum().item() / (64 * 16) == pytest.approx(left_out.item(), rel=1e-3)
    torch.testing.assert_close(latent.mean((0, 2, 3)), torch.zeros(5), atol=1e-4, rtol=0)
    torch.testing.assert_close(latent.std((0, 2, 3)), torch.ones(5), atol=1e-2, rtol=0)


def test_as_many_channels_as_a_patch_has_numbers_lose_nothing_and_training_moves_all_parts():
    images = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    net = shortcut_net(12)
    net.fit_shortcut(images)
    torch.testing.assert_close(net(images), images, atol=1e-5, rtol=0)
    (net(images) - images.flip(2)).square().mean().backward()
    for layer in (net.encoder.shortcut, net.decoder.shortcut, net.encoder.project, net.decoder.conv_out):
        assert layer is not None and layer.weight.grad is not None and layer.weight.grad.abs().max() > 0


def test_without_a_shortcut_fitting_changes_nothing():
    net = Autoencoder(channels=1, latent_channels=2, width=8, multipliers=(1, 2), num_blocks=1)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.fit_shortcut(torch.rand(4, 1, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
