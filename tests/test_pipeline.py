from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tiny import lively_model, tiny_config

import lddgan.models
from lddgan import Pipeline, UserError
from lddgan.data.latents import to_uint8
from lddgan.diffusion.sampler import sample
from lddgan.diffusion.schedule import Schedule
from lddgan.models import load_model
from lddgan.runtime.seeds import image_draws


@pytest.fixture(scope="module")
def pipe():
    config = tiny_config()
    return Pipeline(config, *lively_model(config), device="cpu")


def test_images_are_what_algorithm_1_gives(pipe):
    images = pipe(3, seed=5)
    assert images.dtype == np.uint8 and images.shape == (3, 8, 8, 1)
    schedule = Schedule(3)
    x, draws = image_draws(5, range(3), (2, 4, 4), 4, 3)
    with torch.inference_mode():
        for t, (z, noise) in zip((2, 1, 0), draws, strict=True):
            index = torch.full((3,), t)
            x = schedule.posterior_sample(pipe.generator(x, index, z), x, index, noise)
        expected = to_uint8(pipe.space.decode(x)).numpy()
    assert np.array_equal(images, expected)
    assert images.std() > 10 and np.abs(images[0].astype(int) - images[1]).mean() > 5  # they say something


def test_an_image_is_the_same_in_every_batch_and_order(pipe):
    reference = pipe(7, seed=1).astype(int)
    for batch in (1, 3, 7, 100):
        assert np.abs(pipe(7, seed=1, batch=batch).astype(int) - reference).max() <= 1
    shuffled = [4, 0, 6, 4]
    assert np.abs(pipe.draw(shuffled, seed=1).astype(int) - reference[shuffled]).max() <= 1
    assert np.abs(pipe(3, seed=1).astype(int) - reference[:3]).max() <= 1
    assert np.array_equal(pipe(7, seed=1), reference)
    assert np.abs(pipe(7, seed=2).astype(int) - reference).mean() > 5


def test_the_stream_comes_in_batches(pipe):
    assert [len(part) for part in pipe.stream(7, batch=3)] == [3, 3, 1]
    for n, batch in ((0, 3), (-1, 3), (3, 0)):
        with pytest.raises(UserError, match=f"cannot draw {n} images in batches of {batch}"):
            pipe(n, batch=batch)


def test_saved_and_loaded_it_draws_the_same(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "model")
    again = Pipeline.from_pretrained(tmp_path / "model", device="cpu")
    assert again.config == pipe.config and np.array_equal(again(4), pipe(4))
    pipe.save_pretrained(tmp_path / "half", torch.float16)
    half = Pipeline.from_pretrained(str(tmp_path / "half"), device="cpu")
    assert np.abs(half(4).astype(int) - pipe(4)).mean() < 2


def test_shipped_models_have_names(pipe, tmp_path, monkeypatch):
    monkeypatch.setattr(lddgan.models, "SHIPPED", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"there is no model 'small'.*\(none\)"):
        Pipeline.from_pretrained("small")
    pipe.save_pretrained(tmp_path / "shipped" / "small")
    assert np.array_equal(Pipeline.from_pretrained("small", device="cpu")(2), pipe(2))
    assert load_model("small")[0] == pipe.config  # and so does --init
    with pytest.raises(UserError, match=r"there is no model 'smal'.*\(small\)"):
        Pipeline.from_pretrained("smal")


def test_unknown_device(pipe):
    with pytest.raises(UserError, match="'tpu' is not available"):
        Pipeline(pipe.config, pipe.space, pipe.generator, device="tpu")


def test_the_gain_is_of_samples_alone():
    config = tiny_config()
    space, generator = lively_model(config)
    plain = Pipeline(config, space, generator, device="cpu")
    louder = Pipeline(dataclasses.replace(config, sample_gain=1.5), space, generator, device="cpu")
    x_0 = sample(generator, plain.schedule, *plain._draws(3, range(4)))
    assert (louder(4, seed=3) == plain.decode(1.5 * x_0)).mean() > 0.99  # but for rounding
    assert (louder.decode(louder.encode(plain(4))) == plain.decode(plain.encode(plain(4)))).all()
    assert (louder.vary(plain(4), 0.0) == plain.vary(plain(4), 0.0)).all()
