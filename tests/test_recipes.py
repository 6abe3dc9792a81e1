from __future__ import annotations

import pytest

from lddgan.config import identity, with_fields
from lddgan.errors import UserError
from lddgan.estimate import model_cost
from lddgan.recipes import RECIPES, folder, recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_valid(name):
    config = recipe(name)
    assert config.recipe == name
    assert with_fields(config, {}, name) == config


# The paper's Tables 1, 8, 9 and 10.
PAPER = {
    #                 factor, latent,     multipliers,  attention, layers, lr G,   lr D,  EMA, batch, lazy, epochs, T
    "cifar10": (2, (4, 16, 16), (1, 2, 2), (), 3, 1.6e-4, 1.25e-4, 0.9999, 256, 15, 1700, 4),
    "celebahq256": (4, (4, 64, 64), (1, 2, 2, 2), (16,), 4, 2e-4, 1e-4, 0.999, 128, 10, 400, 2),
    "lsun-church256": (8, (3, 32, 32), (1, 2, 2, 2), (16,), 4, 2e-4, 1e-4, 0.999, 128, 10, 400, 4),
}


@pytest.mark.parametrize("name", PAPER)
def test_numbers_of_the_paper(name):
    config = recipe(name)
    generator, discriminator, stage2 = config.generator, config.discriminator, config.stage2
    assert (
        config.autoencoder.factor, config.space_shape, generator.multipliers, generator.attention_resolutions,
        discriminator.num_layers, stage2.learning_rate_generator, stage2.learning_rate_discriminator, stage2.ema_decay,
        stage2.batch, stage2.r1_every, stage2.epochs, config.diffusion.num_steps,
    ) == PAPER[name]  # fmt: skip
    assert (generator.width, generator.num_blocks, generator.latent_dim) == (128, 2, 25)
    assert (generator.mapping_width, generator.mapping_depth) == (256, 4)
    assert (discriminator.kind, discriminator.width) == ("small", 64)  # the first convolution has 2 * 64 = 128
    assert (stage2.objective, stage2.delta, config.images.flips, config.images.channels) == ("weighted", 6.0, True, 3)


def test_cost_of_cifar10():
    """The published figures (Params and FLOPs of generator and decoder)."""
    cost = model_cost(recipe("cifar10"))
    assert cost["generator_params"] == pytest.approx(33.33e6, rel=0.01)
    assert cost["generator_macs_per_step"] == pytest.approx(1.665e9, rel=0.01)
    assert cost["decoder_params"] == pytest.approx(8.63e6, rel=0.01)
    assert cost["decoder_macs"] == pytest.approx(3.61e9, rel=0.01)
    assert cost["sample_macs"] == 4 * cost["generator_macs_per_step"] + cost["decoder_macs"]


# Table 2: parameters in millions, and GFLOP of one step of the generator.
TABLE_2 = {
    "cifar10-ddgan": (48.43, 7.05), "cifar10-wddgan": (33.37, 1.67),
    "celebahq256-ddgan": (39.73, 70.82), "celebahq256-wddgan": (31.48, 28.54),
    "lsun-church256-ddgan": (39.73, 70.82), "lsun-church256-wddgan": (31.48, 28.54),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE_2)
def test_the_predecessors_have_the_sizes_of_table_2(name):
    cost = model_cost(recipe(name))
    parameters, flops = TABLE_2[name]
    assert cost["generator_params"] / 1e6 == pytest.approx(parameters, abs=0.011)
    assert cost["generator_macs_per_step"] / 1e9 == pytest.approx(flops, rel=0.005)
    assert cost["decoder_params"] == cost["encoder_macs"] == 0


