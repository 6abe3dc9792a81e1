from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lddgan.autoencoder.model import Autoencoder
from lddgan.autoencoder.objective import PatchDiscriminator
from lddgan.errors import UserError
from lddgan.interop.autoencoders import (
    autoencoder_from_released,
    autoencoder_key_map,
    autoencoder_to_released,
    load_released_autoencoder,
    patch_discriminator_from_released,
)
from lddgan.interop.released import generator_to_released
from lddgan.networks.ncsnpp import NCSNpp

SIZES = {
    "channels": 3, "latent_channels": 4, "width": 32, "multipliers": (1, 2), "num_blocks": 1, "attention_levels": (),
    "tanh": False, "kind": "free", "norm_groups": 32,
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def autoencoder(**changes) -> Autoencoder:
    torch.manual_seed(0)
    model = Autoencoder(**(SIZES | changes)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture(scope="module")
def whole() -> dict[str, torch.Tensor]:
    return autoencoder_to_released(autoencoder(kind="quantised", codebook_size=7))


def patch_discriminator(**changes) -> dict[str, torch.Tensor]:
    net = PatchDiscriminator(**({"channels": 3, "width": 4, "num_layers": 3} | changes))
    return {f"main.{name}": tensor for name, tensor in net.state_dict().items()}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"multipliers": (1,), "attention_levels": (0,), "num_blocks": 2},
        {"multipliers": (1, 2, 3), "attention_levels": (0, 2), "latent_channels": 3},
        {"multipliers": (1, 3, 2), "kind": "kl", "attention_levels": (1,), "tanh": True},
        {"multipliers": (1, 1, 2, 2), "kind": "kl", "latent_channels": 1, "channels": 1, "num_blocks": 3},
        {"kind": "quantised", "codebook_size": 11, "latent_channels": 2},
        {"width": 96, "multipliers": (1, 1), "channels": 4},
    ],
)
def test_round_trip_infers_every_size(changes):
    ours = autoencoder(**changes)
    left_over = {
        "loss.logvar": torch.zeros(()),
        "model_ema.decay": torch.zeros(()),
        "loss.discriminator.x": torch.ones(1),
    }
    released = {f"module.{name}": tensor for name, tensor in (autoencoder_to_released(ours) | left_over).items()}
    again, sizes = autoencoder_from_released(released, tanh=changes.get("tanh", False))
    assert sizes == SIZES | changes
    images = torch.rand(2, sizes["channels"], 16, 16) * 2 - 1
    for part, theirs in zip(again.encoder.moments(images), ours.encoder.moments(images), strict=True):
        assert (part is None and theirs is None) or torch.equal(part, theirs)
    assert torch.equal(again(images), ours(images))
    assert not again.training
    rebuilt = Autoencoder(**sizes).eval()
    rebuilt.load_state_dict(again.state_dict())
    assert torch.equal(rebuilt(images), ours(images))


def test_at_the_published_width_the_sizes_alone_rebuild_it():
    torch.manual_seed(0)
    ours = Autoencoder(**(SIZES | {"width": 128, "multipliers": (1,)})).eval()
    again, sizes = autoencoder_from_released(autoencoder_to_released(ours), tanh=False)
    rebuilt = Autoencoder(**sizes).eval()
    rebuilt.load_state_dict(again.state_dict())
    images = torch.rand(1, 3, 4, 4)
    assert torch.equal(rebuilt(images), ours(images)) and torch.equal(again(images), ours(images))


def test_names_of_the_decoder_count_from_the_highest_resolution():
    names = autoencoder_key_map(autoencoder(multipliers=(1, 2, 2), attention_levels=(2,)))
    assert names["decoder.up.0.block.0.nin_shortcut.weight"] == "decoder.levels.2.0.shortcut.weight"
    assert names["decoder.up.2.attn.1.proj_out.bias"] == "decoder.levels.0.3.out.bias"
    assert names["decoder.up.2.upsample.conv.weight"] == "decoder.up.0.conv.weight"
    assert names["encoder.down.1.downsample.conv.weight"] == "encoder.down.1.conv.weight"
    assert names["encoder.mid.attn_1.q.weight"] == "encoder.middle.1.q.weight"
    assert not any(re.match(r"encoder\.down\.2\.downsample|decoder\.up\.0\.upsample", name) for name in names)


