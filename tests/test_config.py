from __future__ import annotations

import dataclasses

import pytest
import yaml
from tiny import tiny_config

from lddgan.config import (
    UVitConfig,
    dump_yaml,
    field_names,
    from_dict,
    identity,
    load_yaml,
    save_yaml,
    to_dict,
    with_fields,
)
from lddgan.errors import UserError
from lddgan.recipes import RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_yaml_round_trip(name, tmp_path):
    config = RECIPES[name]()
    save_yaml(config, tmp_path / "config.yaml")
    assert load_yaml(tmp_path / "config.yaml") == config
    assert from_dict(yaml.safe_load(dump_yaml(config)), "x") == config


def test_round_trip_keeps_small_numbers_and_tuples(tmp_path):
    config = tiny_config("a folder/with: odd, 'name'")
    config = dataclasses.replace(config, stage1=dataclasses.replace(config.stage1, learning_rate=4.5e-6 * 7))
    save_yaml(config, tmp_path / "deep" / "config.yaml")
    again = load_yaml(tmp_path / "deep" / "config.yaml")
    assert again == config
    assert again.stage1.learning_rate == 4.5e-6 * 7
    assert again.generator.multipliers == (1, 2) and isinstance(again.generator.multipliers, tuple)


def changed(name: str, value: object) -> dict:
    tree = to_dict(tiny_config())
    branch, (*groups, leaf) = tree, name.split(".")
    for group in groups:
        branch = branch[group]
    branch[leaf] = value
    return tree


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("stage1.epoch", 3, "there is no field 'stage1.epoch', did you mean 'stage1.epochs'?"),
        ("stage2.learning_rate_generater", 3, "did you mean 'stage2.learning_rate_generator'?"),
        ("xyzzy", 3, "there is no field 'xyzzy'"),
        ("stage1.batch", -4, "stage1.batch = -4 is not allowed"),
        ("stage2.batch", 0, "stage2.batch = 0"),
        ("stage2.batch", "many", "stage2.batch = 'many'"),
        ("stage2.batch", 1.5, "stage2.batch = 1.5"),
        ("stage1.learning_rate", 0, "stage1.learning_rate = 0"),
        ("stage1.learning_rate", float("inf"), "stage1.learning_rate = inf"),
        ("stage2.r1_gamma", float("nan"), "stage2.r1_gamma = nan"),
        ("stage2.ema_decay", 1.0, "stage2.ema_decay = 1.0"),
        ("stage2.objective", "magic", "stage2.objective = 'magic'"),
        ("images.channels", 2, "images.channels = 2"),
        ("images.resolution", 4, "images.resolution = 4"),
        ("images.flips", "perhaps", "images.flips = 'perhaps'"),
        ("autoencoder.multipliers", [], "autoencoder.multipliers = "),
        ("autoencoder.width", 3, "autoencoder.width = 3"),
        ("generator", 5, "generator = 5"),
        ("generator.width", 7, "generator.width = 7"),
        ("discriminator.time_dim", 9, "discriminator.time_dim = 9"),
        ("discriminator.num_layers", 2, "discriminator.num_layers = 2"),
        ("stage1.precision", "float16", "stage1.precision = 'float16'"),
        ("seed", -1, "seed = -1"),
        ("images.resolution", 9, "images.resolution 9 must be a multiple of the factor 2 between images and latent"),
        ("images.resolution", 10, "x_0 of side 5 .* is no multiple of 2, as the generator asks"),
        ("images.resolution", 12, "x_0 of side 6 .* is no multiple of 4, as discriminator.num_layers asks"),
        ("diffusion.beta_min", 30, "0 < beta_min < beta_max, got 30.0, 20.0"),
        ("diffusion.beta_max", 1e6, "beta_max = 1000000.0 leaves no signal"),
    ],
)
def test_bad_values(name, value, says):
    with pytest.raises(UserError, match=says) as caught:
        from_dict(changed(name, value), "'x.yaml'")
    assert str(caught.value).startswith("'x.yaml': ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"space": "pixels", "autoencoder": tiny_config().autoencoder}, "pixels and autoencoder do not go together"),
        ({"space": "latent", "autoencoder": None}, "space latent and autoencoder do not go together"),
        ({"space": "pixels", "stage1": tiny_config().stage1}, "space pixels and stage1 do not go together"),
        ({"space": "pixels", "stages": ["decoder", "gan"]}, "set stages to gan alone"),
        ({"space": "waves"}, "space = 'waves' is not allowed"),
        ({"generator": {"patch": 3, "embed_dim": 8, "depth": 3, "num_heads": 2, "latent_dim": 4}},
         "x_0 of side 4 .* is no multiple of 3, as the generator asks: .*give another patch or"),
        ({"generator.multipliers": (1, 2, 2), "generator.resampling": "haar"}, "x_0 of side 4 .* no multiple of 8"),
        ({"seed.x": 1}, "there is no field 'seed.x'"),
    ],
)  # fmt: skip
def test_parts_that_do_not_go_together(values, says):
    with pytest.raises(UserError, match=says) as caught:
        with_fields(tiny_config(), values)
    assert "\n" not in str(caught.value)


