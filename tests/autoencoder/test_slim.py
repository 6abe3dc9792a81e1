from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lddgan.autoencoder.slim import SlimDecoder
from lddgan.metrics.cost import count_macs


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_it_starts_as_the_best_linear_map_of_its_latent(factor):
    side, random = 16, torch.Generator().manual_seed(factor)
    images = torch.randn(40, 1, side, side, generator=random)
    patches = F.unfold(images, factor, stride=factor)  # [N, f^2, r^2]
    mixing = torch.randn(3, factor**2, generator=random)
    x_0 = (mixing @ patches).unflatten(2, (side // factor, side // factor)) + 0.5
    net = SlimDecoder(channels=1, latent_channels=3, factor=factor, width=4, num_blocks=1)
    net.fit_shortcut(x_0, images)
    ours = F.unfold(net(x_0), factor, stride=factor)
    design = torch.cat([x_0, torch.ones(40, 1, *x_0.shape[2:])], 1).permute(0, 2, 3, 1).flatten(0, 2).double()
    wanted = patches.transpose(1, 2).flatten(0, 1).double()
    best = design @ torch.linalg.lstsq(design, wanted, driver="gelsd").solution
    assert ((ours.transpose(1, 2).flatten(0, 1) - best).square().mean() / best.square().mean()).sqrt() < 1e-3


def test_a_channel_that_repeats_another_is_no_obstacle():
    x_0 = torch.randn(20, 1, 4, 4).repeat(1, 2, 1, 1)
    images = F.interpolate(x_0[:, :1], scale_factor=2)
    net = SlimDecoder(channels=1, latent_channels=2, factor=2, width=4, num_blocks=1)
    net.fit_shortcut(x_0, images)
    assert torch.allclose(net(x_0), images, atol=1e-3)


def test_training_moves_every_part():
    net = SlimDecoder(channels=3, latent_channels=4, factor=4, width=4, num_blocks=2)
    before = {name: value.clone() for name, value in net.named_parameters()}
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(6):  # the zeros on the way open one after the other
        loss = (net(torch.randn(4, 4, 2, 2)) - torch.randn(4, 3, 8, 8)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert [name for name, value in net.named_parameters() if torch.equal(value, before[name])] == []


def test_at_256_px_it_costs_at_most_12_gmac():
    with torch.device("meta"):
        net = SlimDecoder(channels=3, latent_channels=4, factor=4, width=64, num_blocks=4)
        assert count_macs(net, torch.empty(1, 4, 64, 64)) < 12e9