def test_what_a_released_network_cannot_compute_is_not_exported():
    with pytest.raises(UserError, match="linear shortcut"):
        autoencoder_to_released(autoencoder(linear_shortcut=True))
    with pytest.raises(UserError, match="32 groups"):
        autoencoder_to_released(Autoencoder(**(SIZES | {"norm_groups": None})))


def test_every_missing_entry_is_noticed(whole):
    required = [name for name in whole if not name.startswith("quantize")]  # without its codebook it is a free one
    for name in required:
        with pytest.raises(UserError):
            autoencoder_from_released({other: whole[other] for other in whole if other != name}, tanh=False)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"quantize.embedding.weight": torch.zeros(7, 5)}, r"codebook has the shape \[7, 5\].* latent of 4 channels"),
        ({"quantize.embedding.weight": torch.zeros(7)}, r"codebook has the shape \[7\]"),
        ({"quant_conv.weight": torch.zeros(8, 8, 1, 1)}, "ends in 8 channels and a codebook"),
        ({"quant_conv.weight": torch.zeros(3, 3, 1, 1)}, "ends in 3 channels"),
        ({"quant_conv.weight": torch.zeros(4, 8, 1, 1)}, "embed_dim and z_channels"),
        ({"post_quant_conv.weight": torch.zeros(6, 4, 1, 1)}, "has 4 channels outside and 6 inside"),
        ({"encoder.mid.block_1.conv1.weight": torch.zeros(64, 64, 1, 1)}, "mid.block_1.conv1.weight has the shape"),
        ({"encoder.conv_in.weight": torch.zeros(32)}, r"conv_in.weight has the shape \[32\]"),
        ({"encoder.conv_in.weight": torch.zeros(24, 3, 3, 3)}, r"widths \[32, 64\] are not multiples .* 24"),
        ({"encoder.conv_in.weight": torch.zeros(16, 3, 3, 3)}, "first level has 32 channels and .* before it 16"),
        ({"encoder.down.1.attn.0.q.weight": torch.zeros(64, 64, 1, 1)}, "is incomplete: decoder.up.1.attn"),
        ({"encoder.down.5.block.0.conv1.weight": torch.zeros(64, 64, 3, 3)}, "down.2.block.0.conv1.weight is missing"),
        ({"unheard.of": torch.zeros(1)}, "do not belong to it: unheard.of"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(whole, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        autoencoder_from_released(whole | changes, tanh=False)


def test_a_width_that_does_not_make_32_groups_is_refused():
    state = autoencoder_to_released(autoencoder())
    state["encoder.conv_in.weight"] = torch.zeros(16, 3, 3, 3)
    for level, wide in ((0, 16), (1, 32)):
        state[f"encoder.down.{level}.block.0.conv1.weight"] = torch.zeros(wide, 16, 3, 3)
    with pytest.raises(UserError, match="16 cannot be normalised in 32 groups"):
        autoencoder_from_released(state, tanh=False)


def test_files(whole, tmp_path):
    lightning = {"state_dict": whole, "epoch": 3, "callbacks": {"a": [1.0]}}
    for name, content in {"flat.pt": whole, "flat.pth": whole, "lightning.ckpt": lightning}.items():
        torch.save(content, tmp_path / name)
    save_file(whole, tmp_path / "flat.safetensors")
    save_file({f"state_dict.{name}": value for name, value in whole.items()}, tmp_path / "prefixed.safetensors")
    images = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        expected = autoencoder(kind="quantised", codebook_size=7)(images)
        for file in sorted(tmp_path.iterdir()):
            model, sizes = load_released_autoencoder(file)
            assert sizes == SIZES | {"kind": "quantised", "codebook_size": 7}
            assert torch.equal(model(images), expected), file


@pytest.mark.parametrize(
    ("changes", "tanh"),
    [({"attention_levels": (1,)}, True), ({}, False), ({"multipliers": (1, 1, 1), "attention_levels": (2,)}, False)],
)
def test_tanh_by_default_and_as_given(changes, tanh, tmp_path):
    save_file(autoencoder_to_released(autoencoder(**changes)), tmp_path / "x.safetensors")
    assert load_released_autoencoder(tmp_path / "x.safetensors")[1]["tanh"] is tanh
    model, sizes = load_released_autoencoder(tmp_path / "x.safetensors", tanh=not tanh)
    assert sizes["tanh"] is model.decoder.tanh is not tanh


class Hyperparameters:
    """Stands for an OmegaConf object: code of a package that the file names."""


class Malice:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_pickled_code_is_never_run(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mend = r"write its weights alone with torch.save\(torch.load\('.*', weights_only=False\)\['state_dict'\]"
    for extra, culprit in ((Malice(), r"posix.system|nt.system"), (Hyperparameters(), "Hyperparameters")):
        for zipped in (True, False):
            content = {"state_dict": whole, "hyper_parameters": extra}
            torch.save(content, "code.ckpt", _use_new_zipfile_serialization=zipped)
            with pytest.raises(UserError, match=rf"'code.ckpt' holds more than tensors \([\w.]*({culprit})\).*{mend}"):
                load_released_autoencoder("code.ckpt")
    assert not Path("executed").exists()


def test_unusable_files_get_a_sentence(whole, tmp_path):
    def refused(path: Path, sentence: str) -> None:
        with pytest.raises(UserError, match=sentence) as caught:
            load_released_autoencoder(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)

    refused(tmp_path / "none.ckpt", "there is no checkpoint file")
    refused(tmp_path / "weights.bin", r"give a \.ckpt, \.pt, \.pth or \.safetensors file")
    (tmp_path / "folder.ckpt").mkdir()
    refused(tmp_path / "folder.ckpt", "there is no checkpoint file")
    torch.save(whole, tmp_path / "whole.pt")
    torch.save(whole, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    save_file(whole, tmp_path / "whole.safetensors")
    for name in ("whole.pt", "legacy.pt", "whole.safetensors"):
        content = (tmp_path / name).read_bytes()
        for part in (b"", content[:20], content[: len(content) // 2], content[:-30], b"text, for a change " * 20):
            file = tmp_path / f"damaged.{name}"
            file.write_bytes(part)
            refused(file, "damaged.*: copy it again")
    for content in (torch.zeros(3), [], {}, {"state_dict": None}, {"state_dict": {}}):
        torch.save(content, tmp_path / "other.pt")
        refused(tmp_path / "other.pt", "holds no weights")
    for content in ({"epoch": 3} | whole, {"state_dict": whole | {"epoch": 3}}, {1: torch.zeros(1)}):
        torch.save(content, tmp_path / "other.pt")
        refused(tmp_path / "other.pt", "holds ('epoch'|1), which is no tensor")


def test_files_of_another_kind_or_shape_get_a_sentence(whole, tmp_path):
    generator = NCSNpp(
        channels=4, width=8, multipliers=(1, 2), num_blocks=1, latent_dim=5, mapping_width=6, mapping_depth=1
    )
    for state, sentence in (
        (generator_to_released(generator), "holds no released autoencoder: encoder.conv_in.weight is missing"),
        (patch_discriminator(), "holds no released autoencoder"),
        (whole | {"quantize.embedding.weight": torch.zeros(7, 3)}, "codebook has the shape"),
        (whole | {"decoder.conv_out.weight": torch.zeros(1, 32, 3, 3)}, "does not fit the rest of the file"),
    ):
        file = tmp_path / "other.safetensors"
        save_file(state, file)
        with pytest.raises(
            UserError, match=rf"other.safetensors' cannot be loaded \(.*{sentence}.*\): copy it again, or"
        ):
            load_released_autoencoder(file)


@pytest.mark.parametrize(
    "changes", [{}, {"num_layers": 1}, {"num_layers": 2, "width": 8}, {"num_layers": 5, "channels": 1}]
)
def test_patch_discriminator(changes):
    state = {f"module.{name}": tensor for name, tensor in patch_discriminator(**changes).items()}
    again = patch_discriminator_from_released(state)
    assert not again.training
    assert {f"module.main.{name}": tensor.shape for name, tensor in again.state_dict().items()} == {
        name: tensor.shape for name, tensor in state.items()
    }
    assert all(torch.equal(tensor, state[f"module.main.{name}"]) for name, tensor in again.state_dict().items())


def test_patch_discriminators_that_do_not_fit(whole):
    state = patch_discriminator()
    with pytest.raises(UserError, match="holds no released patch discriminator"):
        patch_discriminator_from_released(whole)
    for name in state:
        with pytest.raises(UserError):
            patch_discriminator_from_released({other: state[other] for other in state if other != name})
    with pytest.raises(UserError, match="do not belong"):
        patch_discriminator_from_released(state | {"main.3.loc": torch.zeros(1)})
    with pytest.raises(UserError, match="has the shape"):
        patch_discriminator_from_released(state | {"main.2.weight": torch.zeros(9, 4, 4, 4)})
