from __future__ import annotations

import pytest
import torch

from lddgan.autoencoder.model import Autoencoder, norm


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
    assert [norm(channels).num_groups for channels in (4, 8, 14, 64, 128, 512)] == [1, 2, 2, 16, 32, 32]


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
