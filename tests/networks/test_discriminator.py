from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lddgan.networks.discriminator import Discriminator, minibatch_std


def small(**changes) -> Discriminator:
    return Discriminator(**({"channels": 2, "width": 2, "time_dim": 6, "kind": "small", "num_layers": 3} | changes))


def randomise(network: nn.Module) -> None:
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)


@pytest.mark.parametrize(
    ("batch", "sizes"),
    [(1, [1]), (2, [2]), (3, [3]), (4, [4]), (5, [3, 2]), (6, [3, 3]), (7, [4, 3]), (8, [4, 4]), (9, [3, 3, 3]),
     (10, [4, 3, 3])],
)  # fmt: skip
def test_minibatch_std_of_any_batch_against_direct_computation(batch, sizes):
    h = torch.randn(batch, 5, 3, 2, dtype=torch.float64)
    out = minibatch_std(h)
    torch.testing.assert_close(out[:, :5], h)
    for k, size in enumerate(sizes):
        members = h[k :: len(sizes)]  # member j of group k is sample j * K + k
        assert len(members) == size
        deviation = members - members.mean(0)
        value = (deviation.square().mean(0) + 1e-8).sqrt().mean()
        torch.testing.assert_close(out[k :: len(sizes), 5], value.expand(size, 3, 2))


def test_minibatch_std_of_equal_samples_is_its_floor():
    out = minibatch_std(torch.full((4, 2, 2, 2), 3.0))
    torch.testing.assert_close(out[:, 2], torch.full((4, 2, 2), 1e-4))


def test_minibatch_std_computes_in_float32():
    h = (1000 + torch.randn(4, 8, 4, 4)).bfloat16()
    out = minibatch_std(h)
    assert out.dtype == torch.bfloat16
    expected = h.float().var(0, correction=0).add(1e-8).sqrt().mean()
    assert out[0, 8, 0, 0].item() == pytest.approx(expected.item(), rel=2**-8)


@pytest.mark.parametrize(
    ("kind", "num_layers", "widths", "min_resolution"),
    [
        ("small", 3, [4, 4, 8, 16], 4),
        ("small", 4, [4, 4, 8, 16, 16], 8),
        ("large", 4, [4, 8, 16, 16, 16], 16),
        ("large", 6, [4, 8, 16, 16, 16, 16, 16], 64),
    ],
)
def test_topology(kind, num_layers, widths, min_resolution):
    network = small(kind=kind, num_layers=num_layers)
    assert network.conv_in.weight.shape == (widths[0], 4, 1, 1)
    assert [block.conv_1.out_channels for block in network.blocks] == widths[1:]
    assert network.min_resolution == min_resolution
    x = torch.randn(3, 2, min_resolution, min_resolution)
    assert network(x, torch.tensor([0, 1, 2]), x).shape == (3,)
    x = x[:, :, 1:]
    with pytest.raises(ValueError, match="too small"):
        network(x, torch.tensor([0, 1, 2]), x)


def test_initial_scale_of_the_last_convolution():
    for kind, bound in (("small", 1e-5), ("large", 1.0)):
        weight = small(kind=kind).conv_out.weight
        assert weight.abs().max().item() == pytest.approx(bound * math.sqrt(3 / (9 * (17 + 16) / 2)), rel=0.1)


def test_sees_both_samples_and_the_time():
    network = small()
    randomise(network)
    x_t, x_next, t = torch.randn(4, 2, 8, 8), torch.randn(4, 2, 8, 8), torch.tensor([0, 1, 2, 3])
    logits = network(x_t, t, x_next)
    for changed in (network(x_next, t, x_t), network(x_t, t.flip(0), x_next)):
        assert (changed - logits).abs().min() > 1e-6


def test_second_derivatives():
    network = small().double()
    randomise(network)
    t, x_next = torch.tensor([0, 1]), torch.randn(2, 2, 4, 4, dtype=torch.float64)
    # Time embeddings are float32 by design; in double precision they only need to be a constant.
    network.time_0.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))

    def penalty(x_t: torch.Tensor) -> torch.Tensor:
        x_t = x_t if x_t.requires_grad else x_t.requires_grad_()
        (gradient,) = torch.autograd.grad(network(x_t, t, x_next).sum(), x_t, create_graph=True)
        return gradient.square().sum()

    weight = network.blocks[1].conv_0.weight
    x_t = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    (analytic,) = torch.autograd.grad(penalty(x_t), weight)
    step, index = 1e-6, (1, 2, 1, 0)
    with torch.no_grad():
        weight[index] += step
    above = penalty(x_t).item()
    with torch.no_grad():
        weight[index] -= 2 * step
    below = penalty(x_t).item()
    assert analytic[index].item() == pytest.approx((above - below) / (2 * step), rel=1e-5)


def test_refuses_what_cannot_be_built():
    for changes in ({"kind": "medium"}, {"num_layers": 2}, {"time_dim": 5}, {"time_dim": 2}):
        with pytest.raises(ValueError):
            small(**changes)
