"""The space of DDGAN: the pixels themselves."""

from __future__ import annotations

from torch import Tensor

from lddgan.spaces.space import Space


class PixelSpace(Space):
    """x_0 is the image in [-1, 1]."""

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, x_0: Tensor) -> Tensor:
        return x_0
