from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lddgan.networks.layers import (
    AdaptiveGroupNorm,
    Attention,
    Conv2d,
    GroupNorm,
    Mapping,
    ResidualBlock,
    conv3x3,
    group_norm,
    near_zero_init,
    num_groups,
    scaled_init,
    sinusoid,
)


def test_sinusoid():
    embedded = sinusoid(torch.tensor([0, 3]), 8)
    frequencies = [10000 ** (-k / 3) for k in range(4)]
    torch.testing.assert_close(embedded[0], torch.tensor([0.0] * 4 + [1.0] * 4))
    torch.testing.assert_close(
        embedded[1], torch.tensor([math.sin(3 * f) for f in frequencies] + [math.cos(3 * f) for f in frequencies])
    )


def test_groups():
    assert [num_groups(c) for c in (4, 16, 64, 128, 256)] == [1, 4, 16, 32, 32]
    assert [num_groups(c) for c in (7, 10, 132, 144)] == [1, 2, 22, 24]
    with pytest.raises(ValueError, match="3"):
        num_groups(3)


def test_scaled_init_is_uniform_with_the_fan_average():
    torch.manual_seed(0)
    layer = scaled_init(conv3x3(64, 32))
    variance = 1 / ((64 * 9 + 32 * 9) / 2)
    assert layer.weight.var().item() == pytest.approx(variance, rel=0.03)
    assert layer.weight.abs().max().item() == pytest.approx(math.sqrt(3 * variance), rel=0.01)
    assert layer.bias is not None and not layer.bias.any()
    assert near_zero_init(nn.Linear(64, 64)).weight.abs().max() < 1e-5


def test_adaptive_group_norm_scales_and_shifts():
    norm = AdaptiveGroupNorm(8, 3)
    x = torch.randn(2, 8, 4, 4)
    torch.testing.assert_close(norm(x, torch.zeros(2, 3)), F.group_norm(x, 2, eps=1e-6))

    style = torch.randn(2, 3)
    scale, shift = norm.style(style).chunk(2, dim=1)
    groups = x.view(2, 2, -1)
    plain = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, correction=0, keepdim=True) + 1e-6).sqrt()
    expected = scale[:, :, None, None] * plain.view_as(x) + shift[:, :, None, None]
    torch.testing.assert_close(norm(x, style), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [8, 24, 256])
@pytest.mark.parametrize("size", [1, 4])
def test_group_norm_in_channels_last_is_that_of_torch(channels, size):
    torch.manual_seed(0)
    layer = GroupNorm(channels)
    layer.weight.data, layer.bias.data = torch.randn(2, channels).unbind()
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = torch.arange(2.0 * channels * size**2).sin().view(2, channels, size, size).add(1)
        x = x.to(memory_format=memory_format).requires_grad_()
        y = layer(x)
        assert y.is_contiguous(memory_format=memory_format)
        (gradient,) = torch.autograd.grad(y.square().mul(y).sum(), x)
        results.append((y, gradient))
        assert torch.equal(y, group_norm(x, layer.num_groups, layer.weight, layer.bias))
    expected = F.group_norm(x.contiguous(), num_groups(channels), layer.weight, layer.bias, 1e-6)
    for y, gradient in results:
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-4, atol=1e-4)


def test_a_convolution_of_one_pixel_is_that_of_torch():
    torch.manual_seed(0)
    ours, x = conv3x3(6, 5), torch.randn(3, 6, 1, 1).requires_grad_()
    theirs = F.conv2d(x, ours.weight, ours.bias, padding=1)
    torch.testing.assert_close(ours(x), theirs)
    for got, expected in zip(
        torch.autograd.grad(ours(x).square().sum(), (x, *ours.parameters())),
        torch.autograd.grad(theirs.square().sum(), (x, *ours.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)
    shrinking = Conv2d(6, 5, 3, stride=2)  # no padding: not of a single pixel
    assert shrinking(torch.ones(1, 6, 3, 3)).shape == (1, 5, 1, 1)


def test_mapping_ignores_the_length_of_z_and_counts_layers():
    mapping = Mapping(5, 8, 3)
    z = torch.randn(4, 5)
    torch.testing.assert_close(mapping(z), mapping(7 * z), rtol=1e-5, atol=1e-6)
    assert len(mapping.layers) == 4
    expected = z / z.square().mean(1, keepdim=True).sqrt()
    for layer in mapping.layers:
        expected = F.silu(F.linear(expected, layer.weight, layer.bias))
    torch.testing.assert_close(mapping(z), expected, rtol=1e-5, atol=1e-6)


def test_residual_block_starts_as_the_scaled_identity():
    block = ResidualBlock(8, 8, time_dim=6, style_dim=5)
    assert isinstance(block.shortcut, nn.Identity)
    x = torch.randn(2, 8, 4, 4)
    torch.testing.assert_close(block(x, torch.randn(2, 6), torch.randn(2, 5)), x / math.sqrt(2), rtol=0, atol=1e-3)


def test_attention_against_the_definition():
    attention = Attention(8)
    for layer in (attention.query, attention.key, attention.value, attention.out):
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    x = torch.randn(2, 8, 3, 5)
    pixels = F.group_norm(x, 2, eps=1e-6).flatten(2).transpose(1, 2)  # [B, HW, C]
    scores = attention.query(pixels) @ attention.key(pixels).transpose(1, 2) / math.sqrt(8)
    h = attention.out(scores.softmax(2) @ attention.value(pixels)).transpose(1, 2).view_as(x)
    torch.testing.assert_close(attention(x), (x + h) / math.sqrt(2), rtol=1e-5, atol=1e-5)
