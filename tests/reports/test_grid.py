from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lddgan.errors import UserError
from lddgan.reports.grid import image_grid, save_grid


def solid(count: int, side: int, channels: int) -> np.ndarray:
    return np.broadcast_to(np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1) * 10, (count, side, side, channels))


def test_layout_row_by_row_with_white_between():
    grid = np.asarray(image_grid(solid(5, 4, 3), columns=3, scale=2, padding=1))
    assert grid.shape == (2 * 9 + 1, 3 * 9 + 1, 3)
    for i in range(5):
        top, left = i // 3 * 9 + 1, i % 3 * 9 + 1
        assert (grid[top : top + 8, left : left + 8] == 10 * i).all()
        grid = grid.copy()
        grid[top : top + 8, left : left + 8] = 255
    assert (grid == 255).all()  # padding and the empty place


def test_enlarging_is_nearest_neighbour():
    images = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 1), dtype=np.uint8)
    grid = image_grid(images, padding=0)
    assert grid.mode == "L" and grid.size == (48, 48)
    np.testing.assert_array_equal(np.asarray(grid), np.kron(images[0, :, :, 0], np.ones((6, 6), np.uint8)))


@pytest.mark.parametrize(("side", "shown"), [(8, 48), (28, 56), (32, 64), (64, 64), (256, 256)])
def test_default_scale_makes_small_images_visible(side, shown):
    assert image_grid(solid(1, side, 1), padding=0).size == (shown, shown)


def test_default_columns_are_about_square():
    assert image_grid(solid(10, 64, 1), padding=0).size == (4 * 64, 3 * 64)
    assert image_grid(solid(2, 64, 1), columns=8, padding=0).size == (2 * 64, 64)


def test_rgba_lies_over_a_checkerboard():
    images = np.zeros((2, 64, 64, 4), np.uint8)
    images[1] = [10, 20, 30, 255]
    grid = np.asarray(image_grid(images, columns=2, padding=0))
    assert grid.shape == (64, 128, 3)
    assert [grid[0, 0, 0], grid[0, 8, 0], grid[8, 0, 0], grid[8, 8, 0]] == [255, 204, 204, 255]
    assert (grid[:, 64:] == [10, 20, 30]).all()


def test_tensors_are_taken():
    assert image_grid(torch.zeros(1, 64, 64, 3, dtype=torch.uint8), padding=0).size == (64, 64)


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (8, 8, 3), (1, 8, 8, 2)])
def test_wrong_shapes(shape):
    with pytest.raises(ValueError, match="N, H, W"):
        image_grid(np.zeros(shape, np.uint8))


def test_wrong_type_and_numbers():
    with pytest.raises(ValueError, match="float64"):
        image_grid(np.zeros((1, 8, 8, 3)))
    for options in ({"columns": 0}, {"scale": 0}, {"padding": -1}):
        with pytest.raises(ValueError, match="at least"):
            image_grid(solid(1, 8, 1), **options)


def test_save(tmp_path):
    save_grid(solid(4, 8, 3), tmp_path / "new" / "grid.png", padding=0)
    assert Image.open(tmp_path / "new" / "grid.png").size == (96, 96)


def test_save_to_bad_places(tmp_path):
    for name in ("", "grid", "grid.xyz"):
        with pytest.raises(UserError):
            save_grid(solid(1, 8, 1), tmp_path / name)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        save_grid(solid(1, 8, 1), tmp_path / "file" / "grid.png")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
