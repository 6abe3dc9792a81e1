"""The two things that stage 1's loop trains: the autoencoder, and a slim decoder for the latent it has settled on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn

from lddgan.autoencoder.measure import HeldOut
from lddgan.autoencoder.model import Autoencoder, TrainingPass
from lddgan.autoencoder.train import Task, train_reconstruction
from lddgan.config import Config
from lddgan.data.latents import Latents, to_unit_range
from lddgan.data.prepare import ImageSet
from lddgan.metrics.measured import evenly_spread
from lddgan.spaces.latent import LatentSpace

SHORTCUT_IMAGES = 5000
"""Training images that give a linear shortcut."""


def train_autoencoder(
    config: Config, autoencoder: Autoencoder, train: ImageSet, held_out: ImageSet, folder: Path, device: torch.device,
    initialised: bool = False,
) -> None:  # fmt: skip
    """Train `autoencoder` in place; arguments and errors as of `train_reconstruction`.

    Args:
        initialised: it comes with trained weights, so its linear shortcut stays as it is.
    """

    def forward(
        network: nn.Module, images: Tensor, indices: Tensor, flips: Tensor, random: torch.Generator
    ) -> TrainingPass:
        assert isinstance(network, Autoencoder)
        noise = torch.randn(len(images), *config.space_shape, generator=random)  # of a KL latent
        return network.training_pass(images, noise.to(images.device))

    def prepare() -> None:
        if not initialised:
            some = train.batch(evenly_spread(len(train), SHORTCUT_IMAGES))
            autoencoder.fit_shortcut(to_unit_range(some).to(device))

    task = Task(
        name="stage1", title="stage 1", network=autoencoder, forward=forward, last_layer=autoencoder.last_layer,
        held_out=HeldOut(held_out, lambda network, images: network(images), "reconstructions.png"),
        quantiser=autoencoder.decoder.quantiser,
    )  # fmt: skip
    assert config.stage1 is not None
    train_reconstruction(config, config.stage1, task, train, folder, device, prepare)


def train_slim_decoder(
    config: Config, space: LatentSpace, latents: Latents, train: ImageSet, held_out: ImageSet, folder: Path,
    device: torch.device, initialised: bool = False,
) -> None:  # fmt: skip
    """Train the slim decoder of `space` in place, from cached latents: the encoder is not run but to measure.

    Its latents carry noise (`slim_decoder.noise`), because a generator's are not quite the encoder's. Arguments and
    errors as of `train_autoencoder`.
    """
    slim, decoder = config.slim_decoder, space.slim_decoder
    if slim is None or decoder is None or config.stage1 is None:
        raise ValueError("the config has no slim decoder to train")
    settings = dataclasses.replace(
        config.stage1, epochs=slim.epochs, learning_rate=slim.learning_rate,
        discriminator_start=slim.discriminator_start,
    )  # fmt: skip
    deviations = (latents.std / space.std.cpu())[:, None, None].to(device)

    def forward(
        network: nn.Module, images: Tensor, indices: Tensor, flips: Tensor, random: torch.Generator
    ) -> TrainingPass:
        x_0 = space.normalise(latents.at(indices, flips).to(device))
        amount = slim.noise * torch.rand(len(x_0), 1, 1, 1, generator=random).to(device)
        noise = torch.randn(x_0.shape, generator=random).to(device)
        return TrainingPass(network(x_0 + amount * deviations * noise), None, x_0, None)

    def prepare() -> None:
        if not initialised:
            some = torch.from_numpy(evenly_spread(len(train), SHORTCUT_IMAGES))
            x_0 = space.normalise(latents.at(some, torch.zeros(len(some), dtype=torch.bool)).to(device))
            decoder.fit_shortcut(x_0, to_unit_range(train.batch(some)).to(device))

    task = Task(
        name="decoder", title="the slim decoder", network=decoder, forward=forward, last_layer=decoder.last_layer,
        held_out=HeldOut(held_out, lambda network, images: network(space.encode(images)), "reconstructions-slim.png"),
    )  # fmt: skip
    train_reconstruction(config, settings, task, train, folder, device, prepare)
