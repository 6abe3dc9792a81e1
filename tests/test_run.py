from __future__ import annotations

import dataclasses
import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import (
    SPACES,
    STEPS,
    assert_same_bits,
    lively_model,
    make_images,
    make_sets,
    spaced_config,
    tensors,
    tiny_config,
    visible,
)

import lddgan.gan.train
import lddgan.run
from lddgan import Pipeline
from lddgan.autoencoder.slim import SlimDecoder
from lddgan.config import load_yaml, save_yaml, with_fields
from lddgan.errors import RunStopped, UserError
from lddgan.interop.given import given_autoencoder
from lddgan.models import load_space, save_model
from lddgan.run import resume_run, start_run

HERE = dict(device="cpu", skip_broken=False)


@pytest.fixture
def copied_run(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")


def test_what_a_run_leaves(finished_run, tiny_data):
    names = visible(finished_run)
    for name in (
        "config.yaml", "run.json", "curves.png", "samples.png", "reconstructions.png", "autoencoder.safetensors",
        "checkpoints/stage1.pt", "checkpoints/stage2.pt", "curves/stage1.jsonl", "curves/stage2.jsonl",
        "samples/0000020.png", "samples/0000039.png", "cache/latents.f32", "model/config.json", "best/config.json",
    ):  # fmt: skip
        assert name in names
    assert not any(part.startswith(".") for name in names for part in name.split("/"))
    assert load_yaml(finished_run / "config.yaml") == tiny_config(tiny_data)
    facts = json.loads((finished_run / "run.json").read_text())
    assert (facts["seed"], facts["training_images"]) == (0, 39) and "threads" in facts["hardware"]
    assert Image.open(finished_run / "reconstructions.png").size == (8 * 50 + 2, 52)  # 4 images, each beside its own
    assert Image.open(finished_run / "samples.png").size == (8 * 50 + 2, 8 * 50 + 2)  # 64 images


def test_the_model_is_the_averaged_generator_with_the_measured_statistics(finished_run):
    state = torch.load(finished_run / "checkpoints" / "stage2.pt", weights_only=True)
    assert state["step"] == STEPS
    averaged = {
        name.removeprefix("module."): value for name, value in state["parts"]["ema"].items() if name != "n_averaged"
    }
    assert_same_bits(load_file(finished_run / "model" / "generator.safetensors"), averaged)
    space = load_file(finished_run / "model" / "autoencoder.safetensors")
    latents = np.fromfile(finished_run / "cache" / "latents.f32", np.float32).reshape(2, 39, 2, 4, 4)
    torch.testing.assert_close(space["mean"], torch.from_numpy(latents.mean((0, 1, 3, 4))), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(space["std"], torch.from_numpy(latents.std((0, 1, 3, 4))), atol=1e-5, rtol=1e-5)
    assert Pipeline.from_pretrained(finished_run, device="cpu")(3).shape == (3, 8, 8, 1)


def test_a_finished_run_resumed_changes_nothing_and_restores_a_model_that_a_kill_prevented(copied_run, finished_run):
    shutil.rmtree(copied_run / "model")  # killed between the last checkpoint and the model
    (copied_run / "checkpoints" / ".stage2.0123abcd.pt").write_bytes(b"half")  # and one kill in the middle of a save
    resume_run(copied_run, **HERE)
    for name in ("model/generator.safetensors", "model/autoencoder.safetensors", "model/config.json",
                 "checkpoints/stage1.pt", "checkpoints/stage2.pt", "cache/latents.f32"):  # fmt: skip
        assert (copied_run / name).read_bytes() == (finished_run / name).read_bytes(), name
    assert not (copied_run / "checkpoints" / ".stage2.0123abcd.pt").exists()


def test_a_folder_with_a_run_is_not_started_in(copied_run, tiny_data):
    before = visible(copied_run)
    with pytest.raises(UserError, match="already holds a run: continue it with --resume"):
        start_run(tiny_config(tiny_data), copied_run, **HERE)
    assert visible(copied_run) == before


def test_a_resume_with_a_changed_config_names_the_field(copied_run):
    text = (copied_run / "config.yaml").read_text()
    (copied_run / "config.yaml").write_text(text.replace("r1_every: 4", "r1_every: 5"))
    before = (copied_run / "checkpoints" / "stage2.pt").read_bytes()
    with pytest.raises(UserError, match=r"stage2\.r1_every was 4 and is now 5"):
        resume_run(copied_run, **HERE)
    assert (copied_run / "checkpoints" / "stage2.pt").read_bytes() == before


def test_a_resume_with_changed_images_is_noticed(copied_run, tiny_data, tmp_path):
    shutil.copytree(tiny_data, tmp_path / "images")
    for name in ("1.png", "2.png"):
        (tmp_path / "images" / "train" / name).unlink()
    text = (copied_run / "config.yaml").read_text()
    (copied_run / "config.yaml").write_text(text.replace(str(tiny_data), str(tmp_path / "images")))
    with pytest.raises(UserError, match="cannot resume"):
        resume_run(copied_run, **HERE)


def test_a_damaged_checkpoint_is_named(copied_run):
    file = copied_run / "checkpoints" / "stage2.pt"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"stage2\.pt' cannot be read"):
        resume_run(copied_run, **HERE)


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_nothing_to_resume(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"{name}' holds no run to resume"):
        resume_run(tmp_path / name, **HERE)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_too_few_images_stop_before_anything_is_written(tmp_path, cache, count):
    data = make_images(tmp_path / "few", count)
    with pytest.raises(UserError, match="few'"):  # two latent channels take eight training images
        start_run(tiny_config(data), tmp_path / "run", **HERE)
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there_stops_before_anything_is_written(tmp_path, tiny_data, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="'cuda' is not available"):
        start_run(tiny_config(tiny_data), tmp_path / "run", device="cuda", skip_broken=False)
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_set(tmp_path, cache):
    config = tiny_config(make_sets(tmp_path / "few", 9))
    stages = {
        name: dataclasses.replace(getattr(config, name), epochs=5, batch=16, report_every=100)
        for name in ("stage1", "stage2")
    }
    start_run(dataclasses.replace(config, **stages), tmp_path / "run", **HERE)
    assert torch.load(tmp_path / "run" / "checkpoints" / "stage2.pt", weights_only=True)["step"] == 5 * 9 // 16


def test_init_starts_from_the_weights_given(tmp_path, tiny_data, cache, monkeypatch):
    config = tiny_config(tiny_data, seed=3)
    space, generator = lively_model(config)
    save_model(tmp_path / "model", config, space, generator)
    seen = {}

    def note_autoencoder(config, autoencoder, *rest):
        seen["autoencoder"] = {name: value.clone() for name, value in autoencoder.state_dict().items()}

    def note_generator(config, generator, *rest):
        seen["generator"] = {name: value.clone() for name, value in generator.state_dict().items()}

    monkeypatch.setattr(lddgan.run, "train_autoencoder", note_autoencoder)
    monkeypatch.setattr(lddgan.run, "train_gan", note_generator)
    start_run(tiny_config(tiny_data), tmp_path / "run", init=str(tmp_path / "model"), **HERE)
    for _ in range(2):  # and where a kill came before the first checkpoint, the resume starts from them too
        assert_same_bits(seen["autoencoder"], space.autoencoder.state_dict())
        assert_same_bits(seen["generator"], generator.state_dict())
        seen.clear()
        resume_run(tmp_path / "run", **HERE)


def test_a_missing_perceptual_network_stops_before_anything_is_written(tmp_path, tiny_data, cache):
    config = tiny_config(tiny_data)
    stage1 = dataclasses.replace(config.stage1, perceptual="vgg16", perceptual_weights=str(tmp_path / "missing.pth"))
    with pytest.raises(UserError, match=r"cannot read the weights of vgg16 at .*missing\.pth"):
        start_run(dataclasses.replace(config, stage1=stage1), tmp_path / "run", **HERE)
    assert not (tmp_path / "run").exists()


def test_a_slim_decoder_that_is_given_keeps_its_linear_map(tmp_path, tiny_data, cache, monkeypatch):
    config = tiny_config(tiny_data)
    save_model(tmp_path / "model", config, *lively_model(config))
    fitted = []
    monkeypatch.setattr(SlimDecoder, "fit_shortcut", lambda self, *pairs: fitted.append(pairs))
    decoder_alone = dataclasses.replace(config, stages=("decoder",))
    start_run(decoder_alone, tmp_path / "run", init=str(tmp_path / "model"), **HERE)
    assert fitted == []
    start_run(dataclasses.replace(config, stages=("autoencoder", "decoder")), tmp_path / "new", **HERE)
    assert len(fitted) == 1


@pytest.mark.parametrize(
    ("part", "change", "says"),
    [
        ("generator", {"width": 16}, "generator.width 8, not 16: set --generator.width '8'"),
        ("autoencoder", {"latent_channels": 3}, "autoencoder.latent_channels 2, not 3"),
        ("images", {"channels": 3}, "images.channels 1, not 3"),
    ],
)
def test_init_of_other_sizes(tmp_path, tiny_data, part, change, says):
    config = tiny_config(tiny_data)
    save_model(tmp_path / "model", config, *lively_model(config))
    other = dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **change)})
    with pytest.raises(UserError, match=says):
        start_run(other, tmp_path / "run", init=str(tmp_path / "model"), **HERE)
    with pytest.raises(UserError, match="there is no model"):
        start_run(config, tmp_path / "run", init=str(tmp_path / "missing"), **HERE)
    assert not (tmp_path / "run").exists()


