"""What the page can do, without the page: bounded, and with a sentence for every bad input."""

from __future__ import annotations

import base64
import io
import math
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lddgan.data.images import BrokenImage, decode_image, read_header, square, to_channels
from lddgan.errors import UserError
from lddgan.pipeline import Pipeline
from lddgan.reports.grid import image_grid
from lddgan.reports.writers import png

MAX_COUNT, MAX_FRAMES, MAX_VARIATIONS = 2048, 64, 16
MAX_PIXELS_DRAWN = 2**23
"""Of all images of a call: fewer of them where they are large."""
MAX_UPLOAD, MAX_UPLOAD_PIXELS = 20 * 2**20, 16 * 10**6
"""Bytes and pixels of an upload."""
MAX_SEED = 2**31 - 1
TILE = 640
"""Width of a sheet of images in the page, in pixels, about."""
SHEET_SECONDS = 0.5
"""Sheets are made larger until one takes about so long: an image costs least in a large batch."""
FIRST_SHEET, LARGEST_SHEET = 16, 256


@dataclass(frozen=True)
class Sheet:
    """Images that were drawn together, and how fast it goes since the first."""

    images: np.ndarray
    drawn: int
    seconds: float

    @property
    def figures(self) -> str:
        each = self.seconds / self.drawn
        return f"{self.drawn} images, {1 / each:,.0f} a second, {1e3 * each:.2f} ms each"


