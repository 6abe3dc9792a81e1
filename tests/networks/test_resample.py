from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from lddgan.networks.resample import downsample2, smooth, upsample2

GOLDEN = Path(__file__).parents[1] / "golden" / "fir_resample.safetensors"


def test_agrees_with_the_published_filters():
    golden = load_file(GOLDEN)
    x = golden["in.x"]
    torch.testing.assert_close(upsample2(x), golden["out.up"], rtol=0, atol=1e-6)
    torch.testing.assert_close(downsample2(x), golden["out.down"], rtol=0, atol=1e-6)
    conv_down = F.conv2d(smooth(x), golden["in.conv_weight"], stride=2)
    torch.testing.assert_close(conv_down, golden["out.conv_down"], rtol=1e-5, atol=1e-5)


def test_up_is_the_polyphase_pair_with_zeros_outside():
    row = torch.tensor([4.0, 8.0, -4.0])
    x = row.view(1, 1, 1, 3).expand(1, 1, 3, 3)
    expected = torch.tensor([3.0, 5.0, 7.0, 5.0, -1.0, -3.0])
    torch.testing.assert_close(upsample2(x)[0, 0, 2], expected)  # an inner row: the other axis adds up to 1


def test_down_weighs_by_1_3_3_1_with_zeros_outside():
    row = torch.tensor([8.0, 16.0, 0.0, -8.0])
    x = row.view(1, 1, 1, 4).expand(1, 1, 6, 4)
    expected = torch.tensor([(3 * 8 + 3 * 16 + 0) / 8, (16 + 0 - 3 * 8) / 8])
    torch.testing.assert_close(downsample2(x)[0, 0, 1], expected)


def test_conv_down_filters_before_the_convolution():
    x = torch.randn(2, 3, 8, 6)
    weight, bias = torch.zeros(5, 3, 3, 3), torch.arange(5.0)
    weight[:, 1, 1, 1] = 1  # picks the filtered channel 1 at the centre of each stride-2 window
    y = F.conv2d(smooth(x), weight, bias, stride=2)
    torch.testing.assert_close(y, downsample2(x)[:, 1:2] + bias.view(1, 5, 1, 1))


def test_up_and_down_are_adjoint_but_for_a_factor_4():
    x, y = torch.randn(2, 3, 5, 4, dtype=torch.float64), torch.randn(2, 3, 10, 8, dtype=torch.float64)
    torch.testing.assert_close((upsample2(x) * y).sum(), 4 * (x * downsample2(y)).sum())


@pytest.mark.parametrize("function", [upsample2, downsample2])
def test_gradients_of_first_and_second_order(function):
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(lambda x: function(x).square(), x)


@pytest.mark.parametrize("function", [upsample2, downsample2])
def test_keeps_channels_last(function):
    x = torch.randn(2, 8, 8, 8)
    y = function(x.contiguous(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, function(x))


def test_training_works_after_sampling():
    dtype = torch.bfloat16  # a filter that no other test has made
    with torch.inference_mode():
        upsample2(torch.randn(1, 2, 4, 4, dtype=dtype))
    x = torch.ones(1, 1, 4, 4, dtype=dtype, requires_grad=True)
    upsample2(x).sum().backward()
    assert x.grad is not None and x.grad[0, 0, 1, 1] == 4  # an inner pixel is spread over four
