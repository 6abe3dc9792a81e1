from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lddgan.errors import RunStopped, UserError
from lddgan.metrics.features import FeatureNetwork
from lddgan.metrics.measured import Measured, features_of, from_path, through_jpeg


class Pixels(nn.Module):
    """The mean of each channel as features, their negatives as logits."""

    title, dim, resolution, antialias = "means", 3, 16, True

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        means = images.mean(dim=(2, 3)) * 255
        return means, -means[:, :2]


def network() -> FeatureNetwork:
    return FeatureNetwork("means", Pixels(), "0123456789abcdef0123")  # pyright: ignore[reportArgumentType]


def pictures(count: int, side: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def measured(images: np.ndarray) -> Measured:
    return Measured(len(images), images.shape[1:], lambda rows: images[rows.start : rows.stop], "key", {})  # pyright: ignore[reportArgumentType]


def test_features_lie_in_a_file_and_are_read_in_slices(tmp_path):
    images = pictures(600)
    features, logits = features_of(network(), measured(images), tmp_path)
    expected = torch.from_numpy(images).double().mean(dim=(1, 2)).float()
    torch.testing.assert_close(features[0:600], expected, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(features[590:700], expected[590:], rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(logits.take(np.array([3, 599])), -expected[[3, 599], :2], rtol=1e-5, atol=1e-3)
    assert features.shape == (600, 3) and logits.shape == (600, 2)


def test_an_interrupted_extraction_goes_on_where_it_was(tmp_path):
    images, reads = pictures(900), []

    def read(rows: range) -> np.ndarray:
        reads.append(rows.start)
        if rows.start == 500 and reads.count(500) == 1:
            raise KeyboardInterrupt
        return images[rows.start : rows.stop]

    interrupted = Measured(900, (16, 16, 3), read, "key", {})
    with pytest.raises(RunStopped, match="stopped after 500 of 900 images") as stop:
        features_of(network(), interrupted, tmp_path)
    assert stop.value.exit_code == 130
    (partial,) = tmp_path.glob("*.part")
    partial.write_bytes(partial.read_bytes() + b"cut row")  # as a kill in the middle of a write leaves it
    features, _ = features_of(network(), interrupted, tmp_path)
    assert reads == [0, 250, 500, 500, 750]
    whole, _ = features_of(network(), measured(images), tmp_path / "other")
    assert torch.equal(features[0:900], whole[0:900])


def test_two_at_once_do_not_mix_their_rows(tmp_path):
    images = pictures(900)

    def read(rows: range) -> np.ndarray:
        time.sleep(0.02)
        return images[rows.start : rows.stop]

    slow = Measured(900, (16, 16, 3), read, "key", {})
    with ThreadPoolExecutor(3) as pool:  # the lock is the open file's, so it keeps threads apart as it does processes
        for future in [pool.submit(features_of, network(), slow, tmp_path) for _ in range(3)]:
            future.result()
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size == 900 * 5 * 4
    features, _ = features_of(network(), measured(pictures(900)), tmp_path)
    whole, _ = features_of(network(), measured(pictures(900)), tmp_path / "other")
    assert torch.equal(features[0:900], whole[0:900])


def test_features_of_the_same_images_are_not_made_twice(tmp_path):
    images = pictures(10)
    features_of(network(), measured(images), tmp_path)

    def never(rows: range) -> np.ndarray:
        raise AssertionError("read again")

    features_of(network(), Measured(10, (16, 16, 3), never, "key", {}), tmp_path)


def test_the_jpeg_protocol_is_pillow_s_default(tmp_path):
    image = pictures(1)
    buffer = io.BytesIO()
    Image.fromarray(image[0]).save(buffer, "JPEG")
    expected = np.asarray(Image.open(buffer))
    np.testing.assert_array_equal(through_jpeg(image)[0], expected)
    grey = through_jpeg(image[..., :1])
    assert grey.shape == (1, 16, 16, 1)
    png, _ = features_of(network(), measured(image), tmp_path, "png")
    jpeg, _ = features_of(network(), measured(image), tmp_path, "jpeg")
    torch.testing.assert_close(
        jpeg[0:1][0], torch.from_numpy(expected.copy()).double().mean(dim=(0, 1)).float(), rtol=1e-4, atol=1e-2
    )
    assert not torch.equal(png[0:1], jpeg[0:1])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_is_read_in_order_and_from_the_middle(tmp_path, save):
    images = pictures(30)
    save(tmp_path / "x.npz", arr_0=images)
    opened = from_path(str(tmp_path / "x.npz"), "all")
    assert (opened.count, opened.shape) == (30, (16, 16, 3))
    for rows in (range(0, 10), range(10, 25), range(4, 6)):
        np.testing.assert_array_equal(opened.read(rows), images[rows.start : rows.stop])
    assert from_path(str(tmp_path / "x.npz"), "all", n=7).count == 7


def test_a_folder_is_thinned_evenly_and_keeps_its_labels(tmp_path, monkeypatch):
    monkeypatch.setenv("LDDGAN_CACHE", str(tmp_path / "cache"))
    images = pictures(12)
    for index, image in enumerate(images):
        folder = tmp_path / "set" / ("cat" if index < 6 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index:02d}.png")
    opened = from_path(str(tmp_path / "set"), "all", n=4)
    assert opened.labels is not None and opened.labels.tolist() == [0, 0, 1, 1] and opened.classes == ("cat", "dog")
    np.testing.assert_array_equal(opened.read(range(0, 4)), images[[0, 4, 7, 11]])


def test_bad_sets_are_refused_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("LDDGAN_CACHE", str(tmp_path / "cache"))
    np.savez(tmp_path / "float.npz", np.full((4, 16, 16, 3), np.nan, dtype=np.float32))
    np.savez(tmp_path / "two.npz", pictures(2), pictures(2))
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    Image.fromarray(pictures(1)[0]).save(tmp_path / "mixed" / "a.png")
    Image.fromarray(pictures(1, 24)[0]).save(tmp_path / "mixed" / "b.png")
    for name, message in (
        ("float.npz", "float32 .* not uint8 images"), ("two.npz", "holds 2 arrays"), ("text.npz", "cannot read"),
        ("absent.npz", "cannot read"), ("empty", "no images"), ("mixed", "several sizes .* --resolution"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            from_path(str(tmp_path / name), "all")
    np.savez(tmp_path / "few.npz", pictures(3))
    with pytest.raises(UserError, match="holds 3 images, not 9"):
        from_path(str(tmp_path / "few.npz"), "all", n=9)
