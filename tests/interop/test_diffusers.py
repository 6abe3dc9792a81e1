from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from lddgan.errors import UserError
from lddgan.interop.diffusers import build_diffusers, load_diffusers

diffusers = pytest.importorskip("diffusers")

BLOCKS = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
TINY = {
    "AutoencoderKL": {**BLOCKS, "block_out_channels": (8, 12), "norm_num_groups": 4, "latent_channels": 3},
    "VQModel": {
        **BLOCKS, "block_out_channels": (8, 12), "norm_num_groups": 4, "latent_channels": 4, "vq_embed_dim": 2,
        "num_vq_embeddings": 9, "in_channels": 1, "out_channels": 1,
    },
    "AutoencoderTiny": {
        "encoder_block_out_channels": (8, 8, 8), "decoder_block_out_channels": (8, 8, 8),
        "num_encoder_blocks": (1, 1, 1), "num_decoder_blocks": (1, 1, 1), "latent_channels": 5,
    },
    "AutoencoderDC": {
        "latent_channels": 4, "attention_head_dim": 4, "encoder_block_types": ("ResBlock", "EfficientViTBlock"),
        "decoder_block_types": ("ResBlock", "EfficientViTBlock"), "encoder_block_out_channels": (8, 16),
        "decoder_block_out_channels": (8, 16), "encoder_layers_per_block": (1, 1), "decoder_layers_per_block": (1, 1),
        "encoder_qkv_multiscales": ((), (5,)), "decoder_qkv_multiscales": ((), (5,)),
        "decoder_norm_types": "batch_norm", "decoder_act_fns": "relu",
    },
}  # fmt: skip
CHANNELS = {"AutoencoderKL": 3, "VQModel": 1, "AutoencoderTiny": 3, "AutoencoderDC": 3}
LATENT = {"AutoencoderKL": (3, 2), "VQModel": (2, 2), "AutoencoderTiny": (5, 4), "AutoencoderDC": (4, 2)}  # Z, f