VIT = {"patch": 2, "embed_dim": 8, "depth": 3, "num_heads": 2, "latent_dim": 4}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("generator.depth", 4, "generator.depth 4 must be odd"),
        ("generator.depth", 0, "generator.depth = 0 is not allowed"),
        ("generator.embed_dim", 9, "generator.embed_dim 9 must be even"),
        ("generator.num_heads", 3, "embed_dim 8 must be .* a multiple of generator.num_heads 3"),
        ("generator.patch", "two", "generator.patch = 'two' is not allowed"),
        ("generator.pacth", 2, "there is no field 'generator.pacth', did you mean 'generator.patch'"),
        ("generator.tanh", "maybe", "generator.tanh = 'maybe' is not allowed"),
        ("stage2.epochs", "x", "stage2.epochs = 'x' is not allowed"),
        ("stage2.epochs", 0, "stage2.epochs = 0 is not allowed"),
    ],
)
def test_what_is_wrong_is_said_of_the_kind_that_is_meant(name, value, says):
    vit = with_fields(tiny_config(), {"generator": VIT})
    with pytest.raises(UserError, match=says) as caught:
        with_fields(vit, {name: value})
    assert "constrained" not in str(caught.value) and "vit" not in str(caught.value)


def test_another_space_leaves_the_autoencoder_out():
    config = with_fields(tiny_config(), {"space": "wavelet", "generator.multipliers": (1, 2)})
    assert (config.autoencoder, config.stage1, config.slim_decoder, config.stages) == (None, None, None, ("gan",))
    assert config.space_shape == (4, 4, 4) and config.factor == 2


def test_whole_epochs_stay_whole():
    for given, kept in ((3, 3), (3.0, 3), (2.5, 2.5)):
        epochs = with_fields(tiny_config(), {"stage2.epochs": given}).stage2.epochs
        assert epochs == kept and type(epochs) is type(kept)
    assert identity(tiny_config())["stage2.epochs"] == "8"


def test_fields_by_dotted_names():
    config = with_fields(tiny_config(), {"stage2.epochs": 3, "generator": {**SIZES, "latent_dim": 9}})
    assert config.stage2.epochs == 3 and config.generator == UVitConfig(**SIZES, latent_dim=9)
    assert with_fields(config, {"stage2.epochs": 8, "generator": tiny_config().generator}) == tiny_config()


SIZES = {"patch": 2, "embed_dim": 8, "depth": 3, "num_heads": 2}


def test_missing_field_and_no_mapping():
    tree = to_dict(tiny_config())
    del tree["stage1"]["batch"]
    with pytest.raises(UserError, match="the field 'stage1.batch' is missing"):
        from_dict(tree, "x")
    with pytest.raises(UserError, match="x: "):
        from_dict([1, 2], "x")


@pytest.mark.parametrize(
    ("text", "says"),
    [("a: [1, 2", "cannot be read as YAML"), ("just words", "is not a config"), ("", "is not a config")],
)
def test_files_that_are_no_config(tmp_path, text, says):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=says) as caught:
        load_yaml(tmp_path / "x.yaml")
    assert "x.yaml" in str(caught.value)


def test_binary_missing_and_folder(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00\x80")
    for name in ("x.yaml", "missing.yaml", "."):
        with pytest.raises(UserError):
            load_yaml(tmp_path / name)


def test_config_is_frozen_and_with_fields_checks_dataclasses_too():
    config = tiny_config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 3  # type: ignore[misc]
    assert with_fields(config, {}) == config
    with pytest.raises(UserError, match="seed = -3"):
        with_fields(dataclasses.replace(config, seed=-3), {})


def test_space_shape_and_factor():
    config = RECIPES["lsun-church256"]()
    assert config.autoencoder.factor == 8 and config.space_shape == (3, 32, 32)
    assert tiny_config().space_shape == (2, 4, 4)


def test_identity_names_all_fields_that_bear_on_the_result():
    config = tiny_config()
    free = {"checkpoint_seconds", "data", "stage1.perceptual_weights"}
    other_kinds = {f"generator.{name}" for name in ("patch", "embed_dim", "depth", "num_heads")}
    other_kinds |= {"autoencoder.factor", "autoencoder.diffusers"}
    assert set(identity(config)) == set(field_names()) - free - other_kinds
    assert {"generator.patch", "space"} < set(identity(with_fields(config, {"generator": VIT})))
    assert identity(dataclasses.replace(config, data="elsewhere")) == identity(config)
    assert identity(dataclasses.replace(config, checkpoint_seconds=7.0)) == identity(config)
    other = identity(dataclasses.replace(config, seed=1))
    assert {name for name in other if other[name] != identity(config)[name]} == {"seed"}