def draw(pipe: Pipeline, seed: int, count: int) -> Iterator[Sheet]:
    """Images 0 .. `count` - 1 of `seed`, in sheets that grow until one takes `SHEET_SECONDS`.

    Raises:
        UserError: a seed or a count out of bounds.
    """
    _whole("seed", seed, 0, MAX_SEED)
    _whole("count", count, 1, max(1, min(MAX_COUNT, MAX_PIXELS_DRAWN // pipe.config.images.resolution**2)))
    started, first, size = time.perf_counter(), 0, FIRST_SHEET
    while first < count:
        begun = time.perf_counter()
        images = pipe.draw(range(first, min(first + size, count)), seed)
        first += len(images)
        yield Sheet(images, first, time.perf_counter() - started)
        if time.perf_counter() - begun < SHEET_SECONDS:
            size = min(2 * size, LARGEST_SHEET)


def morph(pipe: Pipeline, seed_a: int, seed_b: int, frames: int) -> np.ndarray:
    """Images from one seed to another.

    Raises:
        UserError: a seed or a number of frames out of bounds.
    """
    for name, seed in (("first seed", seed_a), ("second seed", seed_b)):
        _whole(name, seed, 0, MAX_SEED)
    _whole("number of frames", frames, 2, MAX_FRAMES)
    return pipe.interpolate(int(seed_a), int(seed_b), int(frames))


def vary(pipe: Pipeline, image: np.ndarray, strength: float, seed: int, count: int) -> np.ndarray:
    """`count` variations of one image, uint8 `[H, W, C]` of the model's size.

    Raises:
        UserError: a value out of bounds, or a model that cannot encode.
    """
    _whole("seed", seed, 0, MAX_SEED)
    _whole("count", count, 1, MAX_VARIATIONS)
    return pipe.vary(np.stack([image] * count), strength, seed)


def fill(pipe: Pipeline, image: np.ndarray, mask: np.ndarray, seed: int, count: int) -> np.ndarray:
    """`count` ways to fill in what `mask` (bool `[H, W]`) covers of one image.

    Raises:
        UserError: a value out of bounds, a mask of another size or without a pixel, or a model that cannot encode.
    """
    _whole("seed", seed, 0, MAX_SEED)
    _whole("count", count, 1, MAX_VARIATIONS)
    if not mask.any():
        raise UserError("nothing is painted over: paint what the model shall fill in")
    return pipe.fill(np.stack([image] * count), mask, seed)


def read_upload(pipe: Pipeline, path: str | Path | None) -> np.ndarray:
    """An uploaded file as the model takes it: cropped to its centre square and resized, uint8 `[H, W, C]`.

    Raises:
        UserError: too large, or no readable image.
    """
    image = _decoded(path)
    side, channels = pipe.config.images.resolution, pipe.config.images.channels
    return np.asarray(square(to_channels(image, channels), side)).reshape(side, side, channels)


def read_mask(pipe: Pipeline, path: str | Path | None, beside: str | Path) -> np.ndarray:
    """A mask for `beside`, which `read_upload` has read, bool `[R, R]` of the model's size: where it is bright.

    Raises:
        UserError: as `read_upload`; it has another size than the upload.
    """
    mask = _decoded(path)
    width, height, _ = read_header(Path(beside).read_bytes())
    if mask.size != (width, height):
        raise UserError(
            f"the mask has {mask.width}x{mask.height} pixels and the image {width}x{height}: give one of its size"
        )
    return np.asarray(square(to_channels(mask, 1), pipe.config.images.resolution)) > 127


def _decoded(path: str | Path | None) -> Image.Image:
    if not path:
        raise UserError("there is no image: upload one or draw one")
    path = Path(path)
    if path.stat().st_size > MAX_UPLOAD:
        raise UserError(f"'{path.name}' is larger than {MAX_UPLOAD // 2**20} MB: upload a smaller image")
    try:
        data = path.read_bytes()
        width, height, _ = read_header(data)
        if width * height > MAX_UPLOAD_PIXELS:
            raise BrokenImage(f"{width}x{height} pixels, more than {MAX_UPLOAD_PIXELS:,}")
        image = decode_image(data)
    except BrokenImage as error:
        raise UserError(f"'{path.name}' is not a readable image ({error}): upload another") from None
    if min(image.size) < 8:
        raise UserError(f"'{path.name}' is {image.width}x{image.height} pixels, too small: upload a larger image")
    return image


def painted(layers: list[np.ndarray], side: int) -> np.ndarray:
    """Bool `[side, side]`: where any layer (RGBA `[h, w, 4]`) is painted on, at the model's size."""
    mask = np.zeros((side, side), bool)
    for layer in layers:
        alpha = Image.fromarray(np.ascontiguousarray(layer[..., 3]))
        mask |= np.asarray(alpha.resize((side, side), Image.Resampling.BOX)) > 127
    return mask


def enlarge(image: np.ndarray, width: int = TILE // 2) -> np.ndarray:
    """An image `[H, W, C]` enlarged by a whole factor to about `width`, to be painted on: RGB `[h, w, 3]`."""
    times = max(1, width // image.shape[1])
    large = image.repeat(times, 0).repeat(times, 1)[..., :3]
    return large if large.shape[2] == 3 else large.repeat(3, 2)


def sheet_html(images: np.ndarray, alt: str, width: int = TILE) -> str:
    """One `<img>` of all images side by side, `width` pixels wide, which holds its own pixels; each stays a square."""
    side = images.shape[1]
    columns = max(1, min(len(images), TILE // max(side, 40)))
    buffer = io.BytesIO()
    image_grid(images, columns, scale=1, padding=1).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<img alt="{alt}" data-images="{len(images)}" src="data:image/png;base64,{data}" '
        f'style="width:{width}px;max-width:100%;image-rendering:pixelated">'
    )


def write_zip(images: np.ndarray, path: Path) -> Path:
    """All images as PNGs in a zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number, image in enumerate(images):
            archive.writestr(f"{number:05d}.png", png(image))
    return path


def write_gif(frames: np.ndarray, path: Path, milliseconds: int = 60) -> Path:
    """A loop there and back, each frame enlarged."""
    loop = [Image.fromarray(enlarge(frame)) for frame in [*frames, *frames[-2:0:-1]]]
    loop[0].save(path, save_all=True, append_images=loop[1:], duration=milliseconds, loop=0)
    return path


def _whole(name: str, value: float | None, least: int, most: int) -> None:
    if value is None:
        raise UserError(f"the {name} is empty: give a whole number from {least} to {most}")
    if isinstance(value, bool) or not math.isfinite(value) or value != int(value) or not least <= value <= most:
        raise UserError(f"the {name} {value} is not a whole number from {least} to {most}: give another")
