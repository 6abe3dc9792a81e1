from __future__ import annotations

import io
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import visible

from lddgan import Pipeline, UserError
from lddgan.cli.main import run
from lddgan.reports.grid import image_grid


@pytest.fixture(scope="module")
def expected(finished_run):
    return Pipeline.from_pretrained(finished_run, device="cpu")(5, seed=3)


def sample(model, *arguments: object) -> None:
    run(["sample", str(model), "-n", "5", "--seed", "3", "--device", "cpu", *map(str, arguments)])


def test_every_form_of_output_holds_the_images(finished_run, expected, tmp_path, capsys):
    for name in ("folder", "x.zip", "x.npz", "x.png"):
        sample(finished_run, "--out", tmp_path / name)
        assert f"5 images of seed 3 in '{tmp_path / name}'" in capsys.readouterr().out
    assert np.array_equal(np.load(tmp_path / "x.npz")["arr_0"], expected)
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        for i in range(5):
            for file in (tmp_path / "folder" / f"{i:06d}.png", io.BytesIO(archive.read(f"{i:06d}.png"))):
                assert np.array_equal(np.asarray(Image.open(file)), expected[i, ..., 0])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "x.png")), np.asarray(image_grid(expected)))
    assert len(visible(tmp_path)) == 8


def test_the_batch_does_not_change_them(finished_run, expected, tmp_path):
    sample(finished_run / "model", "--out", tmp_path / "x.npz", "--batch", 2)
    assert np.abs(np.load(tmp_path / "x.npz")["arr_0"].astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-n", "0"], "cannot draw 0 images"),
        (["-n", "-3"], "cannot draw -3 images"),
        (["-n", "many"], "many"),
        (["--batch", "0"], "batches of 0"),
        (["--out", "x.gif"], "cannot write images to 'x.gif'"),
        (["--out", "file/x.zip"], "'file'"),
        (["--out", "file/x.png"], "'file'"),
        (["--out", "file/x"], "'file/x'"),
        (["--out", "file"], "'file'"),
        (["--out", "x.png", "-n", "5000"], "5000 images is too large"),
        (["--device", "tpu"], "tpu"),
    ],
)
def test_bad_arguments(finished_run, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=says) as caught:
        run(["sample", str(finished_run), "--device", "cpu", *arguments])
    assert "\n" not in str(caught.value) and visible(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["config.json", "autoencoder.safetensors", "generator.safetensors"])
@pytest.mark.parametrize("size", [None, 0, 100])
def test_a_model_with_a_missing_or_truncated_file(finished_run, tmp_path, name, size):
    model = shutil.copytree(finished_run / "model", tmp_path / "model")
    if size is None:
        (model / name).unlink()
    else:
        (model / name).write_bytes((model / name).read_bytes()[:size])
    with pytest.raises(UserError, match=name):
        sample(model, "--out", tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


def test_no_model_and_no_device(finished_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="there is no model 'nowhere'"):
        run(["sample", "nowhere"])
    with pytest.raises(UserError, match="'cuda' is not available"):
        run(["sample", str(finished_run), "--device", "cuda"])
    assert visible(tmp_path) == []
