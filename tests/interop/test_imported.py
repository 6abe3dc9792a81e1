from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import visible
from torch import nn

from lddgan import Pipeline
from lddgan.autoencoder.model import Autoencoder
from lddgan.cli.main import run
from lddgan.data.latents import to_uint8
from lddgan.diffusion.sampler import sample
from lddgan.diffusion.schedule import Schedule
from lddgan.errors import UserError
from lddgan.interop.autoencoders import autoencoder_to_released
from lddgan.interop.released import discriminator_to_released, generator_to_released
from lddgan.networks.discriminator import Discriminator
from lddgan.networks.haar import inverse_haar
from lddgan.networks.ncsnpp import NCSNpp
from lddgan.runtime.seeds import image_draws


def generator(**changes) -> NCSNpp:
    sizes = {
        "channels": 3, "width": 8, "multipliers": (1, 2), "num_blocks": 1, "attention_levels": (1,), "latent_dim": 5,
        "mapping_width": 6, "mapping_depth": 2, "tanh": True,
    }  # fmt: skip
    torch.manual_seed(0)
    network = NCSNpp(**(sizes | changes)).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


def autoencoder(latent_channels: int = 4) -> Autoencoder:
    torch.manual_seed(1)
    return Autoencoder(
        channels=3, latent_channels=latent_channels, width=32, multipliers=(1, 2), num_blocks=1, norm_groups=32
    ).eval()


def released(folder: Path, network: NCSNpp, name: str = "netG_1200.pth", prefix: str = "module.") -> Path:
    folder.mkdir(exist_ok=True)
    torch.save({prefix + key: tensor for key, tensor in generator_to_released(network).items()}, folder / name)
    return folder / name


def released_autoencoder(folder: Path, network: Autoencoder) -> Path:
    torch.save({"state_dict": autoencoder_to_released(network), "epoch": 3}, folder / "last.ckpt")
    return folder / "last.ckpt"


def published_samples(network: NCSNpp, shape: tuple[int, int, int], num_steps: int) -> torch.Tensor:
    """x_0 of seed 7 by the network itself."""
    with torch.inference_mode():
        draws = image_draws(7, range(3), shape, 5, num_steps, torch.device("cpu"))
        return sample(network, Schedule(num_steps), *draws)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_ddgan_from_file_to_the_same_samples(tmp_path, prefix):
    network = generator()
    file = released(tmp_path / "in", network, prefix=prefix)
    run(["import", str(file), "--as", "ddgan", "--to", str(tmp_path / "m"), "--resolution", "16", "--num-steps", "3"])
    assert visible(tmp_path / "m") == ["config.json", "generator.safetensors"]
    pipe = Pipeline.from_pretrained(tmp_path / "m", "cpu")
    assert pipe.config.generator.attention_resolutions == (8,) and pipe.config.generator.tanh
    assert (pipe(3, seed=7) == to_uint8(published_samples(network, (3, 16, 16), 3)).numpy()).all()


@pytest.mark.parametrize("resampling", ["fir", "haar"])
def test_wddgan_draws_bands(tmp_path, resampling):
    network = generator(channels=12, resampling=resampling)
    file = released(tmp_path / "in", network)
    run(["import", str(file), "--as", "wddgan", "--to", str(tmp_path / "m"), "--resolution", "16", "--num-steps", "2"])
    pipe = Pipeline.from_pretrained(tmp_path / "m", "cpu")
    expected = to_uint8(inverse_haar(2 * published_samples(network, (12, 8, 8), 2))).numpy()
    assert pipe(3, seed=7).shape == (3, 16, 16, 3) and (pipe(3, seed=7) == expected).all()


def test_lddgan_takes_its_autoencoder_and_the_released_scale(tmp_path):
    network, decoder = generator(channels=4), autoencoder()
    files = [str(released(tmp_path / "in", network)), str(released_autoencoder(tmp_path / "in", decoder))]
    for order in (files, files[::-1]):
        out = tmp_path / f"m{order[0][-3:]}"
        run(["import", *order, "--as", "lddgan", "--to", str(out)])  # factor 2: the released CIFAR-10 model
        pipe = Pipeline.from_pretrained(out, "cpu")
        assert (pipe.config.images.resolution, pipe.config.diffusion.num_steps) == (32, 4)
        with torch.inference_mode():
            expected = to_uint8(decoder.decoder(105 * published_samples(network, (4, 16, 16), 4))).numpy()
        assert (pipe(3, seed=7) == expected).all()
    run(["import", *files, "--as", "lddgan", "--to", str(tmp_path / "other"), "--latent-scale", "2"])
    assert Pipeline.from_pretrained(tmp_path / "other", "cpu").space.std.tolist() == [2.0] * 4


