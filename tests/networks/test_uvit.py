from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lddgan.metrics.cost import count_parameters
from lddgan.models import build_generator
from lddgan.networks.uvit import TransformerBlock, UVit
from lddgan.recipes import recipe


def small(**changes) -> UVit:
    sizes = {
        "channels": 3, "side": 8, "patch": 2, "embed_dim": 8, "depth": 3, "num_heads": 2, "latent_dim": 5,
        "mapping_width": 6, "mapping_depth": 1,
    }  # fmt: skip
    return UVit(**(sizes | changes))


def randomise(network: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def test_starts_by_predicting_zero():
    arguments = torch.randn(2, 3, 8, 8), torch.tensor([0, 1]), torch.randn(2, 5)
    assert small()(*arguments).abs().max() < 1e-3


@pytest.mark.parametrize("changes", [{}, {"depth": 1}, {"depth": 7, "patch": 1}, {"patch": 8, "tanh": True}])
def test_every_size_uses_all_its_weights_and_keeps_the_shape(changes):
    network = randomise(small(**changes))
    x = torch.randn(2, 3, 8, 8)
    x_0 = network(x, torch.tensor([0, 1]), torch.randn(2, 5))
    assert x_0.shape == x.shape and (not changes.get("tanh") or x_0.abs().max() < 1)
    x_0.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_a_block_against_the_definition():
    block = randomise(TransformerBlock(8, 2, 6, joins=True))
    h, skip, style = torch.randn(2, 5, 8), torch.randn(2, 5, 8), torch.randn(2, 6)

    def norm(layer, h):  # over all tokens and the channels of a group; num_groups(8) is 2
        scale, shift = layer.style(style)[:, None].chunk(2, dim=2)
        groups = h.view(2, 5, 2, 4)
        mean, variance = groups.mean((1, 3), keepdim=True), groups.var((1, 3), correction=0, keepdim=True)
        return scale * ((groups - mean) / (variance + 1e-6).sqrt()).view_as(h) + shift

    h_in = F.linear(torch.cat([h, skip], 2), block.join.weight, block.join.bias)
    query, key, value = F.linear(norm(block.norm_0, h_in), block.query_key_value.weight).chunk(3, dim=2)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        scores = query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(4)
        heads.append(scores.softmax(2) @ value[..., part])
    h_mid = h_in + block.out(torch.cat(heads, 2))
    expected = h_mid + block.linear_1(F.gelu(block.linear_0(norm(block.norm_1, h_mid))))
    torch.testing.assert_close(block(h, style, skip), expected, rtol=1e-4, atol=1e-4)


def test_tokens_come_back_where_they_came_from():
    """Without mixing between tokens a pixel reaches its own patch, and through the last convolution the pixels beside
    it."""
    network = randomise(small(depth=1))
    for name in ("out", "linear_1"):
        for parameter in getattr(network.middle, name).parameters():
            nn.init.zeros_(parameter)
    x, arguments = torch.randn(1, 3, 8, 8), (torch.tensor([1]), torch.randn(1, 5))
    changed = x.clone()
    changed[0, 1, 2, 5] += 1  # in the patch of rows 2 and 3, columns 4 and 5
    moved = (network(changed, *arguments) - network(x, *arguments)).abs().amax((0, 1)) > 1e-6
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[1:5, 3:7] = True
    assert torch.equal(moved, expected)


def test_time_and_z_are_heard():
    network, x = randomise(small()), torch.randn(1, 3, 8, 8)
    z = torch.randn(2, 5)
    one = network(x, torch.tensor([0]), z[:1])
    assert (network(x, torch.tensor([3]), z[:1]) - one).abs().max() > 1e-3
    assert (network(x, torch.tensor([0]), z[1:]) - one).abs().max() > 1e-3


@pytest.mark.parametrize(("scale", "table_11"), [("tiny", 28.01), ("mid", 43.32), ("large", 56.17)])
def test_sizes_of_table_11(scale, table_11):
    """Millions of parameters with CIFAR-10's decoder, of which there are 8.63."""
    with torch.device("meta"):
        generator = build_generator(recipe(f"cifar10-uvit-{scale}"))
    assert count_parameters(generator) / 1e6 + 8.63 == pytest.approx(table_11, rel=0.02)


def test_refuses_what_cannot_be_built():
    for changes, says in (
        ({"depth": 4}, "depth must be odd"), ({"embed_dim": 9}, "multiple of num_heads"), ({"patch": 3}, "patch 3"),
        ({"embed_dim": 2, "num_heads": 1}, "at least 4"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=says):
            small(**changes)
    with pytest.raises(ValueError, match="16x8 input does not fit"):
        small()(torch.randn(1, 3, 16, 8), torch.tensor([0]), torch.randn(1, 5))
