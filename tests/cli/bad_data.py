"""Sets of images that cannot be trained on, each wrong in one way, and what its error must name."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from tiny import make_images


def missing(root: Path) -> tuple[Path, str]:
    return root / "missing", "missing'"


def empty_folder(root: Path) -> tuple[Path, str]:
    (root / "empty").mkdir()
    return root / "empty", "empty'"


def text_named_png(root: Path) -> tuple[Path, str]:
    (make_images(root / "images", 12, 16) / "zz.png").write_text("this is text")
    return root / "images", "'zz.png'.*--skip-broken"


def truncated_jpeg(root: Path) -> tuple[Path, str]:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)).save(buffer, "JPEG")
    (make_images(root / "images", 12, 16) / "zz.jpg").write_bytes(buffer.getvalue()[:-200])
    return root / "images", "'zz.jpg'.*--skip-broken"


def one_pixel(root: Path) -> tuple[Path, str]:
    Image.new("L", (1, 1)).save(make_images(root / "images", 12, 16) / "zz.png")
    return root / "images", "'zz.png'.* 1x1 px"


def mixed_channels(root: Path) -> tuple[Path, str]:
    Image.new("RGB", (16, 16)).save(make_images(root / "images", 12, 16) / "zz.png")
    return root / "images", "mixes grey, RGB or RGBA.*--images.channels"


def climbing_zip(root: Path) -> tuple[Path, str]:
    with zipfile.ZipFile(root / "x.zip", "w") as archive:
        archive.writestr("../outside.png", b"")
    return root / "x.zip", r"x\.zip'.*outside|outside.*x\.zip'"


def truncated_zip(root: Path) -> tuple[Path, str]:
    with zipfile.ZipFile(root / "x.zip", "w") as archive:
        archive.writestr("1.png", bytes(1000))
    (root / "x.zip").write_bytes((root / "x.zip").read_bytes()[:-40])
    return root / "x.zip", r"x\.zip'"


def too_few(root: Path) -> tuple[Path, str]:
    return make_images(root / "few", 3, 16), "few'.*at least"


CASES = [
    missing, empty_folder, text_named_png, truncated_jpeg, one_pixel, mixed_channels, climbing_zip, truncated_zip,
    too_few,
]  # fmt: skip