def test_a_training_state_tells_steps_and_tanh(tmp_path):
    network = generator(tanh=False)
    content = {
        "epoch": 12, "global_step": 99, "args": argparse.Namespace(num_timesteps=5, not_use_tanh=True, lr_g=1e-4),
        "netG_dict": {f"module.{name}": tensor for name, tensor in generator_to_released(network).items()},
        "optimizerG": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4, "betas": (0.5, 0.9)}]},
        "netD_dict": discriminator_to_released(
            Discriminator(channels=3, width=2, time_dim=6, kind="small", num_layers=3)
        ),
    }  # fmt: skip
    torch.save(content, tmp_path / "content.pth")
    run(["import", str(tmp_path / "content.pth"), "--as", "ddgan", "--to", str(tmp_path / "m"), "--resolution", "16"])
    pipe = Pipeline.from_pretrained(tmp_path / "m", "cpu")
    assert pipe.config.diffusion.num_steps == 5 and not pipe.config.generator.tanh
    assert (pipe(3, seed=7) == to_uint8(published_samples(network, (3, 16, 16), 5)).numpy()).all()


def test_published_sizes_need_no_more_than_the_file_says():
    """The sizes alone: on the meta device a network of 40 M weights takes no time."""
    from lddgan.interop.imported import _agreed, _is_alike
    from lddgan.recipes import recipe

    def sizes(name):
        settings = recipe(name).generator
        return {part: getattr(settings, part) for part in ("width", "multipliers", "num_blocks", "resampling")}

    names = ("cifar10-ddgan", "celebahq256-ddgan", "lsun-church256-ddgan")
    alike = [config for config in map(recipe, names) if _is_alike(config, sizes("cifar10-ddgan"), 1)]
    assert [config.recipe for config in alike] == ["cifar10-ddgan"]
    alike = [config for config in map(recipe, names) if _is_alike(config, sizes("celebahq256-ddgan"), 1)]
    assert _agreed(alike, Path("f"), "--resolution", lambda c: c.images.resolution) == 256
    with pytest.raises(UserError, match="give --num-steps .2 as celebahq256-ddgan has or 4 as lsun-church256-ddgan"):
        _agreed(alike, Path("f"), "--num-steps", lambda c: c.diffusion.num_steps)


@pytest.fixture
def files(tmp_path):
    """Files of every kind, by name."""
    folder = tmp_path / "in"
    made = {"pixels": released(folder, generator(), "netG_1.pth"),
            "bands": released(folder, generator(channels=12, resampling="haar"), "netG_2.pth"),
            "latents": released(folder, generator(channels=4), "netG_3.pth"),
            "autoencoder": released_autoencoder(folder, autoencoder())}  # fmt: skip
    small = Discriminator(channels=3, width=2, time_dim=6, kind="small", num_layers=3)
    torch.save(discriminator_to_released(small), folder / "netD.pth")
    torch.save({"weight": torch.zeros(3)}, folder / "other.pth")
    torch.save([torch.zeros(3)], folder / "list.pth")
    (folder / "broken.pth").write_bytes(made["pixels"].read_bytes()[:2000])
    return made | {name: folder / f"{name}.pth" for name in ("netD", "other", "list", "broken", "missing")}


