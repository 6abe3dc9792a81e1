"""The space of WDDGAN: the Haar bands of the image (Phung et al. 2023)."""

from __future__ import annotations

from torch import Tensor

from lddgan.networks.haar import haar, inverse_haar
from lddgan.spaces.space import Space


class WaveletSpace(Space):
    """x_0 is the four bands of the image, halved, so that they lie in [-1, 1] as the image does.

    `encode` raises a ValueError for an odd side.
    """

    def encode(self, images: Tensor) -> Tensor:
        return haar(images) / 2

    def decode(self, x_0: Tensor) -> Tensor:
        return inverse_haar(2 * x_0)
