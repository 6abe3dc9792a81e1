from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from lddgan import UserError
from lddgan.data.digits import load_digits, scale_digits

pytest.importorskip("sklearn")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import digits as benchmark  # noqa: E402  # pyright: ignore[reportMissingImports]
import samples as shared  # noqa: E402  # pyright: ignore[reportMissingImports]


@pytest.fixture(scope="module")
def real():
    pixels, labels = load_digits()
    return pixels.reshape(-1, 64).astype(np.float64), labels.astype(int)


@pytest.fixture(scope="module")
def classifier(real):
    digits, labels = real
    return benchmark.train_classifier(digits[::2], labels[::2])


def missed(values: dict) -> set[str]:
    return {name for name, bar in benchmark.BARS.items() if values[name] < bar}


def test_held_out_digits_pass_against_the_others(real, classifier):
    digits, labels = real
    values = benchmark.measure(digits[1::2], digits[::2], labels[::2], classifier)
    assert missed(values) == set()
    assert values["novelty"] == pytest.approx(1, abs=0.1) and values["variety"] == pytest.approx(1, abs=0.25)
    assert sum(values["shares"]) == pytest.approx(1)


def test_copies_fail_on_novelty_alone(real, classifier):
    digits, labels = real
    values = benchmark.measure(digits[:1000], digits, labels, classifier)
    assert missed(values) == {"novelty"} and values["novelty"] == 0 and values["precision"] == 1


def test_mean_images_fail_on_variety_and_recall(real, classifier):
    digits, labels = real
    means = np.stack([digits[labels == digit].mean(axis=0) for digit in range(10)])
    values = benchmark.measure(np.repeat(means, 100, axis=0), digits, labels, classifier)
    assert missed(values) == {"variety", "recall"}
    assert values["variety"] == pytest.approx(0, abs=1e-9) and values["recall"] == 0
    np.testing.assert_allclose(values["shares"], 0.1)


def test_a_lost_digit_and_noise_fail(real, classifier):
    digits, labels = real
    values = benchmark.measure(digits[labels != 8], digits, labels, classifier)
    assert "rarest digit" in missed(values) and values["rarest digit"] == values["shares"][8] < 0.04
    noise = np.random.default_rng(0).uniform(0, 16, (500, 64))
    assert {"confident", "recall"} <= missed(benchmark.measure(noise, digits, labels, classifier))


def test_variety_is_the_ratio_of_variances_summed_over_pixels(real, classifier):
    digits, labels = real
    predicted = classifier.predict_proba(digits).argmax(axis=1)
    means = np.stack([digits[predicted == digit].mean(axis=0) for digit in range(10)])[predicted]
    shrunk = means + 0.9 * (digits - means)
    shrunk_labels = classifier.predict_proba(shrunk).argmax(axis=1)
    values = benchmark.measure(shrunk, digits, labels, classifier)
    expected = [
        np.var(shrunk[shrunk_labels == d], axis=0).sum() / np.var(digits[labels == d], axis=0).sum() for d in range(10)
    ]
    np.testing.assert_allclose(values["varieties"], expected)
    assert values["variety"] == pytest.approx(min(expected)) and values["variety"] == pytest.approx(0.81, abs=0.1)


def test_larger_samples_are_averaged_over_boxes_on_the_scale_of_the_digits():
    pixels, _ = load_digits()
    grey = scale_digits(pixels[:5])[..., None]
    np.testing.assert_allclose(benchmark.box_average(grey), pixels[:5].reshape(5, 64), atol=0.04)
    doubled = grey.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(benchmark.box_average(doubled), benchmark.box_average(grey))
    board = (np.indices((16, 16)).sum(axis=0) % 2 * 255).astype(np.uint8)[None, :, :, None]
    np.testing.assert_allclose(benchmark.box_average(board), 8)
    for shape in ((2, 12, 12, 1), (2, 16, 16, 3), (2, 16, 8, 1)):
        with pytest.raises(UserError, match="multiple"):
            benchmark.box_average(np.zeros(shape, dtype=np.uint8))


def test_the_program_prints_one_json_line_and_its_exit_code_tells_the_verdict(tmp_path, capsys):
    pixels, _ = load_digits()
    np.savez(tmp_path / "copies.npz", images=scale_digits(pixels)[..., None])
    assert benchmark.run(["--samples", str(tmp_path / "copies.npz"), "--n", "300", "--device", "cpu"]) == 1
    out = capsys.readouterr().out
    result = json.loads(out.strip().splitlines()[-1])
    assert result["samples"] == 300 and result["passed"] is False and result["novelty"] < 0.01
    assert result["held_out"]["confident"] == pytest.approx(0.76, abs=0.01)
    assert "MISSED" in next(line for line in out.splitlines() if line.startswith("novelty"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either a model folder or --samples"),
        (["--samples", "{folder}/absent.npz"], "cannot read"),
        (["--samples", "{folder}/text.npz"], "cannot read"),
        (["--samples", "{folder}/floats.npz"], "0 arrays of uint8 images"),
        (["--samples", "{folder}/few.npz"], "holds only 3 images"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(tmp_path, capsys, arguments, message):
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "floats.npz", images=np.zeros((3, 8, 8, 1)))
    np.savez(tmp_path / "few.npz", images=np.zeros((3, 8, 8, 1), dtype=np.uint8))
    filled = [argument.format(folder=tmp_path) for argument in arguments]
    assert shared.exit_code(lambda: benchmark.run(filled)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
