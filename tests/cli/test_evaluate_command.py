from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from tiny import make_images

from lddgan import UserError
from lddgan.cli.main import run

FEATURES = ("--features", "efficientnet-lite0", "--device", "cpu")


@pytest.fixture(autouse=True)
def _few_features(monkeypatch):
    """1,280 features would take 1,281 images for a covariance; eight take nine."""
    from lddgan.metrics.features import EfficientNetLite0

    forward = EfficientNetLite0.forward

    def first_eight(self, images):
        features, logits = forward(self, images)
        return features[:, :8].contiguous(), logits

    monkeypatch.setattr(EfficientNetLite0, "forward", first_eight)
    monkeypatch.setattr(EfficientNetLite0, "dim", 8)


def evaluate(capsys, tmp_path, *arguments: object) -> dict:
    out = tmp_path / "out" / "metrics.json"
    run(["evaluate", *map(str, arguments), *FEATURES, "--out", str(out), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert json.loads(out.read_text()) == printed
    return printed


def test_a_model_against_its_own_data(finished_run, tmp_path, capsys):
    metrics = evaluate(capsys, tmp_path, finished_run, "--n", 30, "--seed", 4)
    assert metrics["score"] == "FD[efficientnet-lite0]" and metrics["features"] == "efficientnet-lite0"
    assert (metrics["n_samples"], metrics["n_reference"]) == (30, 39)
    assert metrics["samples"]["seed"] == 4 and metrics["samples"]["steps"] == 3
    assert metrics["reference"]["split"] == "train" and metrics["protocol"] == "png"
    for name in ("frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage"):
        assert np.isfinite(metrics[name])
    again = evaluate(capsys, tmp_path, finished_run, "--n", 30, "--seed", 4)
    assert again["frechet_distance"] == metrics["frechet_distance"]


def test_two_sets_the_jpeg_protocol_and_exported_statistics(cache, tmp_path, capsys):
    one, other = make_images(tmp_path / "one", 20, 16), make_images(tmp_path / "other", 20, 16, "RGB")
    same = evaluate(capsys, tmp_path, "--samples", one, "--data", one, "--split", "all")
    assert same["frechet_distance"] < 1e-6 and same["recall"] == 1
    jpeg = evaluate(capsys, tmp_path, "--samples", one, "--data", one, "--split", "all", "--protocol", "jpeg")
    assert jpeg["frechet_distance"] > 1e-5 and jpeg["protocol"] == "jpeg"
    arguments = ("--samples", one, "--data", other, "--split", "all", "--channels", 3)
    whole = evaluate(capsys, tmp_path, *arguments, "--export-reference", tmp_path / "s.npz")
    alone = evaluate(capsys, tmp_path, "--samples", one, "--channels", 3, "--reference", tmp_path / "s.npz")
    assert alone["frechet_distance"] == pytest.approx(whole["frechet_distance"], rel=1e-6)
    assert alone["recall"] is None


def test_the_table_names_score_and_protocol(cache, tmp_path, capsys):
    one = make_images(tmp_path / "one", 20, 16)
    out = tmp_path / "m.json"
    run(["evaluate", "--samples", str(one), "--data", str(one), "--split", "all", *FEATURES, "--out", str(out)])
    text = capsys.readouterr().out
    assert "FD[efficientnet-lite0]" in text and "FID" not in text
    for line in ("precision", "features ", "protocol   png", "samples    20 of one", "reference  20 of one"):
        assert line in text


def test_bad_input_is_one_sentence(finished_run, cache, tmp_path):
    one = make_images(tmp_path / "one", 20, 16)
    large = make_images(tmp_path / "large", 20, 24)
    colour = make_images(tmp_path / "colour", 20, 16, "RGB")
    few = make_images(tmp_path / "few", 7, 16)
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "nan.npz", mu=np.full(8, np.nan), sigma=np.eye(8))
    np.savez(tmp_path / "other.npz", mu=np.zeros(64), sigma=np.eye(64))
    Image.new("L", (16, 12)).save(tmp_path / "x.png")
    everything = ("--data", one, "--split", "all")
    for arguments, message in (
        ((), "either a MODEL or --samples"),
        ((finished_run, "--samples", one), "either a MODEL or --samples"),
        (("--samples", one), "--data PATH"),
        ((finished_run, "--n", 0), "cannot measure 0 samples"),
        ((finished_run, "--resolution", 16), "its own resolution"),
        (("--samples", large, *everything), "24x24 and the data 16x16"),
        (("--samples", colour, *everything), "3 channels and the data 1"),
        (("--samples", few, *everything), "7 samples are too few"),
        (("--samples", tmp_path / "empty", *everything), "empty'"),
        (("--samples", one, "--reference", tmp_path / "nan.npz"), "NaN"),
        (("--samples", one, "--reference", tmp_path / "other.npz"), "another network"),
        (("--samples", one, *everything, "--reference", tmp_path / "other.npz"), "either --data or --reference"),
        (("--samples", one, *everything, "--n", 99), "holds 20 images, not 99"),
    ):
        with pytest.raises(UserError, match=message):
            run(["evaluate", *map(str, arguments), *FEATURES, "--out", str(tmp_path / "m.json")])
    assert not (tmp_path / "m.json").exists()
    with pytest.raises(UserError, match=r"\.json file"):
        run(["evaluate", str(finished_run), *FEATURES, "--out", str(tmp_path / "m.txt")])
