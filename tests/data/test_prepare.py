from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import encode, fill, pack, picture, random_image, raw, write, write_lmdb
from PIL import Image

from lddgan.data.images import square
from lddgan.data.prepare import DataFacts, describe, prepare
from lddgan.data.sources import open_source
from lddgan.errors import UserError


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def test_pixels_at_their_own_size_are_exact(tmp_path, cache):
    root = fill(tmp_path / "x", [f"{name}/{i}.png" for name in "ab" for i in range(3)])
    images = prepare(root, split="all", resolution=8, cache=cache)
    source = open_source(root, "all")
    assert images.images.shape == (6, 8, 8, 3) and images.images.dtype == np.uint8 and len(images) == 6
    assert isinstance(images.images, np.memmap) and not images.images.flags.writeable
    for i in range(6):
        np.testing.assert_array_equal(images.images[i], np.asarray(source.decode(i)))
    assert images.labels is not None and images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert (images.classes, images.names, images.skipped) == (["a", "b"], [source.name(i) for i in range(6)], [])


def test_other_sizes_are_cropped_and_resized(tmp_path, cache):
    image = random_image("RGB", (50, 30))
    root = write(tmp_path / "x", {"1.png": encode(image), "2.png": encode(random_image("RGB", (8, 9)))})
    pixels = prepare(root, split="all", resolution=16, cache=cache).images
    np.testing.assert_array_equal(pixels[0], np.asarray(square(image, 16)))
    assert pixels.shape == (2, 16, 16, 3)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 4)])
def test_channels_are_a_property_of_the_data(tmp_path, cache, mode, channels):
    image = random_image(mode, (8, 8))
    pixels = prepare(write(tmp_path / "x", {"1.png": encode(image)}), resolution=8, cache=cache).images
    np.testing.assert_array_equal(pixels, np.asarray(image).reshape(1, 8, 8, channels))


def test_mixed_channels_stop_with_an_example_of_each_and_convert_when_told(tmp_path, cache):
    grey, colour = random_image("L", (8, 8)), random_image("RGB", (8, 8))
    root = write(tmp_path / "x", {"1.png": encode(grey), "2.png": encode(colour)})
    with pytest.raises(UserError) as caught:
        prepare(root, split="all", resolution=8, cache=cache)
    message = str(caught.value)
    assert "'1.png' is grey" in message and "'2.png' is RGB" in message and "--images.channels 3" in message
    assert list((cache / "images").iterdir()) == []
    pixels = prepare(root, split="all", resolution=8, channels=3, cache=cache).images
    np.testing.assert_array_equal(pixels[0], np.asarray(grey)[:, :, None].repeat(3, axis=2))
    np.testing.assert_array_equal(pixels[1], np.asarray(colour))
    assert prepare(root, split="all", resolution=8, channels=1, cache=cache).images.shape == (2, 8, 8, 1)


def test_batch_and_flips(tmp_path, cache):
    images = prepare(fill(tmp_path / "x", ["1.png", "2.png", "3.png"]), split="all", resolution=8, cache=cache)
    batch = images.batch([2, 0, 2])
    assert batch.dtype == torch.uint8
    np.testing.assert_array_equal(batch.numpy(), images.images[[2, 0, 2]])
    flipped = images.batch(torch.tensor([2, 0, 2]), flips=torch.tensor([True, False, False]))
    np.testing.assert_array_equal(flipped[0].numpy(), images.images[2][:, ::-1])
    np.testing.assert_array_equal(flipped[1:].numpy(), images.images[[0, 2]])