def test_a_run_that_diverges_stops_and_its_checkpoint_still_loads(tmp_path, tiny_data, cache):
    config = tiny_config(tiny_data)
    config = dataclasses.replace(
        config,
        stage1=dataclasses.replace(config.stage1, epochs=1),
        stage2=dataclasses.replace(config.stage2, learning_rate_generator=1e30, cosine_decay=False),
        checkpoint_seconds=1e-3,  # after every step: the second already diverges
    )
    with pytest.raises(RunStopped, match="is not finite, so the run stopped.*start a new run") as stopped:
        start_run(config, tmp_path / "run", **HERE)
    assert stopped.value.exit_code == 1 and "go on with" not in str(stopped.value)  # it would diverge again
    state = torch.load(tmp_path / "run" / "checkpoints" / "stage2.pt", weights_only=True)
    assert 1 <= state["step"] < 10
    assert all(bool(value.isfinite().all()) for value in state["parts"]["generator"].values())


def test_a_full_disk_is_a_sentence_and_the_run_can_go_on(copied_run, finished_run, monkeypatch):
    for name in ("model/generator.safetensors", "checkpoints/stage2.pt"):
        (copied_run / name).unlink()
    config = load_yaml(copied_run / "config.yaml")
    save_yaml(dataclasses.replace(config, checkpoint_seconds=1e-3), copied_run / "config.yaml")

    def fill_the_disk(folder, *rest):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lddgan.run, "save_grid", fill_the_disk)
    with pytest.raises(RunStopped, match="No space left on device.*go on with: lddgan train --resume"):
        resume_run(copied_run, **HERE)
    assert 0 < torch.load(copied_run / "checkpoints" / "stage2.pt", weights_only=True)["step"] < STEPS
    monkeypatch.undo()
    resume_run(copied_run, **HERE)
    for name in ("model/generator.safetensors", "best/generator.safetensors"):
        assert (copied_run / name).read_bytes() == (finished_run / name).read_bytes(), name