# Published training of the predecessors: space, multipliers, resampling, kind and layers of D, T, lr G, lr D, EMA,
# R1 gamma and interval, batch, epochs, objective.
PREDECESSORS = {
    "cifar10-ddgan": ((3, 32, 32), (1, 2, 2, 2), "fir", "small", 4, 4, 1.6e-4, 1.25e-4, 0.9999, 0.02, 15, 256, 1800),
    "cifar10-wddgan": ((12, 16, 16), (1, 2, 2), "fir", "small", 3, 4, 1.6e-4, 1.25e-4, 0.9999, 0.02, 15, 256, 1800),
    "celebahq256-ddgan": (
        (3, 256, 256), (1, 1, 2, 2, 4, 4), "fir", "large", 6, 2, 2e-4, 1e-4, 0.9999, 2.0, 10, 32, 800
    ),
    "celebahq256-wddgan": (
        (12, 128, 128), (1, 2, 2, 2, 4), "haar", "large", 5, 2, 2e-4, 1e-4, 0.9999, 2.0, 10, 32, 500
    ),
    "lsun-church256-ddgan": (
        (3, 256, 256), (1, 1, 2, 2, 4, 4), "fir", "large", 6, 4, 1.6e-4, 1e-4, 0.999, 1.0, 10, 64, 500
    ),
    "lsun-church256-wddgan": (
        (12, 128, 128), (1, 2, 2, 2, 4), "haar", "large", 5, 4, 1.6e-4, 1e-4, 0.999, 1.0, 10, 16, 500
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PREDECESSORS)
def test_published_numbers_of_the_predecessors(name):
    config = recipe(name)
    generator, discriminator, stage2 = config.generator, config.discriminator, config.stage2
    assert (
        config.space_shape, generator.multipliers, generator.resampling, discriminator.kind, discriminator.num_layers,
        config.diffusion.num_steps, stage2.learning_rate_generator, stage2.learning_rate_discriminator,
        stage2.ema_decay, stage2.r1_gamma, stage2.r1_every, stage2.batch, stage2.epochs,
    ) == PREDECESSORS[name]  # fmt: skip
    assert (generator.latent_dim, generator.mapping_width, generator.num_blocks, generator.tanh) == (100, 256, 2, True)
    assert (generator.width, generator.mapping_depth) == ((128, 4) if "cifar" in name else (64, 3))
    assert generator.attention_resolutions == (() if name == "cifar10-wddgan" else (16,))
    assert stage2.objective == ("reconstruction" if "wddgan" in name else "adversarial") and stage2.cosine_decay
    assert (discriminator.width, discriminator.time_dim, config.images.flips) == (64, 256, True)


@pytest.mark.parametrize("name", ["cifar10-ddgan-small", "cifar10-wddgan-small", *PREDECESSORS])
def test_a_predecessor_has_nothing_that_was_found_for_another(name):
    config = recipe(name)
    assert (config.stage2.spread, config.sample_gain) == (0, 1) and config.stages == ("gan",)
    assert config.autoencoder is None and config.stage1 is None and config.slim_decoder is None


@pytest.mark.parametrize("scale", ["tiny", "mid", "large"])
@pytest.mark.parametrize("base", ["cifar10", "cifar10-small"])
def test_a_vit_differs_from_its_sibling_in_the_generator_alone(scale, base):
    name = base.replace("cifar10", f"cifar10-uvit-{scale}")
    ours, theirs = identity(recipe(name)), identity(recipe(base))
    different = {field.split(".")[0] for field in ours.keys() | theirs.keys() if ours.get(field) != theirs.get(field)}
    assert different <= {"recipe", "generator", "stage2"}
    assert {field for field in ours if field.startswith("stage2") and ours[field] != theirs[field]} <= {"stage2.epochs"}
    assert (recipe(name).space_shape[1] // recipe(name).generator.patch) ** 2 == 64  # tokens


@pytest.mark.parametrize("name", ["celebahq256", "lsun-church256"])
def test_the_slim_decoders_of_256_pixels_take_a_twenty_fifth(name):
    cost = model_cost(recipe(name))
    assert cost["slim_decoder_macs"] <= min(12e9, cost["decoder_macs"] / 25)


@pytest.mark.parametrize(
    ("side", "resolution", "factor"),
    [(1, 16, 2), (8, 16, 2), (20, 16, 2), (32, 32, 4), (64, 64, 8), (200, 128, 8), (256, 256, 8), (5000, 256, 8)],
)
def test_folder_derives_resolution_and_factor_from_the_side(side, resolution, factor):
    config = folder("somewhere", 5000, 3, side)
    assert (config.images.resolution, config.autoencoder.factor) == (resolution, factor)
    assert config.space_shape == ({2: 4, 4: 12, 8: 16}[factor], resolution // factor, resolution // factor)
    assert with_fields(config, {}) == config and config.data == "somewhere"


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_folder_follows_the_channels(channels):
    config = folder("x", 100, channels, 64)
    assert (config.images.channels, config.autoencoder.latent_channels) == (channels, 5 * channels + 1)
    assert folder("x", 100, channels, 32).autoencoder.latent_channels == 4 * channels
    assert folder("x", 100, channels, 16).autoencoder.latent_channels == channels + 1


@pytest.mark.parametrize("count", [10, 1000, 2_000_000])
def test_folder_sees_about_as_many_images_whatever_the_count(count):
    config = folder("x", count, 3, 64)
    assert config.slim_decoder is not None
    assert config.stage1.epochs == max(1, 10_000 // count) and config.stage2.epochs == max(1, 128_000 // count)
    assert config.slim_decoder.epochs == max(1, 12_000 // count)
    assert config.stage2.augment == (count < 20_000)
    assert with_fields(config, {}) == config


@pytest.mark.parametrize(
    ("resolution", "side"), [(8, 4), (24, 12), (40, 20), (48, 12), (72, 36), (96, 12), (128, 16), (160, 20), (192, 24)]
)
def test_folder_takes_another_resolution_where_it_can_be_halved(resolution, side):
    config = folder("x", 100, 3, 500, resolution)
    assert config.space_shape[1] == side and with_fields(config, {}) == config
    with pytest.raises(UserError, match=f"images.resolution {resolution + 4} is not a multiple of 8"):
        folder("x", 100, 3, 500, resolution + 4)


@pytest.mark.parametrize("resolution", [-8, 0, 4])
def test_folder_refuses_a_resolution_that_is_none(resolution):
    with pytest.raises(UserError, match=f"images.resolution {resolution} is not"):
        folder("x", 100, 3, 500, resolution)


@pytest.mark.parametrize(
    ("name", "says"),
    [("cifar", "'cifar10'"), ("dmo", "'demo'"), ("folders", "'folder'"), ("qqq", "choose one of demo")],
)
def test_unknown_recipe(name, says):
    with pytest.raises(UserError, match=f"there is no recipe '{name}'.*{says}"):
        recipe(name)
