from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from tiny import tiny_config, visible

import lddgan.data.latents as module
from lddgan.data.latents import Latents, OnTheFly, cached_latents, to_uint8, to_unit_range, weights_hash
from lddgan.data.prepare import ImageSet
from lddgan.models import build_space
from lddgan.spaces.pixels import PixelSpace
from lddgan.spaces.wavelet import WaveletSpace

CPU = torch.device("cpu")


@pytest.fixture
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (11, 8, 8, 1), dtype=np.uint8)
    return ImageSet(pixels, None, [], [str(i) for i in range(11)], "these images", [])


@pytest.fixture
def space():
    return build_space(tiny_config()).eval()


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(module, "ENCODE_BATCH", 4)  # 11 images: the last batch is not full


def direct(space, images, mirrored: bool) -> torch.Tensor:
    pixels = torch.from_numpy(images.images.copy())
    with torch.inference_mode():
        return space.autoencoder.encoder(to_unit_range(pixels.flip(2) if mirrored else pixels))


@pytest.mark.parametrize("flips", [False, True])
def test_latents_and_statistics_equal_direct_computation(tmp_path, space, images, flips):
    latents = cached_latents(tmp_path, space, images, flips, CPU)
    expected = torch.stack([direct(space, images, mirrored) for mirrored in ([False, True] if flips else [False])])
    torch.testing.assert_close(torch.from_numpy(np.array(latents.array)), expected, atol=1e-5, rtol=1e-5)
    channels = torch.from_numpy(np.array(latents.array)).double().transpose(0, 2).flatten(1)
    torch.testing.assert_close(latents.mean.double(), channels.mean(1), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(latents.std.double(), channels.std(1, correction=0), atol=1e-6, rtol=1e-6)
    assert len(latents) == 11 and visible(tmp_path) == ["latents.f32", "latents.json"]


def test_statistics_are_exact_over_chunks():
    array = np.random.default_rng(0).normal(100, 0.1, (2, 1700, 2, 2, 2)).astype(np.float32)
    mean, std = module._statistics(array)
    wide = array.astype(np.float64)
    assert mean.tolist() == pytest.approx(wide.mean((0, 1, 3, 4)).tolist(), rel=1e-6)
    assert std.tolist() == pytest.approx(wide.std((0, 1, 3, 4)).tolist(), rel=1e-4)


def test_reused_while_weights_data_and_flips_stay(tmp_path, space, images):
    first = cached_latents(tmp_path, space, images, True, CPU)
    stamp = (tmp_path / "latents.f32").stat().st_mtime_ns
    again = cached_latents(tmp_path, space, images, True, CPU)
    assert (tmp_path / "latents.f32").stat().st_mtime_ns == stamp
    assert first.hash == again.hash and np.array_equal(first.array, again.array)
    assert torch.equal(first.mean, again.mean) and torch.equal(first.std, again.std)


def test_the_statistics_in_the_space_do_not_make_it_stale(tmp_path, space, images):
    first = cached_latents(tmp_path, space, images, False, CPU)
    space.set_statistics(first.mean, first.std)
    stamp = (tmp_path / "latents.f32").stat().st_mtime_ns
    assert cached_latents(tmp_path, space, images, False, CPU).hash == first.hash
    assert (tmp_path / "latents.f32").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("change", ["weights", "data", "flips", "truncated", "no facts"])
def test_a_stale_cache_is_noticed_and_made_anew(tmp_path, space, images, change, capsys):
    first = cached_latents(tmp_path, space, images, False, CPU)
    stamp, flips = (tmp_path / "latents.f32").stat().st_mtime_ns, change == "flips"
    del first.array  # let the map go before its file changes
    if change == "weights":
        with torch.no_grad():
            space.autoencoder.encoder.conv_out.bias[0] += 1
    elif change == "data":
        images = dataclasses.replace(images, images=255 - images.images, hash="other images")
    elif change == "truncated":
        with open(tmp_path / "latents.f32", "r+b") as file:
            file.truncate(100)
    elif change == "no facts":
        (tmp_path / "latents.json").unlink()
    anew = cached_latents(tmp_path, space, images, flips, CPU)
    assert (tmp_path / "latents.f32").stat().st_mtime_ns != stamp
    assert (anew.hash == first.hash) == (change in ("truncated", "no facts"))
    torch.testing.assert_close(
        torch.from_numpy(np.array(anew.array[0])), direct(space, images, False), atol=1e-5, rtol=1e-5
    )
    assert ("stale" in capsys.readouterr().out) == (change != "no facts")
    assert json.loads((tmp_path / "latents.json").read_text())["shape"] == [1 + flips, 11, 2, 4, 4]


def test_a_failure_while_encoding_leaves_no_cache(tmp_path, space, images, monkeypatch):
    monkeypatch.setattr(module, "to_unit_range", lambda batch: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        cached_latents(tmp_path, space, images, False, CPU)
    assert visible(tmp_path) == []


def test_batches_draw_the_mirror_images_half_of_the_time():
    array = np.stack([np.zeros((5, 1, 2, 2), np.float32), np.ones((5, 1, 2, 2), np.float32)])
    array += 10 * np.arange(5, dtype=np.float32)[None, :, None, None, None]
    latents = Latents(array, torch.zeros(1), torch.ones(1), "")
    indices = torch.arange(5).repeat(400)
    drawn = latents.batch(indices, torch.Generator().manual_seed(0))[:, 0, 0, 0]
    assert torch.equal(drawn // 10, indices.float())
    assert 0.45 < (drawn % 10).mean() < 0.55
    assert torch.equal(drawn, latents.batch(indices, torch.Generator().manual_seed(0))[:, 0, 0, 0])
    assert torch.equal(latents.batch(indices)[:, 0, 0, 0], 10 * indices.float())  # without a generator: as they are


def test_every_level_survives_the_unit_range():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1)
    unit = to_unit_range(levels)
    assert unit.shape == (1, 1, 16, 16) and unit.min() == -1 and unit.max() == 1
    assert torch.equal(to_uint8(unit), levels)
    assert to_uint8(torch.tensor([-3.0, 3.0, 0.0]).view(1, 3, 1, 1)).flatten().tolist() == [0, 255, 128]


def test_weights_hash_sees_values_and_names():
    one, two = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    assert weights_hash(one) != weights_hash(two)
    two.load_state_dict(one.state_dict())
    assert weights_hash(one) == weights_hash(two)


def test_a_set_without_a_cache_draws_the_same_mirror_images_as_one_with(tmp_path, space, images):
    """Haar bands of images, some of them mirrored by the draws that a cache of latents would be read with."""
    bands, latents = OnTheFly(images, WaveletSpace(), True), cached_latents(tmp_path, space, images, True, CPU)
    indices = torch.tensor([3, 0, 10, 3])
    drawn = bands.batch(indices, torch.Generator().manual_seed(5))
    mirrored = torch.randint(2, (4,), generator=torch.Generator().manual_seed(5)).bool()
    assert 0 < int(mirrored.sum()) < 4
    torch.testing.assert_close(drawn, WaveletSpace().encode(to_unit_range(images.batch(indices, mirrored))))
    raw = latents.batch(indices, torch.Generator().manual_seed(5))
    torch.testing.assert_close(raw, latents.at(indices, mirrored), rtol=0, atol=0)
    assert torch.equal(bands.batch(indices), WaveletSpace().encode(to_unit_range(images.batch(indices))))
    assert (len(bands), bands.shape) == (11, (4, 4, 4)) and latents.shape == (2, 4, 4)
    hashes = {OnTheFly(images, kind(), flips).hash for kind in (WaveletSpace, PixelSpace) for flips in (True, False)}
    assert len(hashes) == 4
