from __future__ import annotations

import pytest
import torch
from tiny import tiny_config

from lddgan.errors import UserError
from lddgan.models import build_space


def test_normalised_by_the_statistics_and_back():
    space = build_space(tiny_config()).eval()
    mean, std = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    space.set_statistics(mean, std)
    images = torch.rand(3, 1, 8, 8) * 2 - 1
    latent = space.autoencoder.encoder(images)
    x_0 = space.encode(images)
    for channel in range(2):
        torch.testing.assert_close(x_0[:, channel], (latent[:, channel] - mean[channel]) / std[channel])
    assert space.decoder == "slim" and torch.equal(space.decode(x_0), space.slim_decoder(x_0))
    space.decoder = "full"
    torch.testing.assert_close(space.decode(x_0), space.autoencoder.decoder(latent), atol=1e-5, rtol=1e-5)
    assert torch.equal(space.normalise(mean.view(1, 2, 1, 1).expand(1, 2, 4, 4)), torch.zeros(1, 2, 4, 4))


def test_statistics_travel_with_the_weights():
    space, other = build_space(tiny_config()), build_space(tiny_config())
    space.set_statistics(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    other.load_state_dict(space.state_dict())
    assert other.mean.tolist() == [1.0, 2.0] and other.std.tolist() == [3.0, 4.0]


def test_a_model_without_a_slim_decoder_draws_with_its_own():
    space = build_space(tiny_config(slim_decoder=None))
    assert space.decoder == "full"
    with pytest.raises(UserError, match="has no slim decoder: take full, or train one with"):
        space.decoder = "slim"
    with pytest.raises(UserError, match="no decoder 'fast': take slim or full"):
        space.decoder = "fast"


@pytest.mark.parametrize("deviation", [0.0, 1e-9, float("nan")])
def test_a_dead_channel_is_named(deviation):
    with pytest.raises(UserError, match="channel 1 of the latent is dead .*fewer autoencoder.latent_channels"):
        build_space(tiny_config()).set_statistics(torch.zeros(2), torch.tensor([1.0, deviation]))
