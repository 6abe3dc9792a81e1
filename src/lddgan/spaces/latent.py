"""The space of LDDGAN: the latent of an autoencoder, normalised by measured statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lddgan.autoencoder.model import Autoencoder


class LatentSpace(nn.Module):
    """Images to normalised latents and back.

    `x_0 = (encode(images) - mean) / std` per channel; mean and std are measured on the training set
    (`lddgan.data.latents`) and travel with the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.register_buffer("mean", torch.zeros(autoencoder.latent_channels))
        self.register_buffer("std", torch.ones(autoencoder.latent_channels))

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Take the latent's mean and standard deviation per channel, both `[Z]`."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def normalise(self, latent: Tensor) -> Tensor:
        """The autoencoder's latent `[B, Z, r, r]` to x_0 of unit scale."""
        return (latent - self.mean[:, None, None]) / self.std[:, None, None]

    def encode(self, images: Tensor) -> Tensor:
        """Images `[B, C, R, R]` in [-1, 1] to x_0 `[B, Z, r, r]`."""
        return self.normalise(self.autoencoder.encoder(images).float())

    def decode(self, x_0: Tensor) -> Tensor:
        """x_0 `[B, Z, r, r]` to images `[B, C, R, R]`, about [-1, 1]."""
        return self.autoencoder.decoder(x_0 * self.std[:, None, None] + self.mean[:, None, None])
