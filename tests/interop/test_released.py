from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from lddgan.errors import UserError
from lddgan.interop.released import (
    discriminator_from_released,
    discriminator_to_released,
    generator_from_released,
    generator_key_map,
    generator_to_released,
)
from lddgan.networks.discriminator import Discriminator
from lddgan.networks.ncsnpp import NCSNpp

ROOT = Path(__file__).parents[2]
PARITY = ROOT.parent / "shared" / "parity"


def generator(**changes) -> NCSNpp:
    sizes = {
        "channels": 3, "width": 8, "multipliers": (1, 2), "num_blocks": 1, "latent_dim": 5, "mapping_width": 6,
        "mapping_depth": 2,
    }  # fmt: skip
    return randomised(NCSNpp(**(sizes | changes)).eval())


def randomised(network):
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"multipliers": (1,), "attention_levels": (0,)},
        {"multipliers": (1,), "num_blocks": 3},
        {"multipliers": (1, 1, 2, 2), "attention_levels": (0, 2, 3), "num_blocks": 2},
        {"multipliers": (2, 1, 3), "attention_levels": (1,), "channels": 4, "latent_dim": 20, "mapping_depth": 0},
        {"multipliers": (1, 2, 2), "attention_levels": (2,), "num_blocks": 1, "width": 12},
        {"tanh": True},
        {"multipliers": (1, 2, 1), "attention_levels": (1,), "resampling": "haar", "num_blocks": 2},
    ],
)
def test_generator_round_trip_infers_every_size(changes):
    ours = generator(**changes)
    released = {f"module.{name}": tensor for name, tensor in generator_to_released(ours).items()}
    again = generator_from_released(released, tanh=changes.get("tanh", False))
    x, t, z = torch.randn(2, ours.conv_in.in_channels, 8, 8), torch.tensor([0, 3]), torch.randn(2, ours.latent_dim)
    assert torch.equal(again(x, t, z), ours(x, t, z))
    assert again.state_dict().keys() == ours.state_dict().keys()
    assert not again.training


def test_generator_names_follow_the_order_of_construction():
    modules = {
        name.split(".")[1]: ours
        for name, ours in generator_key_map(generator(attention_levels=(1,))).items()
        if name.startswith("all_modules")
    }
    owners = [".".join(ours.split(".")[: 4 if "levels" in ours else 1]) for ours in modules.values()]
    owners = [owner.removesuffix(".conv").removesuffix(".out") for owner in owners]
    assert [owner.rsplit(".shortcut")[0].rsplit(".conv_1")[0] for owner in owners] == [
        "time_0", "time_1", "conv_in",
        "down_levels.0.blocks.0", "down_levels.0.down", "down_levels.0.pyramid",
        "down_levels.1.blocks.0", "down_levels.1.attentions.0",
        "middle_0", "middle_attention", "middle_1",
        "up_levels.0.blocks.0", "up_levels.0.blocks.1", "up_levels.0.attention", "up_levels.0.up",
        "up_levels.1.blocks.0", "up_levels.1.blocks.1", "norm_out", "conv_out",
    ]  # fmt: skip


def test_attention_weights_are_stored_input_first():
    ours = generator()
    released = generator_to_released(ours)
    torch.testing.assert_close(released["all_modules.8.NIN_2.W"], ours.middle_attention.value.weight.T)
    assert torch.equal(released["z_transform.3.bias"], ours.mapping.layers[1].bias)


@pytest.mark.parametrize(("kind", "num_layers"), [("small", 3), ("small", 4), ("large", 3), ("large", 4), ("large", 5)])
def test_discriminator_round_trip_infers_every_size(kind, num_layers):
    ours = randomised(Discriminator(channels=3, width=2, time_dim=6, kind=kind, num_layers=num_layers).eval())
    again = discriminator_from_released(discriminator_to_released(ours))
    x_t, x_next = torch.randn(2, 5, 3, 32, 32).unbind()
    t = torch.tensor([0, 1, 2, 3, 0])
    assert torch.equal(again(x_t, t, x_next), ours(x_t, t, x_next))


def test_discriminator_names():
    released = discriminator_to_released(Discriminator(channels=3, width=2, time_dim=6, kind="small", num_layers=3))
    assert {name for name in released if name.startswith("conv2.")} == {
        "conv2.conv1.0.weight", "conv2.conv1.0.bias", "conv2.conv2.0.weight", "conv2.conv2.0.bias",
        "conv2.dense_t1.weight", "conv2.dense_t1.bias", "conv2.skip.0.weight",
    }  # fmt: skip


def test_wrong_files_are_refused_with_a_reason():
    whole = generator_to_released(generator())
    other = discriminator_to_released(Discriminator(channels=3, width=2, time_dim=6, kind="small", num_layers=3))
    with pytest.raises(UserError, match="no released generator, but a discriminator"):
        generator_from_released(other, tanh=False)
    with pytest.raises(UserError, match="no released discriminator"):
        discriminator_from_released(whole)
    with pytest.raises(UserError, match="no released generator"):
        generator_from_released({}, tanh=False)
    with pytest.raises(UserError, match="do not belong"):
        generator_from_released(whole | {"foreign.weight": torch.zeros(1)}, tanh=False)
    wrong_shape = whole | {"all_modules.4.Conv_1.weight": torch.zeros(8, 8, 1, 1)}
    with pytest.raises(UserError, match=r"all_modules\.4\.Conv_1\.weight"):
        generator_from_released(wrong_shape, tanh=False)


def test_every_missing_entry_is_noticed():
    whole = generator_to_released(generator(attention_levels=(1,)))
    for name in whole:
        with pytest.raises(UserError):
            generator_from_released({other: whole[other] for other in whole if other != name}, tanh=False)
    whole = discriminator_to_released(Discriminator(channels=3, width=2, time_dim=6, kind="large", num_layers=3))
    for name in whole:
        with pytest.raises(UserError):
            discriminator_from_released({other: whole[other] for other in whole if other != name})


@pytest.mark.parametrize(
    "fixture",
    ["lddgan_generator_cifar10", "ddgan_generator_cifar10", "wddgan_generator_cifar10", "wddgan_generator_wavelet",
     "haar", "discriminator_small_3", "sampling_trajectory",
     "train_steps_weighted_learning", "autoencoder_kl_f2", "autoencoder_kl_f8", "autoencoder_vq_f4",
     "patch_discriminator"],
)  # fmt: skip
def test_agrees_with_the_published_systems(fixture):
    path = PARITY / f"{fixture}.safetensors"
    if not path.exists():
        pytest.skip("the large parity fixtures are not at hand")
    spec = importlib.util.spec_from_file_location("parity", ROOT / "benchmarks" / "parity.py")
    assert spec is not None and spec.loader is not None
    parity = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(parity)
    rows = parity.rows(path)
    assert rows is not None
    for quantity, error, tolerance in rows:
        assert error <= tolerance, quantity
