"""Convolutions with weights that are laid out once are those of torch, whatever becomes of the weights."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
import torch.nn.functional as F

from lddgan.networks import prepared
from lddgan.networks.layers import Conv2d

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


def layer_and_input(*sizes: int, **options: int) -> tuple[Conv2d, torch.Tensor]:
    torch.manual_seed(0)
    layer = Conv2d(*sizes, **options).to(memory_format=torch.channels_last)
    return layer, torch.randn(2, sizes[0], 6, 6).to(memory_format=torch.channels_last)


def expected(layer: Conv2d, x: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding)


@pytest.mark.parametrize("options", [{"padding": 1}, {"stride": 2}, {"padding": 1, "bias": False}])
def test_is_the_convolution_also_after_the_weights_or_sizes_changed(options):
    layer, x = layer_and_input(8, 12, 3, **options)
    with torch.inference_mode():
        for _ in range(2):
            torch.testing.assert_close(layer(x), expected(layer, x))
        assert layer.weight in prepared._prepared and layer(x).is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        layer.weight.mul_(2)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), expected(layer, x))
        torch.testing.assert_close(layer(x[:1, :, 1:]), expected(layer, x[:1, :, 1:]))
    layer.weight.data = layer.weight.data.clone() + 1
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), expected(layer, x))


def test_only_drawing_keeps_weights_and_only_as_long_as_the_layer():
    layer, x = layer_and_input(8, 12, 3)
    layer(x).sum().backward()
    with torch.no_grad():
        layer(x)
    assert layer.weight not in prepared._prepared
    with torch.inference_mode():
        layer(x)
        again = copy.deepcopy(layer)
        torch.testing.assert_close(again(x), expected(again, x))
        plain = copy.deepcopy(layer).to(memory_format=torch.contiguous_format)
        plain(x)
    kept = len(prepared._prepared)
    assert (
        layer.weight in prepared._prepared
        and again.weight in prepared._prepared
        and plain.weight not in prepared._prepared
    )
    del layer, again
    gc.collect()
    assert len(prepared._prepared) == kept - 2


@pytest.mark.parametrize("strict", [False, True])
def test_a_trace_goes_by_torch_and_leaves_the_batch_free(strict):
    layer, x = layer_and_input(16, 16, 3, padding=1)
    x = x[:, :, :4, :4].contiguous(memory_format=torch.channels_last)
    program = torch.export.export(layer, (x,), dynamic_shapes=[{0: torch.export.Dim("batch")}], strict=strict).module()
    more = torch.cat([x, x, x])
    with torch.inference_mode():
        torch.testing.assert_close(program(more), expected(layer, more))


def test_what_it_is_not_made_for_goes_by_torch():
    layer, x = layer_and_input(8, 12, 3)
    large = torch.randn(2, 8, 40, 40).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert layer(x[:0]).shape == (0, 12, 4, 4)
        torch.testing.assert_close(layer(large), expected(layer, large))
        assert layer.weight not in prepared._prepared
        reduced = copy.deepcopy(layer).bfloat16()  # not every oneDNN prepares it
        torch.testing.assert_close(reduced(x.bfloat16()).float(), expected(layer, x), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}])
def test_weights_that_an_optimiser_has_changed_are_prepared_anew(options):
    layer, x = layer_and_input(8, 12, 3)
    with torch.inference_mode():
        layer(x)
    layer(x).square().sum().backward()
    torch.optim.Adam(layer.parameters(), 0.1, **options).step()
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), expected(layer, x))