@pytest.mark.parametrize(
    ("system", "names", "more", "says"),
    [
        ("ddgan", ["bands"], [], r"netG_2.* no generator of ddgan: .*12 channels and Haar bands.*--as wddgan"),
        ("ddgan", ["latents"], [], "no generator of ddgan: it takes 4 channels, as those of lddgan do"),
        ("wddgan", ["pixels"], [], "no generator of wddgan: it takes 3 channels, .*--as ddgan"),
        ("lddgan", ["pixels", "autoencoder"], [], "generates 3 channels, but the autoencoder's latent has 4"),
        ("lddgan", ["bands", "autoencoder"], [], "generates 12 channels Haar bands, but"),
        ("lddgan", ["latents"], [], "the autoencoder is missing: give its .ckpt"),
        ("ddgan", ["pixels", "autoencoder"], [], "is an autoencoder, which ddgan has none of"),
        ("ddgan", ["pixels", "latents"], [], "2 generators and 0 autoencoders were given"),
        ("lddgan", ["autoencoder"], [], "0 generators and 1 autoencoders"),
        ("ddgan", ["netD"], [], "holds a discriminator, not a generator"),
        ("ddgan", ["other"], [], "neither a released generator nor an autoencoder"),
        ("ddgan", ["list"], [], "no released network"),
        ("ddgan", ["broken"], [], "no PyTorch checkpoint or is damaged"),
        ("ddgan", ["missing"], [], "there is no checkpoint file"),
        ("ddgan", ["pixels"], ["--resolution", "16"], "of no published size, .*give --num-steps"),
        ("ddgan", ["pixels"], ["--num-steps", "2"], "of no published size, .*give --resolution"),
        ("ddgan", ["pixels"], ["--num-steps", "2", "--resolution", "17"], "x_0 of side 17 .* no multiple of 2"),
        ("wddgan", ["bands"], ["--num-steps", "2", "--resolution", "17"], "17 does not fit .* 2 times as large"),
        ("wddgan", ["bands"], ["--num-steps", "2", "--resolution", "20"], "x_0 of side 10 .* no multiple of 4"),
        ("ddgan", ["pixels"], ["--num-steps", "0"], "--num-steps 0 is not positive"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_leaves_nothing(tmp_path, files, system, names, more, says):
    with pytest.raises(UserError, match=says) as caught:
        run(["import", *(str(files[name]) for name in names), "--as", system, "--to", str(tmp_path / "m"), *more])
    assert "\n" not in str(caught.value) and not (tmp_path / "m").exists()


def test_nothing_in_a_file_is_run_and_no_model_overwritten(tmp_path, files):
    class Harm:
        def __reduce__(self):
            return Path.touch, (tmp_path / "run",)

    torch.save({"netG_dict": {}, "args": Harm()}, tmp_path / "harm.pth")
    with pytest.raises(UserError, match="could run code"):
        run(["import", str(tmp_path / "harm.pth"), "--as", "ddgan", "--to", str(tmp_path / "m")])
    assert not (tmp_path / "run").exists()
    arguments = ["import", str(files["pixels"]), "--as", "ddgan", "--to", str(tmp_path / "m"), "--num-steps", "2"]
    run([*arguments, "--resolution", "16"])
    with pytest.raises(UserError, match="already holds a model"):
        run([*arguments, "--resolution", "16"])


PARITY = Path(__file__).parents[3] / "shared" / "parity"
FIXTURES = ["ddgan_generator_cifar10", "ddgan_generator_celebahq", "wddgan_generator_cifar10",
            "wddgan_generator_wavelet", "lddgan_generator_cifar10", "lddgan_generator_celebahq",
            "lddgan_generator_lsun", "sampling_trajectory"]  # fmt: skip


@pytest.mark.parametrize("name", FIXTURES)
def test_an_imported_file_computes_what_the_published_system_did(tmp_path, name):
    """The fixture's weights as a released file, through the command, against its recorded output."""
    if not PARITY.exists():
        pytest.skip("the large parity fixtures are not at hand")
    fixture = load_file(PARITY / f"{name}.safetensors")
    weights = {key: value for key, value in fixture.items() if not key.startswith(("in.", "out.", "draw."))}
    torch.save(weights, tmp_path / "netG_1.pth")
    x = fixture["in.x_T"] if name == "sampling_trajectory" else fixture["in.x_t"]
    system = "lddgan" if name == "sampling_trajectory" else name.split("_")[0]
    files = [str(tmp_path / "netG_1.pth")]
    if system == "lddgan":
        files.append(str(released_autoencoder(tmp_path, autoencoder(x.shape[1]))))
    tanh = [] if fixture["out.x0"].abs().max() <= 1 else ["--no-tanh"]
    side = x.shape[2] * (1 if system == "ddgan" else 2)
    run(["import", *files, "--as", system, "--to", str(tmp_path / "m"), "--resolution", str(side), "--num-steps", "4",
         *tanh])  # fmt: skip
    pipe = Pipeline.from_pretrained(tmp_path / "m", "cpu")
    assert pipe.config.space_shape == x.shape[1:]
    with torch.inference_mode():
        if name == "sampling_trajectory":
            recorded = [fixture[key] for key in sorted(fixture) if key.startswith("draw.")]  # z and noise in turns
            x_0 = sample(pipe.generator, pipe.schedule, x, list(zip(recorded[::2], recorded[1::2], strict=True)))
        else:
            x_0 = pipe.generator(x, fixture["in.t"], fixture["in.z"])
    assert (x_0 - fixture["out.x0"]).norm() / fixture["out.x0"].norm() < 2e-6


def test_a_model_of_no_published_size_does_not_pass_for_one(tmp_path):
    file = released(tmp_path, generator())
    run(["import", str(file), "--as", "ddgan", "--to", str(tmp_path / "m"), "--resolution", "16", "--num-steps", "2"])
    config = Pipeline.from_pretrained(tmp_path / "m", "cpu").config
    assert (config.recipe, config.data) == ("ddgan-imported", "")


def test_a_schedule_of_its_own_is_taken_and_another_kind_refused(tmp_path):
    weights = generator_to_released(generator())
    for arguments, says in ((dict(beta_min=0.5, beta_max=5.0), None), (dict(use_geometric=True), "geometric schedule")):
        told = argparse.Namespace(num_timesteps=2, **arguments)
        torch.save({"netG_dict": weights, "args": told}, tmp_path / "content.pth")
        call = ["import", str(tmp_path / "content.pth"), "--as", "ddgan", "--resolution", "16"]
        if says:
            with pytest.raises(UserError, match=says):
                run([*call, "--to", str(tmp_path / "other")])
        else:
            run([*call, "--to", str(tmp_path / "m")])
            diffusion = Pipeline.from_pretrained(tmp_path / "m", "cpu").config.diffusion
            assert (diffusion.num_steps, diffusion.beta_min, diffusion.beta_max) == (2, 0.5, 5.0)
