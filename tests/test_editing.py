from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny import lively_model, spaced_config, tiny_config

import lddgan.pipeline as module
from lddgan import Pipeline
from lddgan.diffusion.schedule import Schedule
from lddgan.editing import fill, slerp, start_step, unknown_places, vary
from lddgan.errors import UserError
from lddgan.models import build_generator, build_space


@pytest.fixture(scope="module")
def pipe():
    config = tiny_config(slim_decoder=None)
    return Pipeline(config, *lively_model(config), device="cpu")


@pytest.fixture(scope="module")
def pixel_pipe():
    config = spaced_config("pixels", "digits")
    generator = build_generator(config)
    with torch.no_grad():
        generator.conv_out.weight.normal_(std=0.3)
    return Pipeline(config, build_space(config), generator, device="cpu")


def images(n: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)


def test_spheres():
    a, b = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]]), torch.tensor([[0.0, 3.0], [0.0, 2.0], [-1.0, 1.0]])
    for share, expected in (
        (0.0, a), (1.0, b), (0.5, torch.tensor([[3 / math.sqrt(2)] * 2, [0.0, 2.0], [0.0, math.sqrt(2)]]))
    ):  # fmt: skip
        torch.testing.assert_close(slerp(a, b, torch.full((3,), share)), expected, rtol=0, atol=1e-5)
    noise_a, noise_b = torch.randn(2, 1, 4, 30, 30).unbind()
    lengths = [slerp(noise_a, noise_b, torch.tensor([share])).norm().item() for share in (0, 0.3, 0.5, 1)]
    assert max(lengths) < 1.05 * min(lengths)  # a straight line would lose a third in the middle


def test_a_morph_leads_from_one_seed_to_the_other(pipe, monkeypatch):
    frames = pipe.interpolate(3, 8, 5)
    assert frames.shape == (5, 8, 8, 1) and frames.dtype == np.uint8
    for end, seed in ((0, 3), (4, 8)):
        assert np.abs(frames[end].astype(int) - pipe.draw([0], seed)[0]).max() <= 1
    steps = np.abs(np.diff(frames.astype(int), axis=0)).mean((1, 2, 3))
    assert steps.min() > 0 and steps.max() < np.abs(frames[4].astype(int) - frames[0]).mean()  # none jumps all the way
    monkeypatch.setattr(module, "BATCH", 2)
    assert np.abs(pipe.interpolate(3, 8, 5).astype(int) - frames).max() <= 1


def test_strength_0_is_the_reconstruction_and_1_a_fresh_sample(pipe):
    assert (pipe.vary(images(), 0, seed=5) == pipe.decode(pipe.encode(images()))).all()
    assert (pipe.vary(images(), 1, seed=5) == pipe(3, seed=5)).all()
    assert not (pipe.vary(images(), 0.67, seed=5) == pipe(3, seed=5)).all()


def test_between_them_an_image_is_noised_and_denoised():
    """With a generator that knows the image, it comes back from any level; with one that does not, it is forgotten."""
    schedule, x_0 = Schedule(4), torch.randn(2, 1, 4, 4)
    draws = torch.randn(2, 1, 4, 4), [(torch.randn(2, 3), torch.randn(2, 1, 4, 4)) for _ in range(4)]
    seen = []

    def knows(x, t, z):
        seen.append((int(t[0]), x))
        return x_0

    torch.testing.assert_close(vary(knows, schedule, x_0, draws, 2), x_0, rtol=0, atol=1e-5)
    assert [t for t, _ in seen] == [1, 0]
    expected = schedule.cumulative_scale[2] * x_0 + schedule.cumulative_std[2] * draws[0]
    torch.testing.assert_close(seen[0][1], expected)
    assert vary(knows, schedule, x_0, draws, 0) is x_0
    seen.clear()
    vary(knows, schedule, x_0, draws, 4)
    assert torch.equal(seen[0][1], draws[0])  # of x_0 nothing is left


@pytest.mark.parametrize(("strength", "step"), [(0, 0), (0.12, 0), (0.13, 1), (0.5, 2), (0.9, 4), (1, 4)])
def test_strength_to_step(strength, step):
    assert start_step(strength, 4) == step


def test_filling_keeps_what_is_known_and_draws_the_rest(pipe, pixel_pipe):
    for model in (pipe, pixel_pipe):
        mask = np.zeros((8, 8), bool)
        mask[2:6, 3:7] = True
        filled = model.fill(images(), mask, seed=1)
        assert (filled[:, ~mask] == images()[:, ~mask]).all()
        assert (filled[:, mask] != images()[:, mask]).mean() > 0.5
        assert (filled[:, mask] != model.fill(images(), mask, seed=2)[:, mask]).mean() > 0.3
        assert (filled == model.fill(images(), np.stack([mask] * 3), seed=1)).all()
        assert (model.fill(images(), np.zeros((8, 8), bool)) == images()).all()


def test_what_is_drawn_sees_what_is_known():
    """Known places of x_0 stay to the bit, and every step's generator sees them at that step's noise level."""
    schedule, x_0, seen = Schedule(3), torch.full((1, 1, 4, 4), 2.0), []
    noise = torch.randn(1, 1, 4, 4)
    draws = noise, [(torch.randn(1, 3), torch.randn(1, 1, 4, 4)) for _ in range(3)]
    unknown = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    unknown[..., :2] = True

    def generator(x, t, z):
        seen.append((int(t[0]), x))
        return torch.zeros_like(x)

    result = fill(generator, schedule, x_0, unknown, draws)
    assert torch.equal(result[~unknown], x_0[~unknown]) and torch.equal(result[unknown], torch.zeros(8))
    for t, x in seen[1:]:
        expected = schedule.cumulative_scale[t + 1] * x_0 + schedule.cumulative_std[t + 1] * noise
        torch.testing.assert_close(x[~unknown], expected[~unknown])


def test_a_place_is_drawn_where_any_of_its_pixels_is():
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 3, 4] = True
    assert unknown_places(mask, 4).nonzero().tolist() == [[0, 0, 1, 2]]
    assert torch.equal(unknown_places(mask, 8)[0], mask)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda pipe: pipe.encode(images()[..., 0]), r"takes uint8 images \[n, 8, 8, 1\], not uint8 \[3, 8, 8\]"),
        (lambda pipe: pipe.encode(images().astype(np.float32)), "not float32"),
        (lambda pipe: pipe.vary(np.zeros((1, 16, 16, 1), np.uint8), 0.5), r"not uint8 \[1, 16, 16, 1\]"),
        (lambda pipe: pipe.vary(images(), 1.5), "strength 1.5 is not between 0 and 1: 0 keeps"),
        (lambda pipe: pipe.vary(images(), float("nan")), "strength nan"),
        (lambda pipe: pipe.interpolate(1, 2, 1), "ask for at least 2"),
        (lambda pipe: pipe.fill(images(), np.zeros((4, 4), bool)), r"the mask is bool \[4, 4\]: give bool \[8, 8\]"),
        (lambda pipe: pipe.fill(images(), np.zeros((8, 8), np.uint8)), "the mask is uint8"),
        (lambda pipe: pipe.fill(images(), np.zeros((2, 8, 8), bool)), r"bool \[2, 8, 8\]"),
    ],
)  # fmt: skip
def test_bad_input_is_a_sentence(pipe, call, says):
    with pytest.raises(UserError, match=says) as caught:
        call(pipe)
    assert "\n" not in str(caught.value)
