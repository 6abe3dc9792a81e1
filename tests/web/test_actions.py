from __future__ import annotations

import base64
import io
import re
import zipfile

import numpy as np
import pytest
from PIL import Image
from tiny import lively_model, tiny_config

from lddgan import Pipeline
from lddgan.errors import UserError
from lddgan.web import actions


@pytest.fixture(scope="module")
def pipe():
    config = tiny_config(slim_decoder=None)
    return Pipeline(config, *lively_model(config), device="cpu")


def upload(folder, image: np.ndarray, name: str = "mine.png", **options):
    Image.fromarray(image).save(folder / name, **options)
    return folder / name


def test_sheets_grow_and_hold_every_image_once(pipe, monkeypatch):
    monkeypatch.setattr(actions, "SHEET_SECONDS", 1e9)  # none takes long
    sheets = list(actions.draw(pipe, 3, 100))
    assert [len(sheet.images) for sheet in sheets[:2]] == [16, 32] and sheets[-1].drawn == 100
    assert (np.concatenate([sheet.images for sheet in sheets]) == pipe(100, seed=3)).all()
    assert re.fullmatch(r"100 images, [\d,]+ a second, \d+\.\d\d ms each", sheets[-1].figures)
    monkeypatch.setattr(actions, "SHEET_SECONDS", 0)  # every sheet took long: none grows
    assert [len(sheet.images) for sheet in actions.draw(pipe, 3, 40)] == [16, 16, 8]


def test_variations_and_filling_are_the_pipelines(pipe):
    image = pipe(1, seed=5)[0]
    assert (actions.vary(pipe, image, 0.67, 2, 3) == pipe.vary(np.stack([image] * 3), 0.67, 2)).all()
    mask = np.zeros((8, 8), bool)
    mask[:3] = True
    filled = actions.fill(pipe, image, mask, 2, 3)
    assert (filled == pipe.fill(np.stack([image] * 3), mask, 2)).all() and (filled[:, 3:] == image[3:]).all()
    assert (actions.morph(pipe, 1, 2, 4) == pipe.interpolate(1, 2, 4)).all()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda pipe: next(actions.draw(pipe, 0, 0)), "the count 0 is not a whole number from 1 to 2048"),
        (lambda pipe: next(actions.draw(pipe, 0, 10**6)), "the count 1000000"),
        (lambda pipe: next(actions.draw(pipe, -1, 1)), "the seed -1"),
        (lambda pipe: next(actions.draw(pipe, 0.5, 1)), "the seed 0.5"),
        (lambda pipe: next(actions.draw(pipe, float("nan"), 1)), "the seed nan"),
        (lambda pipe: next(actions.draw(pipe, 2**40, 1)), "the seed 1099511627776"),
        (lambda pipe: next(actions.draw(pipe, None, 1)), "the seed is empty: give a whole number"),
        (lambda pipe: actions.morph(pipe, 0, None, 4), "the second seed is empty"),
        (lambda pipe: actions.read_upload(pipe, None), "there is no image: upload one"),
        (lambda pipe: actions.morph(pipe, 0, 1, 1), "the number of frames 1"),
        (lambda pipe: actions.morph(pipe, 0, 1, 500), "from 2 to 64"),
        (lambda pipe: actions.vary(pipe, pipe(1)[0], 0.5, 0, 17), "the count 17 .* from 1 to 16"),
        (lambda pipe: actions.vary(pipe, pipe(1)[0], 2, 0, 1), "strength 2 is not between"),
        (lambda pipe: actions.fill(pipe, pipe(1)[0], np.zeros((8, 8), bool), 0, 1), "nothing is painted over"),
        (lambda pipe: actions.fill(pipe, pipe(1)[0], np.ones((9, 9), bool), 0, 1), r"the mask is bool \[9, 9\]"),
    ],
)  # fmt: skip
def test_what_is_out_of_bounds_is_a_sentence(pipe, call, says):
    with pytest.raises(UserError, match=says) as caught:
        call(pipe)
    assert "\n" not in str(caught.value)