def tiny(name: str, **changes):
    torch.manual_seed(0)
    model = getattr(diffusers, name)(**(TINY[name] | changes)).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1.0, 0.2)
    return model


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """Nothing here may reach the network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    torch.set_num_threads(1)


def saved(tmp_path: Path, name: str = "AutoencoderKL", **changes) -> Path:
    tiny(name, **changes).save_pretrained(tmp_path / name)
    return tmp_path / name


def their_encode(model, images):
    out = model.encode(images)
    if isinstance(model, diffusers.AutoencoderKL):
        return out.latent_dist.mean
    return out.latent if isinstance(model, diffusers.AutoencoderDC) else out.latents


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_encodes_and_decodes_as_diffusers_does(name, tmp_path):
    theirs, ours = tiny(name), load_diffusers(str(saved(tmp_path, name)))
    channels, (latent_channels, factor) = CHANNELS[name], LATENT[name]
    assert (ours.channels, ours.latent_channels, ours.factor) == (channels, latent_channels, factor)
    images = torch.rand(2, channels, 16, 16) * 2 - 1
    latent = ours.encoder(images)
    assert latent.shape == (2, latent_channels, 16 // factor, 16 // factor)
    torch.testing.assert_close(latent, their_encode(theirs, images), rtol=0, atol=0)
    torch.testing.assert_close(ours.decoder(latent), theirs.decode(latent).sample, rtol=0, atol=0)
    assert ours(images).shape == images.shape
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    assert not any(module.training for module in ours.train().modules())


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_state_loads_into_a_fresh_one_built_from_the_spec(name, tmp_path):
    ours = load_diffusers(str(saved(tmp_path, name)))
    assert ours.spec["class"] == name
    fresh = build_diffusers(json.loads(json.dumps(ours.spec)))
    images = torch.rand(2, ours.channels, 16, 16) * 2 - 1
    assert not torch.equal(fresh(images), ours(images))
    fresh.load_state_dict(ours.state_dict())
    assert torch.equal(fresh(images), ours(images))
    assert fresh.spec == ours.spec
    pointers = [tensor.data_ptr() for tensor in ours.state_dict().values()]
    assert len(set(pointers)) == len(pointers)  # safetensors refuses to write a tensor twice


def test_spatial_norms_see_the_codes(tmp_path):
    changes = {"norm_type": "spatial", "vq_embed_dim": 4, "block_out_channels": (32, 32)}
    theirs, ours = tiny("VQModel", **changes), load_diffusers(str(saved(tmp_path, "VQModel", **changes)))
    latent = torch.randn(1, 4, 4, 4)
    assert torch.equal(ours.decoder(latent), theirs.decode(latent).sample)


def test_without_1x1_convolutions(tmp_path):
    changes = {"use_quant_conv": False, "use_post_quant_conv": False}
    theirs, ours = tiny("AutoencoderKL", **changes), load_diffusers(str(saved(tmp_path, **changes)))
    images = torch.rand(1, 3, 8, 8)
    assert torch.equal(ours(images), theirs.decode(their_encode(theirs, images)).sample)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    folder, spec = saved(tmp_path), build_diffusers({"class": "AutoencoderKL", "config": {}}).spec
    monkeypatch.setitem(sys.modules, "diffusers", None)
    for call in (lambda: load_diffusers(str(folder)), lambda: build_diffusers(spec)):
        with pytest.raises(UserError, match=r"needs the extra: pip install 'lddgan\[diffusers\]'"):
            call()


def test_an_older_package_is_to_be_upgraded(monkeypatch):
    monkeypatch.delattr(diffusers, "AutoencoderDC", raising=False)
    monkeypatch.setattr(type(diffusers), "__getattr__", lambda *_: (_ for _ in ()).throw(AttributeError("no such")))
    with pytest.raises(UserError, match="no usable AutoencoderDC .*upgrade"):
        build_diffusers({"class": "AutoencoderDC", "config": {}})


def test_what_is_nowhere_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no folder 'no/such', and no such model on the hub in reach"):
        load_diffusers("no/such")
    for path in (tmp_path / "missing", "missing", "../a/b", ""):
        with pytest.raises(UserError, match="there is no folder|has no config.json"):
            load_diffusers(str(path))


def test_a_folder_is_never_looked_up(tmp_path, monkeypatch):
    (tmp_path / "stabilityai" / "sd-vae-ft-mse").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for function in ("hf_hub_download", "snapshot_download", "model_info"):
        monkeypatch.setattr(f"huggingface_hub.{function}", lambda *a, **k: pytest.fail("the hub was asked"))
    monkeypatch.setattr("diffusers.utils.hub_utils.hf_hub_download", lambda *a, **k: pytest.fail("the hub was asked"))
    monkeypatch.setattr("diffusers.configuration_utils.hf_hub_download", lambda *a, **k: pytest.fail("hub"))
    with pytest.raises(UserError, match="has no config.json"):
        load_diffusers("stabilityai/sd-vae-ft-mse")
    tiny("AutoencoderKL").save_pretrained("stabilityai/sd-vae-ft-mse")
    load_diffusers("stabilityai/sd-vae-ft-mse")
    (tmp_path / "stabilityai" / "sd-vae-ft-mse" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be loaded as AutoencoderKL"):
        load_diffusers("stabilityai/sd-vae-ft-mse")


def test_other_classes_are_refused(tmp_path):
    folder = saved(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    for name in ("UNet2DModel", "os.system", None, 3):
        (folder / "config.json").write_text(json.dumps(config | {"_class_name": name}))
        with pytest.raises(UserError, match="give an autoencoder of AutoencoderKL, VQModel"):
            load_diffusers(str(folder))
        with pytest.raises(UserError, match="must be one of AutoencoderKL, VQModel"):
            build_diffusers({"class": name, "config": {}})
    for spec in ({}, None, {"class": "VQModel"}, {"class": ["VQModel"], "config": {}}):
        with pytest.raises(UserError, match="must be one of AutoencoderKL, VQModel"):
            build_diffusers(spec)


@pytest.mark.parametrize(
    "config", [{"unheard_of": 1}, {"block_out_channels": [7, 13]}, {"block_out_channels": "x"}, {"act_fn": "eval"}]
)
def test_arguments_that_cannot_be_built(config):
    with pytest.raises(UserError, match="AutoencoderKL cannot be built"):
        build_diffusers({"class": "AutoencoderKL", "config": TINY["AutoencoderKL"] | config})


def test_a_decoder_of_another_kind_than_the_encoder_is_refused():
    for changes in ({"out_channels": 4}, {"upsampling_scaling_factor": 3}):
        with pytest.raises(UserError, match="give one that writes what it reads"):
            build_diffusers({"class": "AutoencoderTiny", "config": TINY["AutoencoderTiny"] | changes})


def test_damaged_files(tmp_path):
    whole = saved(tmp_path)
    file, config = "diffusion_pytorch_model.safetensors", json.loads((whole / "config.json").read_text())
    weights = (whole / file).read_bytes()

    def damaged(name: str, content: bytes) -> str:
        folder = tmp_path / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        (folder / name).write_bytes(content)
        return str(folder)

    for content in (b"", b"{", b"\xff\xfe", b"[1"):
        with pytest.raises(UserError, match=r"config.json' is damaged .*copy the folder again"):
            load_diffusers(damaged("config.json", content))
    with pytest.raises(UserError, match="of the class None"):
        load_diffusers(damaged("config.json", b"[]"))
    for content in (b"", weights[:100], weights[: len(weights) // 2], b"x" * 1000):
        with pytest.raises(UserError, match="cannot be loaded as AutoencoderKL .*: give whole files"):
            load_diffusers(damaged(file, content))
    with pytest.raises(UserError, match="cannot be loaded as AutoencoderKL"):
        load_diffusers(damaged("config.json", json.dumps(config | {"block_out_channels": [8, 16]}).encode()))
    with pytest.raises(UserError, match="lacks weights of its AutoencoderKL"):
        load_diffusers(damaged("config.json", json.dumps(config | {"layers_per_block": 2}).encode()))


class Malice:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_pickles_are_not_read(tmp_path, monkeypatch):
    folder = saved(tmp_path)
    monkeypatch.chdir(tmp_path)
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({"x": Malice()}, folder / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        load_diffusers(str(folder))
    assert not (tmp_path / "executed").exists()
