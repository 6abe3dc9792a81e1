"""The Haar transform of 2x2 blocks: orthonormal, its own transpose the inverse.

Letters: B batch, C channels, H and W pixels. Bands are concatenated over channels in the order LL, LH, HL, HH: the
block's sum, its differences along the row, along the column, and across, each halved (facts in Phung et al. 2023).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def haar(x: Tensor) -> Tensor:
    """`[B, C, H, W]` (H, W even) to its bands `[B, 4 C, H / 2, W / 2]`.

    Raises:
        ValueError: a side is odd.
    """
    if x.shape[2] % 2 or x.shape[3] % 2:
        raise ValueError(f"a {x.shape[2]}x{x.shape[3]} map has no 2x2 blocks: its sides must be even")
    top, bottom = 0.5 * x[:, :, ::2], 0.5 * x[:, :, 1::2]  # [B, C, H / 2, W] each
    total, fall = top + bottom, top - bottom
    return torch.cat(
        [
            total[..., ::2] + total[..., 1::2],
            total[..., ::2] - total[..., 1::2],
            fall[..., ::2] + fall[..., 1::2],
            fall[..., ::2] - fall[..., 1::2],
        ],
        dim=1,
    )


def inverse_haar(bands: Tensor) -> Tensor:
    """Bands `[B, 4 C, H, W]` back to `[B, C, 2 H, 2 W]`."""
    ll, lh, hl, hh = (0.5 * bands).chunk(4, dim=1)
    left_top, right_top, left_bottom, right_bottom = ll + hl, lh + hh, ll - hl, lh - hh
    pixels = [left_top + right_top, left_top - right_top, left_bottom + right_bottom, left_bottom - right_bottom]
    return F.pixel_shuffle(torch.stack(pixels, dim=2).flatten(1, 2), 2)  # a pixel of the block is the fastest channel
