"""The whole sampler as one network without Python around it: noise and z in, images out."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lddgan.autoencoder.model import Autoencoder
from lddgan.config import Config
from lddgan.data.latents import to_uint8
from lddgan.diffusion.schedule import Schedule
from lddgan.runtime.seeds import image_draws
from lddgan.spaces.latent import LatentSpace
from lddgan.spaces.space import Space


class WholeSampler(nn.Module):
    """Algorithm 1 and the decoder that draws, unrolled over the model's T steps.

    Args:
        schedule: with the model's sample gain in it.
    """

    times: Tensor

    def __init__(self, config: Config, generator: nn.Module, space: Space, schedule: Schedule) -> None:
        super().__init__()
        self.generator, self.space, self.num_steps = generator, space, schedule.num_steps
        coefficients = (schedule.coef_x0, schedule.coef_xt, schedule.posterior_std)
        self.steps = list(zip(*(values.tolist() for values in coefficients), strict=True))
        self.resolution, self.channels = config.images.resolution, config.images.channels
        self.shape, self.latent_dim = config.space_shape, config.generator.latent_dim
        self.register_buffer("times", torch.arange(self.num_steps, device=schedule.coef_x0.device), persistent=False)

    def forward(self, noise: Tensor, z: Tensor) -> Tensor:
        """Draw.

        Args:
            noise: standard normal `[B, T, Z, r, r]`: x_T, then what is added after each step but the last.
            z: standard normal `[B, T, nz]`, for t = T-1 .. 0.

        Returns:
            Images, uint8 `[B, H, W, C]`.
        """
        x = noise[:, 0]
        for k, t in enumerate(reversed(range(self.num_steps))):
            of_x_0, of_x, std = self.steps[t]
            # One t for all: what follows from it alone is a constant, which exporters compute once and for all.
            x = of_x_0 * self.generator(x, self.times[t : t + 1], z[:, k]) + of_x * x
            if t > 0:
                x = x + std * noise[:, k + 1]
        return to_uint8(self.space.decode(x))

    def inputs(self, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Noise and z of images 0 .. `count` - 1 of `seed`, as the pipeline draws them."""
        return stacked(*image_draws(seed, range(count), self.shape, self.latent_dim, self.num_steps))


def stacked(x_T: Tensor, steps: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """What `image_draws` gives as the two inputs of a `WholeSampler`: the posterior noise at t = 0 has no use."""
    noise = torch.stack([x_T, *(noise for _, noise in steps[:-1])], dim=1)
    return noise, torch.stack([z for z, _ in steps], dim=1)


def in_bfloat16(generator: nn.Module, space: Space) -> tuple[nn.Module, Space]:
    """Copies whose networks hold their weights in bfloat16; what goes in and comes out is float32 as before.

    A decoder with a codebook, and one of diffusers, stays as it is: a rounded latent would find other codes.
    """
    generator, space = copy.deepcopy((generator, space))
    parts = [generator]
    if isinstance(space, LatentSpace):
        if space.slim_decoder is not None:
            parts.append(space.slim_decoder)
        if isinstance(space.autoencoder, Autoencoder) and space.autoencoder.decoder.quantiser is None:
            parts.append(space.autoencoder.decoder)
    for part in parts:
        part.to(torch.bfloat16)
        part.register_forward_pre_hook(
            lambda _, given: tuple(x.bfloat16() if x.is_floating_point() else x for x in given)
        )
        part.register_forward_hook(lambda _, given, result: result.float())
    return generator, space


def levels_apart(ours: np.ndarray, theirs: np.ndarray) -> int:
    """The largest difference of two sets of uint8 images, in grey levels; 255 where their shapes differ."""
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return 255
    return int(np.abs(ours.astype(np.int16) - theirs.astype(np.int16)).max())
