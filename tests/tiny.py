"""The smallest real run: all stages on 39 generated images, in seconds on one thread."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lddgan.config import (
    AutoencoderConfig,
    Config,
    DiffusionConfig,
    DiscriminatorConfig,
    GeneratorConfig,
    ImagesConfig,
    SlimDecoderConfig,
    Stage1Config,
    Stage2Config,
    UVitConfig,
)
from lddgan.models import build_generator, build_space
from lddgan.networks.ncsnpp import NCSNpp
from lddgan.spaces.latent import LatentSpace

STEPS = 39
"""Of every stage of `tiny_config`: 8 epochs of 39 training images in batches of 8."""


def tiny_config(data: str | Path = "digits", **changes) -> Config:
    """`changes` replace whole fields of the config."""
    config = Config(
        recipe="tiny",
        data=str(data),
        images=ImagesConfig(resolution=8, channels=1, flips=True),
        autoencoder=AutoencoderConfig(latent_channels=2, width=8, multipliers=(1, 2), num_blocks=1),
        stage1=Stage1Config(
            epochs=8,
            batch=8,
            learning_rate=1e-3,
            cosine_decay=True,
            ema_decay=0.9,
            discriminator_width=4,
            discriminator_start=10,
            report_every=20,
            precision="float32",
        ),
        generator=GeneratorConfig(
            width=8, multipliers=(1, 2), num_blocks=1, latent_dim=4, mapping_width=8, mapping_depth=1, dropout=0.1
        ),
        discriminator=DiscriminatorConfig(kind="small", num_layers=3, width=4, time_dim=8),
        diffusion=DiffusionConfig(num_steps=3),
        stage2=Stage2Config(
            epochs=8,
            batch=8,
            learning_rate_generator=1e-3,
            learning_rate_discriminator=1e-3,
            ema_decay=0.9,
            r1_gamma=0.1,
            r1_every=4,
            cosine_decay=True,
            report_every=20,
            precision="float32",
        ),
        slim_decoder=SlimDecoderConfig(
            width=4, num_blocks=1, epochs=8, learning_rate=1e-3, discriminator_start=10, noise=0.1
        ),
        checkpoint_seconds=60.0,
    )
    return dataclasses.replace(config, **changes)


SPACES = {
    "pixels": {"space": "pixels"},
    "wavelet": {
        "space": "wavelet",
        "generator": GeneratorConfig(
            width=8, multipliers=(1,), num_blocks=1, latent_dim=4, mapping_width=8, mapping_depth=1, resampling="haar",
            tanh=True,
        ),
    },
    "vit": {
        "space": "pixels",
        "generator": UVitConfig(
            patch=2, embed_dim=8, depth=3, num_heads=2, latent_dim=4, mapping_width=8, mapping_depth=1
        ),
    },
}  # fmt: skip
"""What `tiny_config` has otherwise in another space or with another generator; see `spaced_config`."""


def spaced_config(name: str, data: str | Path, **changes) -> Config:
    """`tiny_config` as `SPACES` says: without an autoencoder."""
    none = {"autoencoder": None, "stage1": None, "slim_decoder": None, "stages": ("gan",)}
    return tiny_config(data, **(none | SPACES[name] | changes))


def make_sets(folder: Path, train: int = 39, test: int = 4) -> Path:
    """A folder with the splits as folders, so that their sizes do not hang on the hashes of the files."""
    make_images(folder / "train", train)
    make_images(folder / "test", test)
    return folder


def make_images(folder: Path, count: int, side: int = 8, mode: str = "L") -> Path:
    """A folder of smooth PNGs, all different."""
    folder.mkdir(parents=True)
    for i in range(count):
        small = np.random.default_rng(i).integers(0, 256, (3, 3, len(mode) if mode != "L" else 1), dtype=np.uint8)
        image = Image.fromarray(small[..., 0] if mode == "L" else small)
        image.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


def lively_model(config: Config) -> tuple[LatentSpace, NCSNpp]:
    """Untrained networks whose images yet differ a lot: a fresh generator gives almost 0."""
    space, generator = build_space(config), build_generator(config)
    with torch.no_grad():
        generator.conv_out.weight.normal_(std=0.3)
    channels = config.autoencoder.latent_channels
    space.set_statistics(torch.linspace(-0.5, 0.5, channels), torch.linspace(1, 2, channels))
    return space.eval(), generator.eval()


def tensors(tree: object, prefix: str = "") -> dict[str, Tensor]:
    """All tensors in nested dicts and lists, by path; numbers too."""
    if isinstance(tree, Tensor):
        return {prefix: tree}
    if isinstance(tree, dict):
        items = tree.items()
    elif isinstance(tree, (list, tuple)):
        items = enumerate(tree)
    else:
        return {prefix: torch.tensor(tree, dtype=torch.float64)} if isinstance(tree, (int, float)) else {}
    found: dict[str, Tensor] = {}
    for name, value in items:
        found |= tensors(value, f"{prefix}/{name}")
    return found


def assert_same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert different == []


def visible(folder: Path) -> list[str]:
    """Every file in `folder`, hidden ones included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