def test_stored_once_and_reused_under_other_names(tmp_path, cache, monkeypatch):
    root = fill(tmp_path / "x", ["a/1.png", "b/2.png"])
    first = prepare(root, split="all", resolution=8, cache=cache)
    (root / "b").rename(root / "c")
    monkeypatch.setattr("lddgan.data.prepare._decode_all", lambda *_: pytest.fail("decoded again"))
    again = prepare(root, split="all", resolution=8, cache=cache)
    assert again.hash == first.hash
    assert (again.names, again.classes) == (["a/1.png", "c/2.png"], ["a", "c"])
    np.testing.assert_array_equal(again.images, first.images)
    archive = pack(tmp_path / "x.zip", {"1.png": picture(0), "2.png": picture(1)})
    assert prepare(archive, split="all", resolution=8, cache=cache).hash == first.hash


def test_hash_follows_content_resolution_and_channels(tmp_path, cache):
    root = fill(tmp_path / "x", ["1.png", "2.png"])
    hashes = [prepare(root, split="all", resolution=8, cache=cache).hash]
    hashes += [prepare(root, split="all", resolution=16, cache=cache).hash]
    hashes += [prepare(root, split="all", resolution=8, channels=1, cache=cache).hash]
    (root / "2.png").write_bytes(picture(7))
    hashes += [prepare(root, split="all", resolution=8, cache=cache).hash]
    assert len(set(hashes)) == 4


@pytest.mark.parametrize("damage", ["short pixels", "no facts", "bad facts"])
def test_a_cache_that_is_not_whole_is_made_again(tmp_path, cache, damage):
    root = fill(tmp_path / "x", ["1.png", "2.png"])
    before = np.array(prepare(root, split="all", resolution=8, cache=cache).images)
    pixels = next((cache / "images").glob("*.u8"))
    if damage == "short pixels":
        pixels.write_bytes(pixels.read_bytes()[:-1])
    elif damage == "no facts":
        pixels.with_suffix(".json").unlink()
    else:
        pixels.with_suffix(".json").write_text("[]")
    np.testing.assert_array_equal(prepare(root, split="all", resolution=8, cache=cache).images, before)
    assert json.loads(pixels.with_suffix(".json").read_text())["shape"] == [2, 8, 8, 3]


def test_default_cache_is_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LDDGAN_CACHE", str(tmp_path / "c"))
    prepare("digits", split="test", resolution=8)
    assert sorted(path.suffix for path in (tmp_path / "c" / "images").iterdir()) == [".json", ".u8"]


