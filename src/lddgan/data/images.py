"""One image: encoded bytes -> PIL image in one of three modes -> square of a given side."""

from __future__ import annotations

import functools
import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
CHANNELS = {mode: channels for channels, mode in MODES.items()}


class BrokenImage(Exception):
    """Bytes that are no readable image; the message is the reason, without the name of the image."""


def decode_image(data: bytes) -> Image.Image:
    """Decode the bytes of an image file into mode L, RGB or RGBA, upright (EXIF orientation applied).

    Only the first frame of an animation is taken. 16-bit grey is scaled to 8 bits; a palette, an LA image or
    a transparent colour key becomes RGBA where it carries transparency, else RGB (grey stays grey).

    Raises:
        BrokenImage: not an image, truncated, or so large that it may be a decompression bomb.
    """
    image = _open(data)
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
        return _to_three_modes(image)
    except Exception as error:  # decoders of damaged files raise nearly anything: OSError, SyntaxError, struct.error
        raise BrokenImage(_reason(error)) from error


def read_header(data: bytes) -> tuple[int, int, int]:
    """Width, height (both upright) and channels of an encoded image, from its header alone.

    Raises:
        BrokenImage: as `decode_image`, as far as the header shows it.
    """
    image = _open(data)
    try:
        width, height = image.size
        if image.getexif().get(0x0112, 1) in (5, 6, 7, 8):  # orientations that lie on their side
            width, height = height, width
        return width, height, CHANNELS[_mode_after_decoding(image)]
    except Exception as error:
        raise BrokenImage(_reason(error)) from error


def _open(data: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=_formats())
    except Exception as error:
        raise BrokenImage(_reason(error)) from error


@functools.cache
def _formats() -> list[str]:
    """All that Pillow reads, but PostScript: for that it would start another program on what a file says."""
    Image.init()
    return [name for name in Image.ID if name != "EPS"]


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no known image format"
    if isinstance(error, (Image.DecompressionBombWarning, Image.DecompressionBombError)):
        return "more pixels than is safe to decode, it may be a decompression bomb"
    return (str(error) or type(error).__name__).rstrip(".")


def _mode_after_decoding(image: Image.Image) -> str:
    mode = image.mode
    if "transparency" in image.info or mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        return "RGBA"
    return "L" if mode in ("1", "L", "F") or mode.startswith("I") else "RGB"


def _to_three_modes(image: Image.Image) -> Image.Image:
    mode = _mode_after_decoding(image)
    if image.mode == mode:
        return image
    if image.mode.startswith("I"):  # 16-bit grey; PIL's own conversion would clip it at 255
        grey = np.rint(np.asarray(image, dtype=np.float64) / 257)
    elif image.mode == "F":  # float grey: 0..1 by convention, else taken as 0..255
        grey = np.nan_to_num(np.asarray(image, dtype=np.float64))
        grey = np.rint(grey * 255 if grey.min() >= 0 and grey.max() <= 1 else grey)
    else:
        if image.mode in ("La", "RGBa"):  # premultiplied: PIL converts each only to its plain twin
            image = image.convert(image.mode.upper())
        return image.convert(mode)
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert(mode)


def to_channels(image: Image.Image, channels: int) -> Image.Image:
    """Convert a mode L, RGB or RGBA image to 1, 3 or 4 channels; transparency is laid over white when it goes."""
    mode = MODES[channels]
    if image.mode == mode:
        return image
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image).convert("RGB")
    return image.convert(mode)


def square(image: Image.Image, side: int) -> Image.Image:
    """Centre-crop to the largest square and resize to `side`.

    Reducing uses Lanczos, whose support grows with the factor (antialiased); enlarging uses bicubic. Colour is
    weighted by alpha, so that the colour behind transparent pixels does not bleed.
    """
    width, height = image.size
    crop = min(width, height)
    if width != height:
        left, top = (width - crop) // 2, (height - crop) // 2
        image = image.crop((left, top, left + crop, top + crop))
    if crop == side:
        return image
    return image.resize((side, side), Image.Resampling.LANCZOS if crop > side else Image.Resampling.BICUBIC)
