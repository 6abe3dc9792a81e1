"""`Pipeline`: a trained model, from seeds to images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lddgan import editing
from lddgan.config import Config
from lddgan.data.latents import to_uint8, to_unit_range
from lddgan.diffusion.sampler import sample
from lddgan.diffusion.schedule import Schedule
from lddgan.errors import UserError
from lddgan.models import Generator, is_ours, load_model, resolve_folder, save_model
from lddgan.runtime.device import resolve_device
from lddgan.runtime.seeds import image_draws
from lddgan.spaces.space import Space

BATCH = 64
"""Images that are worked on at once."""
ENGINES = ("torch", "onnx")


class Pipeline:
    """Draws images: `pipe(n, seed=0)` gives uint8 `[n, H, W, C]`.

    Image i of seed s is the same for any batch size and order: its noise bit for bit, its pixels in float32 to within
    one level of rounding.
    """

    def __init__(self, config: Config, space: Space, generator: Generator, device: str = "auto") -> None:
        self.config, self.device = config, resolve_device(device)
        self.origin: Path | None = None
        self.space = space.to(self.device).to(memory_format=torch.channels_last).eval()
        self.generator = generator.to(self.device).to(memory_format=torch.channels_last).eval()
        diffusion = config.diffusion
        schedule = Schedule(diffusion.num_steps, diffusion.beta_min, diffusion.beta_max)
        schedule.coef_x0[0] *= config.sample_gain  # the last step gives x_0 itself
        self.schedule = schedule.to(self.device)
        self._engine: Callable[[editing.Draws], np.ndarray] | None = None

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: str = "auto", decoder: str | None = None, engine: str = "torch"
    ) -> Pipeline:
        """Read a model folder, a run folder, or a model that ships with the package or lies on the hub, by name.

        Args:
            folder: a folder, the name of a shipped model, or `owner/model` of the hub, which is only asked where there
                is no such folder; nothing but weights and the config is fetched.
            decoder: "slim" or "full"; None takes the slim one where there is one.
            engine: as the property of that name.

        Raises:
            UserError: there is no such model, a file of it is missing or damaged, or it has no such decoder; the engine
                is not to be had here.
        """
        if not Path(folder).exists() and not is_ours(folder) and "/" in str(folder):
            from lddgan import sharing  # here, because with it comes all that trains, a second of imports

            if sharing.HUB_NAME.fullmatch(str(folder)):
                folder = sharing.fetch(str(folder))
        pipe = cls(*load_model(folder), device=device)
        pipe.origin = resolve_folder(folder)
        if decoder is not None:
            pipe.decoder = decoder
        pipe.engine = engine
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
        self.engine = self.engine  # it has the decoder inside

    @property
    def engine(self) -> str:
        """What samples are drawn by: "torch", or "onnx" for ONNX Runtime on the CPU (extra `export`). It can be set.

        A model's first time with ONNX Runtime takes a minute or two, for its export, which is kept. The images are
        those of torch to within one grey level, which is looked at whenever it is set.

        Raises:
            UserError: another name, no such engine here, or one that draws other images.
        """
        return "torch" if self._engine is None else "onnx"

    @engine.setter
    def engine(self, name: str) -> None:
        if name not in ENGINES:
            raise UserError(f"there is no engine '{name}': choose one of {', '.join(ENGINES)}")
        self._engine = None
        if name == "onnx":
            from lddgan.export.engine import load_engine

            self._engine = load_engine(self)

    def save_pretrained(
        self, folder: str | Path, dtype: torch.dtype = torch.float32, *, drawing_only: bool = False
    ) -> None:
        """Write a model folder that `from_pretrained` reads.

        Args:
            drawing_only: leave the autoencoder out where there is a slim decoder: what is left draws, and no more.
        """
        save_model(folder, self.config, self.space, self.generator, dtype, drawing_only)

    def push_to_hub(self, name: str, *, private: bool = False, licence: str = "apache-2.0", half: bool = True) -> str:
        """Upload the model as `owner/model`, with samples and a card written from the run; returns the address.

        Args:
            licence: of the weights, as the hub spells it.
            half: in float16, which halves its size.

        Raises:
            UserError: huggingface_hub is not installed, the name is none, or the hub refuses.
        """
        from lddgan import sharing

        return sharing.push(self, name, private=private, licence=licence, half=half)

    def __call__(self, n: int, seed: int = 0, batch: int = BATCH) -> np.ndarray:
        """Draw images 0 .. n - 1 of `seed`: uint8 `[n, H, W, C]`."""
        return np.concatenate(list(self.stream(n, seed, batch)))

    def stream(self, n: int, seed: int = 0, batch: int = BATCH) -> Iterator[np.ndarray]:
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
        draws = self._draws(seed, indices)
        if self._engine is not None:
            return self._engine(draws)
        x_0 = sample(self.generator, self.schedule, *draws)
        return to_uint8(self.space.decode(x_0)).cpu().numpy()

    @torch.inference_mode()
    def encode(self, images: np.ndarray) -> Tensor:
        """Images, uint8 `[n, H, W, C]` of the model's size, to x_0 `[n, Z, r, r]`.

        Raises:
            UserError: images of another size, number of channels or type.
        """
        side, channels = self.config.images.resolution, self.config.images.channels
        fits = images.ndim == 4 and images.shape[1:] == (side, side, channels) and len(images) > 0
        if images.dtype != np.uint8 or not fits:
            raise UserError(
                f"this model takes uint8 images [n, {side}, {side}, {channels}], not {images.dtype} "
                f"{list(images.shape)}: crop and resize them first"
            )
        parts = torch.from_numpy(np.ascontiguousarray(images)).split(BATCH)
        return torch.cat([self.space.encode(to_unit_range(part).to(self.device)) for part in parts])

    @torch.inference_mode()
    def decode(self, x_0: Tensor) -> np.ndarray:
        """x_0 `[n, Z, r, r]` to images, uint8 `[n, H, W, C]`."""
        return torch.cat([to_uint8(self.space.decode(part)) for part in x_0.to(self.device).split(BATCH)]).cpu().numpy()

    @torch.inference_mode()
    def interpolate(self, seed_a: int, seed_b: int, n: int) -> np.ndarray:
        """`n` images, uint8 `[n, H, W, C]`, from image 0 of `seed_a` to image 0 of `seed_b`.

        Start noise, every z and the noise between the steps go along spheres.

        Raises:
            UserError: fewer than two images.
        """
        if n < 2:
            raise UserError(f"cannot go from one image to another in {n}: ask for at least 2")
        frames = []
        for shares in torch.linspace(0, 1, n, device=self.device).split(BATCH):
            a, b = (self._draws(seed, [0] * len(shares)) for seed in (seed_a, seed_b))
            frames.append(sample(self.generator, self.schedule, *editing.morph(a, b, shares)))
        return self.decode(torch.cat(frames))

    @torch.inference_mode()
    def vary(self, images: np.ndarray, strength: float, seed: int = 0) -> np.ndarray:
        """Variations of `images` (as `encode` takes them): noised part of the way and denoised again.

        Image i takes the noise of image i of `seed`. With T steps there are T + 1 strengths, the nearest is taken.

        Args:
            strength: 0 gives the reconstruction, 1 a fresh sample, which is image i of `seed`.

        Raises:
            UserError: images as in `encode`, or a strength outside [0, 1].
        """
        try:
            step = editing.start_step(strength, self.schedule.num_steps)
        except ValueError as error:
            raise UserError(f"{error}: 0 keeps the image, 1 draws another") from None
        x_0, parts = self.encode(images), []
        for rows in torch.arange(len(x_0)).split(BATCH):
            draws = self._draws(seed, rows.tolist())
            parts.append(editing.vary(self.generator, self.schedule, x_0[rows], draws, step))
        return self.decode(torch.cat(parts))

    @torch.inference_mode()
    def fill(self, images: np.ndarray, mask: np.ndarray, seed: int = 0) -> np.ndarray:
        """`images` (as `encode` takes them) with the pixels under `mask` drawn anew to go with the others, which stay.

        Args:
            mask: bool `[H, W]`, or `[n, H, W]` with one for each image; True is drawn.

        Raises:
            UserError: images as in `encode`; a mask of another size or type.
        """
        x_0 = self.encode(images)
        if mask.dtype != np.bool_ or mask.shape not in (images.shape[:3], images.shape[1:3]):
            raise UserError(
                f"the mask is {mask.dtype} {list(mask.shape)}: give bool {list(images.shape[1:3])}, the images' size"
            )
        masks = torch.from_numpy(np.broadcast_to(mask, images.shape[:3]).copy())
        unknown, parts = editing.unknown_places(masks, self.config.space_shape[1]).to(self.device), []
        for rows in torch.arange(len(x_0)).split(BATCH):
            draws = self._draws(seed, rows.tolist())
            parts.append(editing.fill(self.generator, self.schedule, x_0[rows], unknown[rows], draws))
        # What a place of x_0 stands for is larger than a pixel, and decoding blurs: known pixels are put back.
        return np.where(masks.numpy()[..., None], self.decode(torch.cat(parts)), images)

    def _draws(self, seed: int, indices: Sequence[int]) -> editing.Draws:
        shape, latent_dim = self.config.space_shape, self.config.generator.latent_dim
        return image_draws(seed, indices, shape, latent_dim, self.schedule.num_steps, self.device)
