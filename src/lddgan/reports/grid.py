"""Grids of images: samples, reconstructions and contact sheets."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lddgan.errors import UserError
from lddgan.runtime.files import atomic_write

VISIBLE_SIDE = 48  # smaller images are enlarged to about this many pixels
CHECKER_SIDE = 8
BACKGROUND = 255


def image_grid(
    images: np.ndarray | torch.Tensor, columns: int | None = None, scale: int | None = None, padding: int = 2
) -> Image.Image:
    """Lay images out row by row on white.

    Args:
        images: uint8 `[N, H, W, C]` with C = 1 (grey), 3 (RGB) or 4 (RGBA, shown over a checkerboard), N >= 1.
        columns: images in a row; about the square root of N by default.
        scale: whole factor of enlargement (nearest neighbour); by default small images become about 48 px.
        padding: white pixels around and between the images.

    Returns:
        An image in mode L for grey, else RGB, `columns * (scale * W + padding) + padding` pixels wide.

    Raises:
        ValueError: images of another type or shape, or numbers out of range.
    """
    array = np.asarray(images)
    if array.dtype != np.uint8 or array.ndim != 4 or array.size == 0 or array.shape[3] not in (1, 3, 4):
        raise ValueError(f"expected uint8 images [N, H, W, 1|3|4] with N >= 1, got {array.dtype} {list(array.shape)}")
    count, height, width = array.shape[:3]
    columns = math.ceil(math.sqrt(count)) if columns is None else columns
    scale = max(1, round(VISIBLE_SIDE / max(height, width))) if scale is None else scale
    if columns < 1 or scale < 1 or padding < 0:
        raise ValueError(f"columns {columns} and scale {scale} must be at least 1, padding {padding} at least 0")
    columns = min(columns, count)
    array = array.repeat(scale, axis=1).repeat(scale, axis=2)
    if array.shape[3] == 4:
        array = _over_checkerboard(array)
    step_y, step_x = array.shape[1] + padding, array.shape[2] + padding
    rows = math.ceil(count / columns)
    sheet = np.full((rows * step_y + padding, columns * step_x + padding, array.shape[3]), BACKGROUND, np.uint8)
    for i, image in enumerate(array):
        top, left = i // columns * step_y + padding, i % columns * step_x + padding
        sheet[top : top + array.shape[1], left : left + array.shape[2]] = image
    return Image.fromarray(sheet[:, :, 0] if sheet.shape[2] == 1 else sheet)


def save_grid(
    images: np.ndarray | torch.Tensor,
    path: str | Path,
    columns: int | None = None,
    scale: int | None = None,
    padding: int = 2,
) -> None:
    """Write `image_grid` to `path`, whole or not at all.

    Raises:
        UserError: `path` has no suffix of an image format, is a folder, or cannot be written.
    """
    check_image_path(path)
    grid = image_grid(images, columns, scale, padding)
    try:
        with atomic_write(path) as temporary:
            grid.save(temporary)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write '{path}' ({reason}): choose another output path") from error


def check_image_path(path: str | Path) -> None:
    """Fail before the work is done rather than after it.

    Raises:
        UserError: `path` is a folder or its suffix is neither .png, .jpg, .jpeg nor .webp.
    """
    if Path(path).is_dir():
        raise UserError(f"'{path}' is a folder: give the name of an image file such as '{Path(path) / 'grid.png'}'")
    if Path(path).suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UserError(f"'{path}' is no name of an image file: let it end in .png")


def _over_checkerboard(images: np.ndarray) -> np.ndarray:
    """Lay RGBA `[N, H, W, 4]` over light squares -> RGB `[N, H, W, 3]`."""
    y, x = np.indices(images.shape[1:3]) // CHECKER_SIDE
    board = np.where((x + y) % 2 == 0, 255.0, 204.0)[None, :, :, None]
    alpha = images[..., 3:] / 255.0
    return np.rint(images[..., :3] * alpha + board * (1 - alpha)).astype(np.uint8)