def broken(kind: str) -> bytes:
    if kind == "text":
        return b"this is text, whatever its name says"
    if kind == "truncated":
        data = encode(random_image("RGB", (64, 64)), "JPEG")
        return data[: len(data) * 2 // 3]
    return b""


@pytest.mark.parametrize("kind", ["text", "truncated", "empty"])
@pytest.mark.parametrize("container", ["folder", "zip"])
def test_broken_image_stops_with_its_name_or_is_left_out(tmp_path, cache, kind, container):
    files = {"a/1.png": picture(0), "b/broken.jpg": broken(kind), "b/3.png": picture(1)}
    root = write(tmp_path / "x", files) if container == "folder" else pack(tmp_path / "x.zip", files)
    with pytest.raises(UserError, match="'b/broken.jpg' in .* is not a readable image .*--skip-broken"):
        prepare(root, split="all", resolution=8, cache=cache)
    assert list((cache / "images").iterdir()) == []
    for _ in range(2):  # made, then reused
        images = prepare(root, split="all", resolution=8, skip_broken=True, cache=cache)
        assert (images.skipped, images.names, len(images)) == (["b/broken.jpg"], ["a/1.png", "b/3.png"], 2)
        assert images.labels is not None and images.labels.tolist() == [0, 1]
    with pytest.raises(UserError, match="broken.jpg"):  # although a cache without it exists by now
        prepare(root, split="all", resolution=8, cache=cache)


@pytest.mark.parametrize(("side", "resolution"), [(1, 8), (7, 8), (8, 33)])
def test_too_small_images_stop_with_their_name(tmp_path, cache, side, resolution):
    root = write(tmp_path / "x", {"tiny.png": picture(0, side=side), "good.png": picture(1, side=64)})
    with pytest.raises(UserError, match=f"'tiny.png' in .* is too small, {side}x{side} px"):
        prepare(root, split="all", resolution=resolution, cache=cache)
    assert prepare(root, split="all", resolution=resolution, skip_broken=True, cache=cache).skipped == ["tiny.png"]


def test_four_times_enlargement_is_allowed(tmp_path, cache):
    root = write(tmp_path / "x", {"1.png": picture(0, side=8)})
    assert prepare(root, resolution=32, cache=cache).images.shape == (1, 32, 32, 3)


def test_nothing_readable(tmp_path, cache):
    root = write(tmp_path / "x", {"1.png": b"text"})
    with pytest.raises(UserError, match="no readable image of 1"):
        prepare(root, split="all", resolution=8, skip_broken=True, cache=cache)


@pytest.mark.parametrize(("options", "says"), [({"resolution": 0}, "not positive"), ({"channels": 2}, "2 channels")])
def test_impossible_options(options, says, cache):
    with pytest.raises(UserError, match=says):
        prepare("digits", **({"resolution": 8, "cache": cache} | options))


def test_full_disk_leaves_nothing(tmp_path, cache, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lddgan.runtime.files.os.fsync", full)
    with pytest.raises(UserError, match="No space left on device.*LDDGAN_CACHE"):
        prepare(fill(tmp_path / "x", ["1.png"]), split="all", resolution=8, cache=cache)
    assert list((cache / "images").iterdir()) == []


def test_cache_that_is_a_file(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match="cannot make the folder"):
        prepare("digits", resolution=8, cache=tmp_path / "cache")


def test_digits_are_exact(cache):
    images = prepare("digits", split="train", resolution=8, cache=cache)
    assert images.images.shape == (1717, 8, 8, 1)
    assert images.labels is not None and images.labels[:4].tolist() == [0, 1, 2, 3]
    assert set(np.unique(images.images)) == {round(v * 255 / 16) for v in range(17)}


def test_raw_lmdb(tmp_path, cache):
    path = write_lmdb(tmp_path / "x.lmdb", {str(i).encode(): raw(i, 16).tobytes() for i in range(11)})
    pixels = prepare(path, split="all", resolution=16, cache=cache).images
    np.testing.assert_array_equal(pixels[10], raw(10, 16))


def test_describe(tmp_path):
    files = {
        "a/1.png": encode(random_image("RGB", (20, 10))),
        "a/2.png": encode(random_image("RGB", (30, 14))),
        "b/3.png": encode(random_image("RGB", (90, 12))),
        "b/4.png": b"text",
    }
    root = write(tmp_path / "x", files)
    assert describe(root) == DataFacts(4, 3, (20, 30, 90), (10, 12, 14), ["a", "b"])
    write(root, {"b/5.png": encode(random_image("L", (30, 12)))})
    assert describe(root).channels is None
    assert describe("digits") == DataFacts(1797, 1, (8, 8, 8), (8, 8, 8), [str(i) for i in range(10)])


def test_describe_reads_at_most_a_sample_spread_over_the_set(tmp_path, monkeypatch):
    monkeypatch.setattr("lddgan.data.prepare.SURVEY_SAMPLE", 3)
    sides = [8, 100, 9, 100, 10]
    root = write(tmp_path / "x", {f"{i}.png": picture(i, side) for i, side in enumerate(sides)})
    assert describe(root) == DataFacts(5, 3, (8, 9, 10), (8, 9, 10), [])


def test_describe_without_a_readable_image(tmp_path):
    with pytest.raises(UserError, match="no readable image"):
        describe(write(tmp_path / "x", {"1.png": b"text"}))


def test_images_are_decoded_upright(tmp_path, cache):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image = random_image("L", (8, 8))
    root = write(tmp_path / "x", {"1.png": encode(image, exif=exif)})
    np.testing.assert_array_equal(
        prepare(root, resolution=8, cache=cache).images[0, :, :, 0], np.asarray(image)[::-1, ::-1]
    )
