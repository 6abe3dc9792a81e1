"""Winograd's convolution: the same as torch's in float64, with all its derivatives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lddgan.networks import prepared, winograd
from lddgan.networks.layers import conv3x3

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")

SIZES = [(2, 48, 80, 16, 8), (64, 96, 128, 4, 4), (8, 160, 160, 8, 8)]


def given(batch: int, channels: int, channels_out: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(channels)
    x = torch.randn(batch, channels, height, width, generator=random)
    weight = torch.randn(channels_out, channels, 3, 3, generator=random) / (9 * channels) ** 0.5
    channels_last = torch.channels_last
    bias = torch.randn(channels_out, generator=random)
    return x.to(memory_format=channels_last), weight.to(memory_format=channels_last), bias


def off(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.fixture(autouse=True)
def _always_pays(monkeypatch):
    monkeypatch.setattr(winograd, "_pays", lambda x, channels_out: True)
    monkeypatch.setattr(winograd, "_avx2_only", lambda: True)


@pytest.mark.parametrize("sizes", SIZES)
def test_is_the_convolution_with_its_derivatives(sizes):
    ours = [part.requires_grad_() for part in given(*sizes)]
    theirs = [part.detach().double().requires_grad_() for part in ours]
    result, expected = winograd.conv3x3(*ours), F.conv2d(*theirs, padding=1)
    assert off(result, expected) < 2e-6
    assert result.is_contiguous(memory_format=torch.channels_last)
    along = torch.randn(result.shape)
    gradients = torch.autograd.grad(result, ours, along)
    for gradient, of_theirs in zip(gradients, torch.autograd.grad(expected, theirs, along.double()), strict=True):
        assert off(gradient, of_theirs) < 3e-6


@pytest.mark.parametrize("sizes", SIZES)
def test_kept_kernels_follow_the_weights(sizes):
    x, weight, bias = given(*sizes)
    with torch.inference_mode():
        for _ in range(2):
            expected = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
            assert off(winograd.conv3x3(x, weight, bias), expected) < 2e-6
    assert weight in prepared._prepared and winograd._keeps_kernel(8) is False  # not outside of inference mode
    weight += 1
    with torch.inference_mode():
        for part in (x, x[:1]):
            expected = F.conv2d(part.double(), weight.double(), bias.double(), padding=1)
            assert off(winograd.conv3x3(part, weight, bias), expected) < 3e-6


def test_a_gradient_by_the_input_that_does_not_pay_goes_by_torch(monkeypatch):
    ours = [part.requires_grad_() for part in given(*SIZES[0])]
    result, asked = winograd.conv3x3(*ours), []
    monkeypatch.setattr(winograd, "_pays", lambda x, channels_out: asked.append((x.shape[1], channels_out)))
    along = torch.randn(result.shape)
    (gradient,) = torch.autograd.grad(result, ours[0], along)
    of_torch = torch.nn.grad.conv2d_input(ours[0].shape, ours[1].double(), along.double(), padding=1)
    assert off(gradient, of_torch) < 1e-6 and asked == [(80, 48)]


def test_a_gradient_can_be_differentiated_again():
    """As the R1 penalty does."""

    def of_penalty(convolve, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(convolve(x, weight, bias).square().sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), weight)[0]

    ours = [part.requires_grad_() for part in given(*SIZES[0])]
    theirs = [part.detach().double().requires_grad_() for part in ours]
    expected = of_penalty(lambda *parts: F.conv2d(*parts, padding=1), *theirs)
    assert off(of_penalty(winograd.conv3x3, *ours), expected) < 3e-6


@pytest.mark.parametrize("biased", [True, False])
def test_batches_that_are_cut_up_give_the_same(monkeypatch, biased):
    parts = [part.requires_grad_() for part in given(*SIZES[2])]
    x, weight, bias = parts if biased else [*parts[:2], None]
    whole = winograd.conv3x3(x, weight, bias)
    gradients = torch.autograd.grad(whole.square().sum(), (x, weight))
    monkeypatch.setattr(winograd, "AT_ONCE", 3 * 36 * 4 * 160)  # three images of four tiles
    assert len({len(part) for part in winograd._parts(x, 160)}) == 2  # unequal
    cut = winograd.conv3x3(x, weight, bias)
    assert off(cut, whole) < 1e-6
    for gradient, of_whole in zip(torch.autograd.grad(cut.square().sum(), (x, weight)), gradients, strict=True):
        assert off(gradient, of_whole) < 1e-6
    with torch.inference_mode():  # packed
        assert off(winograd.conv3x3(x, weight, bias), whole) < 1e-6


def test_a_kernel_of_many_tiles_is_not_kept():
    x, weight, bias = given(winograd.FEW_TILES, 16, 24, 4, 4)
    with torch.inference_mode():
        assert off(winograd.conv3x3(x, weight, None), F.conv2d(x.double(), weight.double(), padding=1)) < 2e-6
    assert weight not in prepared._prepared


@pytest.mark.parametrize("gradient", [True, False])
def test_a_convolution_takes_it_where_it_fits(monkeypatch, gradient):
    asked = []
    real = winograd.conv3x3
    monkeypatch.setattr(winograd, "conv3x3", lambda *parts: asked.append(1) or real(*parts))
    layer = conv3x3(32, 48).to(memory_format=torch.channels_last).requires_grad_(gradient)
    x = torch.randn(2, 32, 8, 8).to(memory_format=torch.channels_last)
    assert off(layer(x), F.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=1)) < 2e-6
    assert asked == [1]
    for other in (x[:, :, :6], x[:, :, :, :5], x[:0]):
        layer(other)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x)
    layer.double()(x.double())
    layer.float().to(memory_format=torch.contiguous_format)(x)  # as the plain baseline of the benchmarks holds it
    assert asked == [1]


def test_only_what_saves_more_than_it_costs(monkeypatch):
    monkeypatch.undo()

    def pays(batch: int, channels: int, side: int) -> bool:
        return winograd._pays(torch.empty(batch, channels, side, side), channels)

    assert pays(64, 128, 16) and pays(1, 128, 64) and pays(64, 64, 8)
    assert not pays(64, 48, 8) and not pays(1, 256, 8)
    with torch.inference_mode():
        assert pays(64, 128, 16) and pays(1, 256, 16)
        assert not pays(64, 64, 8) and not pays(1, 128, 16) and not pays(1, 256, 8)


@pytest.mark.parametrize(("channels", "dtype", "expected"), [
    (256, torch.float32, True), (128, torch.float32, False), (256, torch.bfloat16, False),
])  # fmt: skip
def test_wide_networks_are_faster_by_it_than_compiled(channels, dtype, expected):
    assert winograd.rules(torch.nn.Sequential(conv3x3(channels, 256)).to(dtype)) is expected
