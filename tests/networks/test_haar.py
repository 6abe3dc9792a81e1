from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lddgan.networks.haar import haar, inverse_haar


def test_one_block_by_hand():
    bands = haar(torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]]))
    torch.testing.assert_close(bands.flatten(), torch.tensor([11.0, -3.0, -5.0, 1.0]) / 2)


@given(
    batch=st.integers(1, 3), channels=st.integers(1, 5), height=st.integers(1, 7), width=st.integers(1, 7),
    seed=st.integers(0, 2**31),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_reconstructs_every_even_shape_and_keeps_lengths(batch, channels, height, width, seed):
    x = torch.randn(batch, channels, 2 * height, 2 * width, generator=torch.Generator().manual_seed(seed))
    bands = haar(x)
    assert bands.shape == (batch, 4 * channels, height, width)
    torch.testing.assert_close(inverse_haar(bands), x, rtol=0, atol=1e-6)
    torch.testing.assert_close(bands.square().sum(), x.square().sum(), rtol=1e-5, atol=0)


def test_a_band_holds_all_channels():
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(haar(x)[:, 3:6], torch.cat([haar(x[:, i : i + 1])[:, 1:2] for i in range(3)], 1))


@pytest.mark.parametrize("shape", [(3, 4), (4, 5)])
def test_refuses_odd_sides(shape):
    with pytest.raises(ValueError, match=f"{shape[0]}x{shape[1]}"):
        haar(torch.zeros(1, 1, *shape))