def test_an_upload_is_cropped_and_resized_as_training_data_are(pipe, tmp_path):
    grey = np.linspace(0, 255, 40 * 60).reshape(40, 60).astype(np.uint8)
    image = actions.read_upload(pipe, upload(tmp_path, grey))
    expected = Image.fromarray(grey[:, 10:50]).resize((8, 8), Image.Resampling.LANCZOS)
    assert image.shape == (8, 8, 1) and (image[..., 0] == np.asarray(expected)).all()
    colour = actions.read_upload(pipe, upload(tmp_path, np.stack([grey] * 3, 2), "mine.jpg"))
    assert colour.shape == (8, 8, 1) and np.abs(colour.astype(int) - image).mean() < 3


def test_bad_uploads(pipe, tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("no image")
    whole = upload(tmp_path, np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8)).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    upload(tmp_path, np.zeros((3, 3), np.uint8), "small.png")
    Image.new("1", (20_000, 10_000)).save(tmp_path / "bomb.png")  # 200 megapixels in a few kilobytes
    for name, says in (
        ("text.png", "'text.png' is not a readable image"), ("half.png", "'half.png' is not a readable image"),
        ("small.png", "3x3 pixels, too small"), ("bomb.png", "'bomb.png' is not a readable image .*pixels"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=says) as caught:
            actions.read_upload(pipe, tmp_path / name)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(actions, "MAX_UPLOAD", 2**20 // 2**20)
    with pytest.raises(UserError, match="'mine.png' is larger than"):
        actions.read_upload(pipe, tmp_path / "mine.png")


def test_a_mask_has_the_size_of_its_image(pipe, tmp_path):
    image = upload(tmp_path, np.zeros((64, 64), np.uint8))
    bright = np.zeros((64, 64), np.uint8)
    bright[:32] = 255
    mask = actions.read_mask(pipe, upload(tmp_path, bright, "mask.png"), image)
    assert mask.dtype == bool and mask[:4].all() and not mask[4:].any()
    with pytest.raises(UserError, match="the mask has 64x32 pixels and the image 64x64: give one of its size"):
        actions.read_mask(pipe, upload(tmp_path, bright[:32], "half.png"), image)


def test_postscript_is_not_opened(pipe, tmp_path):
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n")
    with pytest.raises(UserError, match="no known image format"):
        actions.read_upload(pipe, tmp_path / "x.png")


def test_large_images_are_fewer(pipe, monkeypatch):
    monkeypatch.setattr(actions, "MAX_PIXELS_DRAWN", 10 * 64)
    with pytest.raises(UserError, match="from 1 to 10"):
        next(actions.draw(pipe, 0, 11))


def test_what_is_painted():
    layer = np.zeros((64, 64, 4), np.uint8)
    layer[8:16, 16:24, 3] = 255  # the whole of one pixel
    layer[8:11, 24:32, 3] = 255  # less than half of the next
    assert actions.painted([layer], 8).nonzero() == (np.array([1]), np.array([2]))
    other = np.zeros((80, 40, 4), np.uint8)
    other[70:, 35:, 3] = 255
    assert np.argwhere(actions.painted([layer, other], 8)).tolist() == [[1, 2], [7, 7]]
    assert not actions.painted([], 8).any()


def test_pictures_of_the_page(pipe, tmp_path):
    images = pipe(5, seed=1)
    html = actions.sheet_html(images, "five")
    data = re.search(r"base64,([^\"]+)", html)
    assert data and 'data-images="5"' in html and 'alt="five"' in html
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1]))))
    assert (picture[1:9, 1:9] == images[0, ..., 0]).all() and picture.shape == (10, 46)
    with zipfile.ZipFile(actions.write_zip(images, tmp_path / "x.zip")) as archive:
        assert archive.namelist() == [f"{i:05d}.png" for i in range(5)]
        assert (np.asarray(Image.open(archive.open("00003.png"))) == images[3, ..., 0]).all()
    loop = Image.open(actions.write_gif(images, tmp_path / "x.gif"))
    assert (loop.n_frames, loop.size, loop.info["loop"]) == (8, (320, 320), 0)  # there and back
    assert actions.enlarge(images[0]).shape == (320, 320, 3)
    assert (actions.enlarge(images[0])[::40, ::40, 0] == images[0, ..., 0]).all()
