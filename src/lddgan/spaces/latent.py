"""The space of LDDGAN: the latent of an autoencoder, normalised by measured statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lddgan.autoencoder.model import Autoencoder
from lddgan.autoencoder.slim import SlimDecoder
from lddgan.errors import UserError
from lddgan.interop.diffusers import DiffusersAutoencoder
from lddgan.spaces.space import Space

DECODERS = ("slim", "full")


class LatentSpace(Space):
    """Images to normalised latents and back, by the autoencoder's own ("full") or by a slim decoder.

    `x_0 = (encode(images) - mean) / std` per channel; mean and std are measured on the training set
    (`lddgan.data.latents`) and travel with the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, autoencoder: Autoencoder | DiffusersAutoencoder, slim_decoder: SlimDecoder | None = None
    ) -> None:
        super().__init__()
        self.autoencoder, self.slim_decoder = autoencoder, slim_decoder
        self._decoder: str | None = None
        self.drawing_only = False
        """It came without the autoencoder's weights: only the slim decoder can be used."""
        self.register_buffer("mean", torch.zeros(autoencoder.latent_channels))
        self.register_buffer("std", torch.ones(autoencoder.latent_channels))

    def networks(self) -> dict[str, nn.Module]:
        own: dict[str, nn.Module] = {"encoder": self.autoencoder.encoder, "decoder": self.autoencoder.decoder}
        return own | ({} if self.slim_decoder is None else {"slim_decoder": self.slim_decoder})

    @property
    def decoders(self) -> tuple[str, ...]:
        return (() if self.slim_decoder is None else ("slim",)) + (() if self.drawing_only else ("full",))

    @property
    def decoder(self) -> str:
        """Which decoder `decode` takes: the slim one where there is one, unless it was set to "full"."""
        return self._decoder or self.decoders[0]

    @decoder.setter
    def decoder(self, name: str) -> None:
        if name not in DECODERS:
            raise UserError(f"there is no decoder '{name}': take slim or full")
        if name == "slim" and self.slim_decoder is None:
            raise UserError("this model has no slim decoder: take full, or train one with lddgan train --stage decoder")
        if name == "full" and self.drawing_only:
            raise UserError("this model was saved for drawing only, it has no full decoder: take slim")
        self._decoder = name

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Take the latent's mean and standard deviation per channel, both `[Z]`.

        Raises:
            UserError: a channel is dead (its deviation is 0, or not finite).
        """
        dead = ~(std.isfinite() & (std > 1e-6 * std.nan_to_num().max()))
        if bool(dead.any()):
            raise UserError(
                f"channel {int(dead.nonzero()[0])} of the latent is dead (deviation {std[dead][0].item():.3g} over the "
                "training images): train the autoencoder anew with fewer autoencoder.latent_channels"
            )
        self.mean.copy_(mean)
        self.std.copy_(std)

    def channel_scale(self, std: Tensor) -> Tensor:
        """What each channel of deviation `std [Z]` is divided by: the autoencoder's choice, or its deviation."""
        return self.autoencoder.channel_scale(std) if isinstance(self.autoencoder, Autoencoder) else std

    def normalise(self, latent: Tensor) -> Tensor:
        """The autoencoder's latent `[B, Z, r, r]` to x_0 of unit scale."""
        return (latent - self.mean[:, None, None]) / self.std[:, None, None]

    def encode(self, images: Tensor) -> Tensor:
        if self.drawing_only:
            raise UserError("this model was saved for drawing only, it has no encoder: take the whole model")
        return self.normalise(self.autoencoder.encoder(images).float())

    def decode(self, x_0: Tensor) -> Tensor:
        if self.decoder == "slim":
            assert self.slim_decoder is not None
            return self.slim_decoder(x_0)
        return self.autoencoder.decoder(x_0 * self.std[:, None, None] + self.mean[:, None, None])
