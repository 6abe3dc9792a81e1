"""Where drawn images go: a folder of PNGs, a zip of PNGs, one array in an `.npz`, or a grid in one `.png`."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from lddgan.errors import UserError
from lddgan.reports.grid import save_grid
from lddgan.runtime.files import atomic_write, ensure_folder

Write = Callable[[np.ndarray], None]
GRID_LIMIT = 4096


def png(image: np.ndarray) -> bytes:
    """One image, uint8 `[H, W, C]`, as the bytes of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def open_writer(path: Path, total: int) -> Iterator[Write]:
    """Yield a function that takes uint8 batches `[B, H, W, C]`, `total` images in all; the form follows from `path`.

    Zip, npz and grid appear only when they are whole; in a folder every image does.

    Raises:
        UserError: a suffix that names none of the four forms, or a place that cannot be written.
    """
    if path.is_dir() or path.suffix == "":
        ensure_folder(path)

        def write(name: str, image: np.ndarray) -> None:
            with atomic_write(path / name) as temporary:
                temporary.write_bytes(png(image))

        yield _numbered(write)
    elif path.suffix == ".zip":
        with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            yield _numbered(lambda name, image: archive.writestr(name, png(image)))
    elif path.suffix == ".npz":
        with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            with archive.open("arr_0.npy", "w", force_zip64=True) as member:
                yield _array_writer(member.write, total)
    elif path.suffix == ".png":
        if total > GRID_LIMIT:
            raise UserError(f"a grid of {total} images is too large: draw at most {GRID_LIMIT}, or use a .zip")
        batches: list[np.ndarray] = []
        ensure_folder(path.parent)
        yield batches.append
        save_grid(np.concatenate(batches), path)
    else:
        raise UserError(f"cannot write images to '{path}': give a folder, or a name that ends in .zip, .npz or .png")


def _numbered(write: Callable[[str, np.ndarray], None]) -> Write:
    count = 0

    def write_batch(images: np.ndarray) -> None:
        nonlocal count
        for image in images:
            write(f"{count:06d}.png", image)
            count += 1

    return write_batch


def _array_writer(write: Callable[[bytes], object], total: int) -> Write:
    """Stream an array `[total, H, W, C]` in NumPy's format, so that it never lies in memory whole."""
    started = False

    def write_batch(images: np.ndarray) -> None:
        nonlocal started
        if not started:
            buffer = io.BytesIO()
            header = {"descr": "|u1", "fortran_order": False, "shape": (total, *images.shape[1:])}
            np.lib.format.write_array_header_1_0(buffer, header)
            write(buffer.getvalue())
            started = True
        write(np.ascontiguousarray(images).tobytes())

    return write_batch
