from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file
from tiny import assert_same_bits, lively_model, tiny_config, visible

from lddgan import Pipeline
from lddgan.errors import UserError
from lddgan.models import build_generator, build_space, load_model, load_space, save_model
from lddgan.recipes import recipe


@pytest.fixture
def model(tmp_path):
    config = tiny_config()
    save_model(tmp_path / "model", config, *lively_model(config))
    return tmp_path / "model"


def test_round_trip(tmp_path):
    config = tiny_config()
    space, generator = lively_model(config)
    save_model(tmp_path / "deep" / "model", config, space, generator)
    assert visible(tmp_path / "deep" / "model") == [
        "autoencoder.safetensors", "config.json", "generator.safetensors",
    ]  # fmt: skip
    again, space_again, generator_again = load_model(tmp_path / "deep" / "model")
    assert again == config
    assert_same_bits(space.state_dict(), space_again.state_dict())
    assert_same_bits(generator.state_dict(), generator_again.state_dict())
    assert not generator_again.training and not any(p.requires_grad for p in generator_again.parameters())


def test_float16_halves_the_files_and_loads_as_float32(tmp_path, model):
    config, space, generator = load_model(model)
    save_model(tmp_path / "half", config, space, generator, torch.float16)
    _, space_again, generator_again = load_model(tmp_path / "half")
    for one, other in ((space, space_again), (generator, generator_again)):
        for name, value in other.state_dict().items():
            assert value.dtype == torch.float32
            assert torch.equal(value, one.state_dict()[name].half().float()), name
    for name, value in generator.state_dict().items():  # and the values are near
        torch.testing.assert_close(generator_again.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    sizes = [(folder / "generator.safetensors").stat().st_size for folder in (model, tmp_path / "half")]
    assert sizes[1] < 0.8 * sizes[0]  # the header stays


def test_initial_weights_follow_from_the_seed():
    config = tiny_config()
    torch.randn(5)
    for build in (build_space, build_generator):
        assert_same_bits(build(config).state_dict(), build(config).state_dict())
    other = build_generator(dataclasses.replace(config, seed=1)).state_dict()
    assert not torch.equal(other["conv_in.weight"], build_generator(config).state_dict()["conv_in.weight"])


def test_attention_stands_at_the_resolutions_that_are_named():
    with torch.device("meta"):
        generator = build_generator(recipe("celebahq256"))  # latent 64, levels 64, 32, 16, 8
        space = build_space(recipe("cifar10"))  # images 32, levels 32 and 16
        plain = build_generator(recipe("cifar10"))
    assert [len(level.attentions) for level in generator.down_levels] == [0, 0, 2, 0]
    assert [len(level.attentions) for level in plain.down_levels] == [0, 0, 0]
    assert [len(level) for level in space.autoencoder.encoder.levels] == [2, 4]


def test_a_run_folder_stands_for_its_model(model):
    assert load_model(model.parent)[0] == load_model(model)[0]


@pytest.mark.parametrize("name", ["config.json", "autoencoder.safetensors", "generator.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "garbage"])
def test_missing_and_damaged_files_are_named(model, name, damage):
    data = (model / name).read_bytes()
    (model / name).unlink()
    if damage != "missing":
        damaged = {"truncated": data[: len(data) // 2], "empty": b"", "garbage": b"\xff\x80 no such thing" * 9}
        (model / name).write_bytes(damaged[damage])
    with pytest.raises(UserError, match=name) as caught:
        load_model(model)
    assert "\n" not in str(caught.value)


def test_other_sizes_than_the_config_says(model):
    config = json.loads((model / "config.json").read_text())
    config["generator"]["width"] = 16
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"generator\.safetensors' does not fit its config\.json") as caught:
        load_model(model)
    assert "\n" not in str(caught.value)
    (model / "config.json").write_text(json.dumps(config | {"generatr": 1}))
    with pytest.raises(UserError, match=r"config\.json'.* did you mean"):
        load_model(model)


def test_no_folder_and_no_model_in_it(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "odd" / "config.json").mkdir(parents=True)
    for name, says in (("missing", "there is no model"), ("file", "there is no model"), ("odd", "odd")):
        with pytest.raises(UserError, match=says):
            load_model(tmp_path / name)


def test_a_model_for_drawing_only_draws_the_same_and_says_what_it_cannot(tmp_path):
    config = tiny_config()
    pipe = Pipeline(config, *lively_model(config), device="cpu")
    pipe.save_pretrained(tmp_path / "whole")
    pipe.save_pretrained(tmp_path / "drawing", drawing_only=True)
    names = load_file(tmp_path / "drawing" / "autoencoder.safetensors").keys()
    assert {"mean", "std"} < names and not any(name.startswith("autoencoder.") for name in names)
    again = Pipeline.from_pretrained(tmp_path / "drawing", "cpu")
    assert (again(5, seed=3) == pipe(5, seed=3)).all()
    for call, says in (
        (lambda: again.vary(again(1), 0.5), "saved for drawing only, it has no encoder: take the whole model"),
        (lambda: setattr(again, "decoder", "full"), "it has no full decoder: take slim"),
        (lambda: Pipeline.from_pretrained(tmp_path / "drawing", "cpu", decoder="full"), "it has no full decoder"),
    ):
        with pytest.raises(UserError, match=says):
            call()
    with pytest.raises(UserError, match="without its autoencoder: give the whole model"):
        load_space(tmp_path / "drawing")
    again.save_pretrained(tmp_path / "once more")  # what it lacks it does not make up
    assert load_file(tmp_path / "once more" / "autoencoder.safetensors").keys() == names
    # Without a slim decoder there is nothing to leave out.
    config = tiny_config(slim_decoder=None)
    Pipeline(config, *lively_model(config), device="cpu").save_pretrained(tmp_path / "full", drawing_only=True)
    assert Pipeline.from_pretrained(tmp_path / "full", "cpu").vary(pipe(1), 0.0).shape == (1, 8, 8, 1)
