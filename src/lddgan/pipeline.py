"""`Pipeline`: a trained model, from seeds to images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from lddgan.config import Config
from lddgan.data.latents import to_uint8
from lddgan.diffusion.sampler import sample
from lddgan.diffusion.schedule import Schedule
from lddgan.errors import UserError
from lddgan.models import Generator, load_model, save_model
from lddgan.runtime.device import resolve_device
from lddgan.runtime.seeds import image_draws
from lddgan.spaces.space import Space


class Pipeline:
    """Draws images: `pipe(n, seed=0)` gives uint8 `[n, H, W, C]`.

    Image i of seed s is the same for any batch size and order: its noise bit for bit, its pixels in float32 to within
    one level of rounding.
    """

    def __init__(self, config: Config, space: Space, generator: Generator, device: str = "auto") -> None:
        self.config, self.device = config, resolve_device(device)
        self.space = space.to(self.device).to(memory_format=torch.channels_last).eval()
        self.generator = generator.to(self.device).to(memory_format=torch.channels_last).eval()
        diffusion = config.diffusion
        self.schedule = Schedule(diffusion.num_steps, diffusion.beta_min, diffusion.beta_max).to(self.device)

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str = "auto", decoder: str | None = None) -> Pipeline:
        """Read a model folder, a run folder, or a model that ships with the package, by name.

        Args:
            decoder: "slim" or "full"; None takes the slim one where there is one.

        Raises:
            UserError: there is no such model, a file of it is missing or damaged, or it has no such decoder.
        """
        pipe = cls(*load_model(folder), device=device)
        if decoder is not None:
            pipe.decoder = decoder
        return pipe

    @property
    def decoder(self) -> str:
        """The decoder that draws: "slim" where the model has one, else "full". It can be set to either.

        Raises:
            UserError: another name, or "slim" of a model that has none.
        """
        return self.space.decoder

    @decoder.setter
    def decoder(self, name: str) -> None:
        self.space.decoder = name

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write a model folder that `from_pretrained` reads."""
        save_model(folder, self.config, self.space, self.generator, dtype)

    def __call__(self, n: int, seed: int = 0, batch: int = 64) -> np.ndarray:
        """Draw images 0 .. n - 1 of `seed`: uint8 `[n, H, W, C]`."""
        return np.concatenate(list(self.stream(n, seed, batch)))

    def stream(self, n: int, seed: int = 0, batch: int = 64) -> Iterator[np.ndarray]:
        """The same images, a batch at a time, so that memory stays flat.

        Raises:
            UserError: `n` or `batch` is not positive.
        """
        if n < 1 or batch < 1:
            raise UserError(f"cannot draw {n} images in batches of {batch}: give positive numbers")
        for first in range(0, n, batch):
            yield self.draw(range(first, min(first + batch, n)), seed)

    @torch.inference_mode()
    def draw(self, indices: range | list[int], seed: int = 0) -> np.ndarray:
        """Draw the images `indices` of `seed` as one batch: uint8 `[len(indices), H, W, C]`."""
        latent_dim = self.config.generator.latent_dim
        shape, num_steps = self.config.space_shape, self.schedule.num_steps
        x_0 = sample(
            self.generator, self.schedule, *image_draws(seed, indices, shape, latent_dim, num_steps, self.device)
        )
        return to_uint8(self.space.decode(x_0)).cpu().numpy()
