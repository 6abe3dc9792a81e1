from __future__ import annotations

import shutil

import pytest
import torch
import yaml
from bad_data import CASES
from tiny import make_images, tiny_config, visible

from lddgan import Pipeline
from lddgan.cli.main import run
from lddgan.cli.train import resolve
from lddgan.config import UVitConfig, dump_yaml, from_dict, load_yaml, save_yaml
from lddgan.errors import UserError
from lddgan.recipes import demo


def test_overrides_are_fields_of_a_recipe():
    config = resolve(
        "demo",
        "elsewhere",
        ["--stage1.batch", "16", "--stage2.learning-rate-generator=3e-4", "--generator.multipliers", "1,2,2",
         "--images.flips", "true", "--stage2.objective", "adversarial", "--seed", "7"],
    )  # fmt: skip
    assert (config.data, config.stage1.batch, config.stage2.learning_rate_generator) == ("elsewhere", 16, 3e-4)
    assert (config.generator.multipliers, config.images.flips, config.seed) == ((1, 2, 2), True, 7)
    assert config.stage2.objective == "adversarial" and config.autoencoder == demo().autoencoder
    assert resolve("demo", None, ["--generator.attention_resolutions", "[4]"]).generator.attention_resolutions == (4,)
    assert resolve("demo", None, []) == demo()


def test_a_whole_part_can_be_given():
    vit = "{patch: 1, embed_dim: 8, depth: 3, num_heads: 2, latent_dim: 4}"
    assert resolve("demo", None, ["--generator", vit]).generator == UVitConfig(
        patch=1, embed_dim=8, depth=3, num_heads=2, latent_dim=4
    )
    config = resolve("demo", None, ["--space", "pixels", "--discriminator.num_layers", "4"])
    assert config.autoencoder is None and config.space_shape == (1, 8, 8)


def test_a_yaml_file_is_a_config_too(tmp_path):
    save_yaml(tiny_config(), tmp_path / "x.yaml")
    assert resolve(str(tmp_path / "x.yaml"), None, []) == tiny_config()
    assert resolve(str(tmp_path / "x.yaml"), None, ["--seed", "4"]) == tiny_config(seed=4)
    with pytest.raises(UserError, match="no config file '.*missing.yaml'"):
        resolve(str(tmp_path / "missing.yaml"), None, [])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["dmo"], "there is no recipe 'dmo': did you mean 'demo'"),
        (["demo", "--stage1.batch", "-8"], "stage1.batch = -8"),
        (["demo", "--stage1.batch=-8"], "stage1.batch = -8"),
        (["demo", "--stage1.epoch", "8"], "did you mean 'stage1.epochs'"),
        (["demo", "--stage1.batch"], "--stage1.batch has no value"),
        (["demo", "--stage1", "8"], "stage1 = 8"),
        (["demo", "--seed.x", "8"], "there is no field 'seed.x'"),
        (["demo", "--stage1.batch", "[1"], "--stage1.batch .* cannot be read"),
        (["demo", "twice"], "'twice' is one argument too many"),
        (["demo", "--images.resolution", "10"], "resolution 10"),
        (["demo", "--diffusion.beta_min", "30"], "beta_min < beta_max"),
        (["demo", "--device", "tpu"], "tpu"),
        (["celebahq256"], "needs images: give --data"),
        (["folder"], "needs images: give --data"),
        (["--resume", "missing"], "'missing' holds no run"),
        (["--resume", "missing", "--seed", "3"], "takes the run as it is"),
        (["--resume", "missing", "--dry-run"], "takes the run as it is"),
    ],
)
def test_bad_arguments(arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=says) as caught:
        run(["train", *arguments])
    assert "\n" not in str(caught.value) and visible(tmp_path) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_bad_data_leaves_nothing_behind(case, tmp_path, monkeypatch, cache):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    data, says = case(tmp_path)
    before = visible(tmp_path)
    with pytest.raises(UserError, match=says) as caught:
        run(["train", "folder", "--data", str(data), "--out", "runs/x", "--device", "cpu"])
    assert "\n" not in str(caught.value)
    assert visible(tmp_path) == before and not (tmp_path / "work" / "runs").exists()


