from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lddgan.networks.haar import haar, inverse_haar
from lddgan.networks.layers import ResidualBlock
from lddgan.networks.resample import downsample2, upsample2
from lddgan.networks.scaling import FirDown, FirUp, HaarDown, HaarPyramid, HaarUp, double, halve

COMMON = {"time_dim": 6, "style_dim": 5}


def arguments() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 4, 8, 8), torch.randn(2, 6), torch.randn(2, 5)


def second_half(block: ResidualBlock, h: Tensor, x: Tensor, time: Tensor, style: Tensor) -> Tensor:
    h = h + block.time(time).view(2, 4, 1, 1)
    return (x + block.conv_1(F.silu(block.norm_1(h, style)))) / math.sqrt(2)


def audible(block: ResidualBlock) -> ResidualBlock:
    nn.init.normal_(block.conv_1.weight)  # it starts near zero
    return block


def test_fir_blocks_resample_before_they_convolve():
    x, time, style = arguments()
    for block, function in ((FirDown(4, **COMMON), downsample2), (FirUp(4, 4, **COMMON), upsample2)):
        audible(block)
        h = block.conv_0(function(F.silu(block.norm_0(x, style))))
        expected = second_half(block, h, block.shortcut(function(x)), time, style)
        ours = block(x, None, time, style) if isinstance(block, FirUp) else block(x, time, style)[0]
        torch.testing.assert_close(ours, expected)


def test_haar_down_convolves_first_and_hands_the_high_bands_over():
    x, time, style = arguments()
    block = HaarDown(4, **COMMON)
    audible(block)
    ours, bands = block(x, time, style)
    h = haar(block.conv_0(F.silu(block.norm_0(x, style))))
    low = haar(block.shortcut(x))[:, :4] / 2
    torch.testing.assert_close(ours, second_half(block, h[:, :4] / 2, low, time, style))
    torch.testing.assert_close(bands, h[:, 4:])


def test_haar_up_takes_filtered_bands_in_both_branches():
    x, time, style = arguments()
    block = HaarUp(4, 2, **COMMON)
    audible(block)
    handed = torch.randn(2, 6, 8, 8)
    bands = []
    for i in range(3):  # each band by a third of the filters, which see this band alone
        weight, bias = block.bands.weight[4 * i : 4 * i + 4], block.bands.bias[4 * i : 4 * i + 4]
        bands.append(F.conv2d(handed[:, 2 * i : 2 * i + 2], weight, 2 * bias, padding=1))
    h = inverse_haar(torch.cat([2 * block.conv_0(F.silu(block.norm_0(x, style))), *bands], 1))
    beside = inverse_haar(torch.cat([2 * block.shortcut(x), *bands], 1))
    torch.testing.assert_close(block(x, handed, time, style), second_half(block, h, beside, time, style))


def test_haar_pyramid():
    x, _, _ = arguments()
    pyramid = HaarPyramid(4, 3)
    assert pyramid.conv.weight.shape == (3, 16, 3, 3)
    torch.testing.assert_close(pyramid(x), pyramid.conv(haar(x) / 2))


def test_halving_gives_means_and_doubling_undoes_it():
    x, _, _ = arguments()
    means, bands = halve(x)
    torch.testing.assert_close(means, F.avg_pool2d(x, 2))
    torch.testing.assert_close(double(means, bands), x)
