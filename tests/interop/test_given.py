from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import load_file
from tiny import assert_same_bits, tiny_config

from lddgan.autoencoder.model import Autoencoder
from lddgan.cli.main import main
from lddgan.cli.main import run as command
from lddgan.config import DiffusersConfig, load_yaml, save_yaml
from lddgan.errors import UserError
from lddgan.interop.autoencoders import autoencoder_to_released
from lddgan.interop.given import given_autoencoder
from lddgan.models import build_autoencoder, load_model
from lddgan.pipeline import Pipeline


@pytest.fixture
def checkpoint(tmp_path):
    """A released autoencoder with attention at 4x4 of 8x8 images."""
    torch.manual_seed(0)
    net = Autoencoder(
        channels=1, latent_channels=2, width=32, multipliers=(1, 1), num_blocks=1, attention_levels=(1,), kind="kl",
        norm_groups=32,
    )  # fmt: skip
    torch.save({"state_dict": autoencoder_to_released(net)}, tmp_path / "kl.ckpt")
    return tmp_path / "kl.ckpt"


def test_a_released_checkpoint_becomes_part_of_the_config(checkpoint):
    config, autoencoder = given_autoencoder(str(checkpoint), tiny_config())
    assert config.stages == ("decoder", "gan")
    part = config.autoencoder
    assert (part.kind, part.width, part.multipliers, part.attention_resolutions) == ("kl", 32, (1, 1), (4,))
    again = build_autoencoder(config).eval()
    again.load_state_dict(autoencoder.state_dict())
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(again(images), autoencoder.eval()(images))


def test_a_run_on_a_released_checkpoint_measures_its_statistics_and_leaves_it_as_it_is(checkpoint, tmp_path, tiny_data):
    save_yaml(tiny_config(tiny_data), tmp_path / "config.yaml")
    run = tmp_path / "run"
    command(
        ["train", str(tmp_path / "config.yaml"), "--autoencoder", str(checkpoint), "--out", str(run), "--device", "cpu"]
    )
    _, space, _ = load_model(run)
    theirs = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert_same_bits(autoencoder_to_released(space.autoencoder), theirs)
    assert not torch.equal(space.std, torch.ones(2)) and not (run / "checkpoints" / "stage1.pt").exists()
    assert load_yaml(run / "config.yaml").stages == ("decoder", "gan")
    assert Pipeline.from_pretrained(run, "cpu")(2).shape == (2, 8, 8, 1)


def test_an_autoencoder_of_diffusers_from_its_folder_to_samples(tmp_path, tiny_data):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    diffusers.AutoencoderKL(
        in_channels=1, out_channels=1, latent_channels=2, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, sample_size=8,
    ).save_pretrained(tmp_path / "vae")  # fmt: skip
    save_yaml(tiny_config(tiny_data), tmp_path / "config.yaml")
    run = tmp_path / "run"
    command(
        [
            "train",
            str(tmp_path / "config.yaml"),
            "--autoencoder",
            str(tmp_path / "vae"),
            "--out",
            str(run),
            "--device",
            "cpu",
        ]
    )
    config, space, _ = load_model(run)
    assert isinstance(config.autoencoder, DiffusersConfig) and config.space_shape == (2, 4, 4)
    assert load_file(run / "model" / "autoencoder.safetensors")["std"].min() > 0
    pipe = Pipeline.from_pretrained(run, "cpu")
    slim = pipe(3)
    pipe.decoder = "full"
    assert slim.shape == pipe(3).shape == (3, 8, 8, 1) and (slim != pipe(3)).any()


def test_what_does_not_fit_is_named(checkpoint, tmp_path, finished_run):
    colour = tiny_config(images=dataclasses.replace(tiny_config().images, channels=3))
    with pytest.raises(UserError, match=r"takes 1 channels: set --images.channels 1"):
        given_autoencoder(str(checkpoint), colour)
    with pytest.raises(UserError, match="give either of them"):
        given_autoencoder(str(finished_run), tiny_config(stages=("autoencoder",)))


@pytest.mark.parametrize("name", ["missing.ckpt", "no/such/folder-of-diffusers"])
def test_what_is_not_there_is_one_sentence_and_exit_code_2(name, tmp_path, capsys, monkeypatch, tiny_data):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    save_yaml(tiny_config(tiny_data), tmp_path / "config.yaml")
    monkeypatch.setattr(
        "sys.argv",
        ["lddgan", "train", str(tmp_path / "config.yaml"), "--autoencoder", name, "--out", str(tmp_path / "run")],
    )
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err.strip()
    assert stop.value.code == 2 and name in said and "Traceback" not in said and not (tmp_path / "run").exists()