def test_mixed_channels_stop_with_a_choice_also_beyond_folder(tmp_path, cache):
    with pytest.raises(UserError, match="must be 1, 3 or 4"):
        resolve("folder", str(make_images(tmp_path / "x", 12, 16)), ["--images.channels", "two"])
    for resolution in ("abc", "20", "-8"):
        with pytest.raises(UserError, match=resolution):
            resolve("folder", str(tmp_path / "x"), ["--images.resolution", resolution])


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_folder_follows_the_data(tmp_path, cache, mode):
    data = make_images(tmp_path / "x", 12, 70, mode)
    config = resolve("folder", str(data), [])
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    assert (config.images.resolution, config.images.channels, config.data) == (64, channels, str(data))
    assert resolve("folder", str(data), ["--images.resolution", "16"]).space_shape == (channels + 1, 8, 8)
    assert resolve("folder", str(data), ["--images.channels", "3"]).autoencoder.latent_channels == 16


def test_unwritable_output(tmp_path, tiny_data, cache):
    (tmp_path / "file").write_text("")
    save_yaml(tiny_config(tiny_data), tmp_path / "x.yaml")
    for out in ("file", "file/below"):
        with pytest.raises(UserError, match="/file"):
            run(["train", str(tmp_path / "x.yaml"), "--out", str(tmp_path / out), "--device", "cpu"])
    assert visible(tmp_path) == ["file", "x.yaml"]


def test_a_device_that_is_not_there(tmp_path, tiny_data, cache, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="the device 'cuda' is not available here"):
        run(["train", "demo", "--out", str(tmp_path / "run"), "--device", "cuda"])
    assert visible(tmp_path) == []


def test_resume_with_a_changed_config(finished_run, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("seed: 0", "seed: 5"))
    with pytest.raises(UserError, match="seed was 0 and is now 5"):
        run(["train", "--resume", str(folder), "--device", "cpu"])


def test_dry_run_prints_yaml_that_gives_the_config_back(capsys, tiny_data, tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    save_yaml(tiny_config(tiny_data), tmp_path / "x.yaml")
    run(["train", "x.yaml", "--dry-run", "--stage1.batch", "4", "--device", "cpu"])
    printed = capsys.readouterr().out
    config = from_dict(yaml.safe_load(printed), "printed")
    assert config == resolve("x.yaml", None, ["--stage1.batch", "4"])
    assert printed.startswith(dump_yaml(config))
    for line in ("generator_params", "sample_macs", "peak memory", "78 steps", "39 steps", "measured on"):
        assert line in printed
    assert visible(tmp_path) == ["x.yaml"]


def test_folder_from_images_to_a_model_and_on_from_it(tmp_path, cache, capsys):
    data = make_images(tmp_path / "pictures", 30, 16, "RGB")
    small = [
        "--autoencoder.width", "8", "--generator.width", "8", "--generator.multipliers", "1,2",
        "--discriminator.width", "4", "--discriminator.time_dim", "8", "--generator.mapping_width", "8",
        "--stage1.epochs", "2", "--slim_decoder.epochs", "2", "--stage2.epochs", "2", "--stage2.precision", "float32",
    ]  # fmt: skip
    out = tmp_path / "run"
    run(["train", "folder", "--data", str(data), "--out", str(out), "--device", "cpu", *small])
    assert f"lddgan sample {out}" in capsys.readouterr().out
    config = load_yaml(out / "config.yaml")
    assert (config.recipe, config.images.resolution, config.images.channels) == ("folder", 16, 3)
    assert Pipeline.from_pretrained(out, device="cpu")(2).shape == (2, 16, 16, 3)

    tuned = tmp_path / "tuned"
    arguments = ["--data", str(data), "--out", str(tuned), "--device", "cpu", "--init", str(out)]
    run(["train", "folder", *arguments, *small])
    assert (tuned / "init" / "generator.safetensors").read_bytes() == (
        out / "model" / "generator.safetensors"
    ).read_bytes()
    with pytest.raises(UserError, match="autoencoder.width 8, not 16: set --autoencoder.width"):
        run(["train", "folder", *arguments[:2], "--out", str(tmp_path / "other"), "--init", str(out)])
    assert not (tmp_path / "other").exists()
