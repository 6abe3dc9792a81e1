"""Small image files, folders, zips and LMDBs for the tests beside this file."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import lmdb
import numpy as np
from PIL import Image


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def random_image(mode: str, size: tuple[int, int] = (12, 10)) -> Image.Image:
    shape = (size[1], size[0]) + ((len(mode),) if len(mode) > 1 else ())
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def picture(seed: int, side: int = 8, mode: str = "RGB") -> bytes:
    shape = (side, side, len(mode)) if len(mode) > 1 else (side, side)
    return encode(Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)))


def fill(root: Path, names: list[str]) -> Path:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(i))
    return root


def pack(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def raw(seed: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def write_lmdb(path: Path, values: dict[bytes, bytes], subdir: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(path), subdir=subdir, map_size=1 << 20) as environment, environment.begin(write=True) as writer:
        for key, value in values.items():
            writer.put(key, value)
    return path


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root
