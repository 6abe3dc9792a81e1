"""What the diffusion runs on: a map from images to x_0, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from lddgan.errors import UserError


class Space(nn.Module, ABC):
    """A space of x_0; B batch, C channels and R side of images, Z channels and r side of x_0."""

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Images `[B, C, R, R]` in [-1, 1] to x_0 `[B, Z, r, r]`."""

    @abstractmethod
    def decode(self, x_0: Tensor) -> Tensor:
        """x_0 `[B, Z, r, r]` to images `[B, C, R, R]`, about [-1, 1]."""

    def networks(self) -> dict[str, nn.Module]:
        """Its networks by name (`encoder`, `decoder`, `slim_decoder`); a fixed transform has none."""
        return {}

    @property
    def decoders(self) -> tuple[str, ...]:
        """Those that `decoder` can be set to, the usual one first."""
        return ("full",)

    @property
    def decoder(self) -> str:
        """Which decoder `decode` takes, "slim" or "full"."""
        return "full"

    @decoder.setter
    def decoder(self, name: str) -> None:
        if name != "full":
            raise UserError(f"this model draws without a decoder, there is none called '{name}': leave it out")
