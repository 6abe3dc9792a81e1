"""`Pipeline`: a trained model, from seeds to images."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from lddgan import editing
from lddgan.config import Config
from lddgan.config_parts import Precision
from lddgan.data.latents import to_uint8, to_unit_range
from lddgan.diffusion.sampler import sample
from lddgan.diffusion.schedule import Schedule
from lddgan.drawer import ENGINES, Drawer
from lddgan.drawing import WholeSampler, in_bfloat16, stacked
from lddgan.errors import UserError
from lddgan.models import Generator, is_ours, load_model, resolve_folder, save_model
from lddgan.runtime.device import fast_bfloat16, resolve_device
from lddgan.runtime.parallel import world
from lddgan.runtime.seeds import image_draws
from lddgan.spaces.space import Space

BATCH = 64
"""Images that are worked on at once."""
PRECISIONS = get_args(Precision)


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
        self._drawer: Drawer | None = None
        self._engine = "auto"
        self.precision = "auto"

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: str = "auto", decoder: str | None = None, engine: str = "auto",
        precision: str = "auto",
    ) -> Pipeline:  # fmt: skip
        """Read a model folder, a run folder, or a model that ships with the package or lies on the hub, by name.

        Args:
            folder: a folder, the name of a shipped model, or `owner/model` of the hub, which is only asked where there
                is no such folder; nothing but weights and the config is fetched.
            decoder: "slim" or "full"; None takes the slim one where there is one.
            engine, precision: as the properties of these names.

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
        pipe.precision = precision
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
        before = self.space.decoder
        self.space.decoder = name
        if name != before:
            self._changed()

    @property
    def precision(self) -> str:
        """What drawing computes in: "float32", "bfloat16", or "auto", the latter where the chip is fast at it.

        ONNX Runtime has float32 alone. Only samples are drawn so; encoding and editing are always float32.

        Raises:
            UserError: another name.
        """
        return self._precision

    @precision.setter
    def precision(self, name: str) -> None:
        if name not in PRECISIONS:
            raise UserError(f"there is no precision '{name}': choose one of {', '.join(PRECISIONS)}")
        self._precision = name
        self._changed()

    @property
    def drawn_in(self) -> str:
        """What `precision` comes to on this device and with this engine: "float32" or "bfloat16"."""
        reduced = self._precision == "bfloat16" or (self._precision == "auto" and fast_bfloat16(self.device))
        return "bfloat16" if reduced and self._engine != "onnx" else "float32"

    @property
    def engine(self) -> str:
        """What samples are drawn by. It can be set.

        - "torch": eager, and on a GPU one CUDA graph for each batch size;
        - "compiled": a program of torch's compiler for each batch size, which takes minutes once and is kept (CPU);
        - "onnx": ONNX Runtime (CPU, extra `export`), which takes minutes once and is kept;
        - "auto": torch, but a compiled program where one is there, or where compiling saves more than it takes.

        Another engine's images are those of torch to within one grey level (in bfloat16 to within one on average),
        which is looked at whenever one is loaded.

        Raises:
            UserError: another name, no such engine here, or one that draws other images.
        """
        return self._engine

    @engine.setter
    def engine(self, name: str) -> None:
        if name not in ENGINES:
            raise UserError(f"there is no engine '{name}': choose one of {', '.join(ENGINES)}")
        if name in ("compiled", "onnx") and self.device.type != "cpu":
            raise UserError(
                f"the engine {name} draws on the CPU, not on {self.device.type}: add --device cpu, or leave it out"
            )
        self._engine = name
        try:
            self._changed()
        except UserError:
            self._engine = "torch"
            raise

    def _changed(self) -> None:
        """Decoder, precision or engine is another; what draws is made at the first draw, for it may copy weights."""
        self._drawer = None
        if self._engine == "onnx":  # it has to be looked at now
            self._drawer = self._make_drawer()

    def _make_drawer(self) -> Drawer:
        generator, space = self.generator, self.space
        if self.drawn_in == "bfloat16":
            generator, space = in_bfloat16(generator, space)
        return Drawer(WholeSampler(self.config, generator, space, self.schedule), self.device, self._engine)

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

        Where several processes draw (`lddgan.runtime.parallel`), a batch of each, and all of them get all images.

        Raises:
            UserError: `n` or `batch` is not positive.
        """
        if n < 1 or batch < 1:
            raise UserError(f"cannot draw {n} images in batches of {batch}: give positive numbers")
        everyone = world()
        side, channels = self.config.images.resolution, self.config.images.channels
        step = batch * everyone.size
        for first in range(0, n, step):
            started = time.perf_counter()
            count = min(step, n - first)
            own = everyone.share(count)
            images = np.empty((0, side, side, channels), np.uint8)
            if own:
                images = self.draw(range(first + own.start, first + own.stop), seed)
            seconds = time.perf_counter() - started
            yield everyone.gathered(torch.from_numpy(images), count).numpy()
            if first > 0 and self._drawer is not None:
                self._drawer.compile_where_it_pays(batch, seconds * (n - first - step) / step)

    @torch.inference_mode()
    def draw(self, indices: range | list[int], seed: int = 0) -> np.ndarray:
        """Draw the images `indices` of `seed` as one batch: uint8 `[len(indices), H, W, C]`."""
        if self._drawer is None:
            self._drawer = self._make_drawer()
        return self._drawer(*stacked(*self._draws(seed, indices))).cpu().numpy()

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
