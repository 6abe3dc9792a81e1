from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from PIL import Image
from tiny import visible

from lddgan.errors import UserError
from lddgan.reports.grid import image_grid
from lddgan.reports.writers import GRID_LIMIT, open_writer


def batches(channels: int) -> tuple[np.ndarray, list[np.ndarray]]:
    images = np.random.default_rng(0).integers(0, 256, (7, 6, 6, channels), dtype=np.uint8)
    return images, [images[:3], images[3:6], images[6:]]


def write_all(path, channels=3) -> np.ndarray:
    images, parts = batches(channels)
    with open_writer(path, len(images)) as write:
        for part in parts:
            write(part)
    return images


def pixels(file) -> np.ndarray:
    array = np.asarray(Image.open(file))
    return array[..., None] if array.ndim == 2 else array


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_folder(tmp_path, channels):
    images = write_all(tmp_path / "deep" / "out", channels)
    assert visible(tmp_path / "deep" / "out") == [f"{i:06d}.png" for i in range(7)]
    for i, image in enumerate(images):
        assert np.array_equal(pixels(tmp_path / "deep" / "out" / f"{i:06d}.png"), image)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_zip(tmp_path, channels):
    images = write_all(tmp_path / "out.zip", channels)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.namelist() == [f"{i:06d}.png" for i in range(7)] and archive.testzip() is None
        for name, image in zip(archive.namelist(), images, strict=True):
            assert np.array_equal(pixels(io.BytesIO(archive.read(name))), image)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_npz(tmp_path, channels):
    images = write_all(tmp_path / "out.npz", channels)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        assert arrays.files == ["arr_0"] and arrays["arr_0"].dtype == np.uint8
        assert np.array_equal(arrays["arr_0"], images)


def test_grid(tmp_path):
    images = write_all(tmp_path / "out.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), np.asarray(image_grid(images)))


@pytest.mark.parametrize("name", ["out.zip", "out.npz", "out.png", "out"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_failure_leaves_nothing_half_written(tmp_path, name, error):
    (tmp_path / "old.txt").write_text("")
    if name != "out":
        (tmp_path / name).write_text("an older file")
    with pytest.raises(error):
        with open_writer(tmp_path / name, 7) as write:
            write(batches(3)[1][0])
            raise error("x")
    if name == "out":  # in a folder every image is whole
        assert visible(tmp_path) == ["old.txt", "out/000000.png", "out/000001.png", "out/000002.png"]
    else:
        assert visible(tmp_path) == sorted(["old.txt", name]) and (tmp_path / name).read_text() == "an older file"


@pytest.mark.parametrize("name", ["x.gif", "x.jpeg", "file/x.zip", "file/x.npz", "file/x.png", "file/x"])
def test_places_that_cannot_be_written(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="/x|/file'"):
        with open_writer(tmp_path / name, 7):
            raise AssertionError("not reached")
    assert visible(tmp_path) == ["file"]


def test_a_folder_may_have_a_dot_in_its_name(tmp_path):
    (tmp_path / "v1.0").mkdir()
    write_all(tmp_path / "v1.0")
    assert len(visible(tmp_path / "v1.0")) == 7


def test_a_grid_has_a_limit(tmp_path):
    with pytest.raises(UserError, match=f"at most {GRID_LIMIT}"):
        with open_writer(tmp_path / "x.png", GRID_LIMIT + 1):
            raise AssertionError("not reached")
