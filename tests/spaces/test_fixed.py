from __future__ import annotations

import pytest
import torch

from lddgan.errors import UserError
from lddgan.spaces.pixels import PixelSpace
from lddgan.spaces.wavelet import WaveletSpace


def test_pixels_are_what_they_are():
    images = torch.randn(2, 3, 5, 7)  # any shape
    assert torch.equal(PixelSpace().encode(images), images) and torch.equal(PixelSpace().decode(images), images)


@pytest.mark.parametrize("shape", [(2, 2), (6, 10), (32, 32)])
def test_bands_lie_where_pixels_do_and_give_them_back(shape):
    space, images = WaveletSpace(), torch.rand(3, 3, *shape) * 2 - 1
    images[0] = 1
    x_0 = space.encode(images)
    assert x_0.shape == (3, 12, shape[0] // 2, shape[1] // 2) and x_0.abs().max() == 1
    torch.testing.assert_close(x_0[0], torch.eye(4)[0].repeat_interleave(3).view(12, 1, 1).expand_as(x_0[0]))
    torch.testing.assert_close(space.decode(x_0), images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 4), (4, 7)])
def test_an_odd_side_has_no_bands(shape):
    with pytest.raises(ValueError, match="its sides must be even"):
        WaveletSpace().encode(torch.zeros(1, 3, *shape))


@pytest.mark.parametrize("kind", [PixelSpace, WaveletSpace])
def test_there_is_no_decoder_to_choose(kind):
    space = kind()
    assert space.decoder == "full" and space.networks() == {} and not space.state_dict()
    space.decoder = "full"
    with pytest.raises(UserError, match="draws without a decoder, there is none called 'slim'"):
        space.decoder = "slim"