def test_interrupted_between_the_stages(copied_run, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(lddgan.run, "cached_latents", interrupt)
    with pytest.raises(RunStopped, match=r"go on with: lddgan train --resume \S+run$") as stopped:
        resume_run(copied_run, **HERE)
    assert stopped.value.exit_code == 130
    with pytest.raises(RunStopped, match=r"go on with: lddgan train --resume \S+run --skip-broken$"):
        resume_run(copied_run, device="cpu", skip_broken=True)


def test_a_decoder_alone_is_trained_for_a_given_model_whose_other_networks_stay(tmp_path, tiny_data, finished_run):
    config = tiny_config(tiny_data, stages=("decoder",), seed=5)
    start_run(config, tmp_path / "run", init=str(finished_run), **HERE)
    ours, theirs = (load_file(run / "model" / "autoencoder.safetensors") for run in (tmp_path / "run", finished_run))
    changed = {name.split(".")[0] for name in ours if not torch.equal(ours[name], theirs[name])}
    assert changed == {"slim_decoder"}
    file = Path("model") / "generator.safetensors"
    assert (tmp_path / "run" / file).read_bytes() == (finished_run / file).read_bytes()
    assert not (tmp_path / "run" / "checkpoints" / "stage1.pt").exists()


def test_an_autoencoder_alone_and_then_a_run_on_it(tmp_path, tiny_data, finished_run):
    start_run(tiny_config(tiny_data, stages=("autoencoder",)), tmp_path / "one", **HERE)
    assert not (tmp_path / "one" / "model").exists() and not (tmp_path / "one" / "cache").exists()
    assert load_space(tmp_path / "one")[1].slim_decoder is None  # it has not been trained
    config, autoencoder = given_autoencoder(str(tmp_path / "one"), tiny_config(tiny_data))
    assert config.stages == ("decoder", "gan")
    start_run(config, tmp_path / "two", given={"autoencoder": autoencoder}, **HERE)
    file = Path("model") / "autoencoder.safetensors"
    assert_same_bits(load_file(tmp_path / "two" / file), load_file(finished_run / file))


@pytest.mark.parametrize("stages", [("decoder",), ("gan",), ("decoder", "gan")])
def test_a_stage_left_out_needs_its_weights_from_somewhere(tmp_path, tiny_data, stages):
    with pytest.raises(UserError, match="the stage autoencoder is left out, so its weights must come from --init"):
        start_run(tiny_config(tiny_data, stages=stages), tmp_path / "run", **HERE)
    assert not (tmp_path / "run").exists()


def test_a_slim_decoder_left_out_must_be_given_too(tmp_path, tiny_data, finished_run):
    given = {"autoencoder": load_space(finished_run)[1].autoencoder}
    with pytest.raises(UserError, match="the stage decoder is left out"):
        start_run(tiny_config(tiny_data, stages=("gan",)), tmp_path / "run", given=given, **HERE)


@pytest.mark.parametrize("name", SPACES)
def test_a_run_without_an_autoencoder_is_resumed_to_the_same_bits(tiny_data, cache, tmp_path, monkeypatch, name):
    config = with_fields(spaced_config(name, tiny_data), {"stage2.epochs": 3, "stage2.report_every": 10})
    start_run(config, tmp_path / "whole", **HERE)
    names = visible(tmp_path / "whole")
    assert "model/generator.safetensors" in names and "samples.png" in names
    assert not any("autoencoder" in name or "latents" in name or "stage1" in name for name in names)

    monkeypatch.setattr(lddgan.gan.train, "interruptible", lambda: stopping_at(6))
    with pytest.raises(RunStopped, match="stopped after step 6 of stage 2"):
        start_run(config, tmp_path / "parts", **HERE)
    monkeypatch.undo()
    resume_run(tmp_path / "parts", **HERE)
    whole, parts = (
        tensors(torch.load(tmp_path / run / "checkpoints" / "stage2.pt", weights_only=True))
        for run in ("whole", "parts")
    )
    assert_same_bits(whole, parts)
    pipe = Pipeline.from_pretrained(tmp_path / "parts", "cpu")
    assert pipe(3).shape == (3, 8, 8, 1) and (pipe(3)[1:] == pipe.draw([1, 2])).all()
    rows = [json.loads(line) for line in (tmp_path / "whole" / "curves" / "stage2.jsonl").read_text().splitlines()]
    assert any(f"FD[{config.space}]" in row for row in rows)


class stopping_at:
    """In place of `interruptible`: a signal comes while step `number` is computed."""

    def __init__(self, number: int) -> None:
        self.number, self.asked = number, 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    @property
    def signal(self) -> int:
        self.asked += 1  # once to save and once to stop, in every step
        return 15 if self.asked >= self.number else 0


@pytest.fixture(scope="module")
def pixel_run(tiny_data, cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "pixels"
    start_run(with_fields(spaced_config("pixels", tiny_data), {"stage2.epochs": 1}), folder, **HERE)
    return folder


def test_a_model_without_an_autoencoder_is_fine_tuned_and_gives_none(pixel_run, tiny_data, cache, tmp_path):
    config = with_fields(spaced_config("pixels", tiny_data), {"stage2.epochs": 1})
    start_run(config, tmp_path / "tuned", **HERE, init=str(pixel_run))
    assert (tmp_path / "tuned" / "init" / "generator.safetensors").exists()
    with pytest.raises(UserError, match="has no autoencoder, it draws pixels: give one of a latent space"):
        load_space(pixel_run)
    with pytest.raises(UserError, match="has no autoencoder, it draws pixels: leave --autoencoder out"):
        given_autoencoder(str(pixel_run), config)
    with pytest.raises(UserError, match="draws in the space pixels, not latent: take a recipe of that"):
        start_run(tiny_config(tiny_data), tmp_path / "latent", **HERE, init=str(pixel_run))
    assert not (tmp_path / "latent").exists()


def test_a_start_from_other_networks_is_refused_before_anything_is_written(pixel_run, tiny_data, cache, tmp_path):
    vit = with_fields(spaced_config("vit", tiny_data), {"stage2.epochs": 1})
    start_run(vit, tmp_path / "vit", **HERE)
    larger = with_fields(vit, {"images.resolution": 16})
    for init, config, says in (
        (pixel_run, vit, "has another kind of generator: take a recipe with the same"),
        (tmp_path / "vit", spaced_config("pixels", tiny_data), "has another kind of generator"),
        (tmp_path / "vit", larger, r"draws x_0 of \[1, 8, 8\], not \[1, 16, 16\]: set --images.resolution 8"),
    ):
        with pytest.raises(UserError, match=says):
            start_run(config, tmp_path / "next", **HERE, init=str(init))
        assert not (tmp_path / "next").exists()


def test_the_report_of_a_run_without_an_autoencoder(pixel_run, tmp_path):
    from lddgan.reports.page import write_report

    page = write_report(pixel_run, "cpu", 4, out=tmp_path / "page.html").read_text()
    assert "The space is pixels: it has no autoencoder" in page and "stage 1" not in page
    assert "encoder, not used to draw" not in page


def test_a_model_for_drawing_only_is_no_start(tiny_data, cache, tmp_path):
    config = tiny_config(tiny_data)
    save_model(tmp_path / "drawing", config, *lively_model(config), drawing_only=True)
    with pytest.raises(UserError, match="saved for drawing only, without its autoencoder"):
        start_run(config, tmp_path / "next", **HERE, init=str(tmp_path / "drawing"))
    assert not (tmp_path / "next").exists()
