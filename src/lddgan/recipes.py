"""Complete experiments: plain functions that return a `Config`.

The paper's recipes follow its Tables 1, 8, 9 and 10; what those leave out (R1 weight, Weighted Learning's delta,
the autoencoders' widths) is as in the published runs.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable

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
)
from lddgan.errors import UserError


def demo() -> Config:
    """Real handwritten digits at 8x8, both stages in about three minutes on two CPU cores."""
    return Config(
        recipe="demo",
        data="digits",
        images=ImagesConfig(resolution=8, channels=1, flips=False),
        autoencoder=AutoencoderConfig(latent_channels=4, width=32, multipliers=(1, 2), num_blocks=1),
        stage1=Stage1Config(
            epochs=25, batch=64, learning_rate=2e-3, cosine_decay=True, ema_decay=0.0,  # the decay settles them anyway
            discriminator_width=16, discriminator_start=500, discriminator_weight=0.1, report_every=200,
            precision="float32",
        ),
        generator=GeneratorConfig(
            width=32, multipliers=(1, 2), num_blocks=1, latent_dim=32, mapping_width=64, mapping_depth=2
        ),
        discriminator=DiscriminatorConfig(kind="small", num_layers=3, width=24, time_dim=64),
        diffusion=DiffusionConfig(num_steps=8),
        # In so few steps the discriminator goes blind (logits 0 for all) unless it learns faster than the generator,
        # and without the full reconstruction loss to the end the generator then drifts.
        stage2=Stage2Config(
            epochs=50, batch=64, learning_rate_generator=1e-3, learning_rate_discriminator=2e-3, ema_decay=0.995,
            r1_gamma=0.3, r1_every=8, objective="reconstruction", cosine_decay=True, report_every=400,
            precision="float32",
        ),
        checkpoint_seconds=30.0,
    )  # fmt: skip


def cifar10_small() -> Config:
    """CIFAR-10 for two CPU cores: stage 1 in half an hour, stage 2 in an hour."""
    return Config(
        recipe="cifar10-small",
        data="cifar10",
        images=ImagesConfig(resolution=32, channels=3, flips=True),
        # f = 4 with 12 channels keeps three quarters of the numbers of the paper's 16x16x4, at a quarter of the
        # generator's work. So narrow an autoencoder would take hours to come up to its linear shortcut.
        autoencoder=AutoencoderConfig(
            latent_channels=12, width=32, multipliers=(1, 2, 2), num_blocks=1, linear_shortcut=True
        ),
        stage1=Stage1Config(
            epochs=1, batch=32, learning_rate=1e-3, cosine_decay=True, ema_decay=0.99,
            discriminator_width=32, discriminator_start=1000, discriminator_weight=0.3, report_every=250,
        ),
        generator=GeneratorConfig(
            width=64, multipliers=(1, 2), num_blocks=1, latent_dim=50, mapping_width=128, mapping_depth=3
        ),
        discriminator=DiscriminatorConfig(kind="small", num_layers=3, width=32, time_dim=128),
        diffusion=DiffusionConfig(num_steps=4),
        # Three times the generator's rate and a strong penalty keep the discriminator seeing without letting it win;
        # the reconstruction loss keeps the generator from swinging between modes. At 8x8 float32 is as fast as
        # bfloat16.
        stage2=Stage2Config(
            epochs=6, batch=64, learning_rate_generator=3e-4, learning_rate_discriminator=1e-3, ema_decay=0.999,
            r1_gamma=1.0, r1_every=8, objective="reconstruction", cosine_decay=True, report_every=400,
            precision="float32",
        ),
        slim_decoder=SlimDecoderConfig(width=36, num_blocks=3, epochs=3, learning_rate=1e-3),
    )  # fmt: skip


def cifar10() -> Config:
    """CIFAR-10 as the paper trains it (one day on one GPU)."""
    return Config(
        recipe="cifar10",
        data="cifar10",
        images=ImagesConfig(resolution=32, channels=3, flips=True),
        autoencoder=AutoencoderConfig(
            latent_channels=4, width=128, multipliers=(1, 2), num_blocks=2,
            attention_resolutions=(16,), dropout=0.2, tanh=True,
        ),
        stage1=Stage1Config(epochs=300, batch=64, learning_rate=4.5e-6 * 64, perceptual="lpips-vgg16"),
        generator=GeneratorConfig(width=128, multipliers=(1, 2, 2), num_blocks=2, latent_dim=25),
        discriminator=DiscriminatorConfig(kind="small", num_layers=3),
        diffusion=DiffusionConfig(num_steps=4),
        stage2=Stage2Config(
            epochs=1700, batch=256, learning_rate_generator=1.6e-4, learning_rate_discriminator=1.25e-4,
            ema_decay=0.9999, r1_gamma=0.02, r1_every=15, report_every=5000,
        ),
        slim_decoder=SlimDecoderConfig(width=64, num_blocks=3, epochs=30, learning_rate=3e-4),
        checkpoint_seconds=600.0,
    )  # fmt: skip


def celebahq256() -> Config:
    """CelebA-HQ at 256 px as the paper trains it (1.5 days on two GPUs)."""
    return Config(
        recipe="celebahq256",
        data="",
        images=ImagesConfig(resolution=256, channels=3, flips=True),
        autoencoder=AutoencoderConfig(latent_channels=4, width=128, multipliers=(1, 2, 4), num_blocks=2),
        stage1=Stage1Config(
            epochs=450, batch=16, learning_rate=4.5e-6 * 16, perceptual="lpips-vgg16", report_every=5000
        ),
        generator=GeneratorConfig(
            width=128, multipliers=(1, 2, 2, 2), num_blocks=2, attention_resolutions=(16,), latent_dim=25
        ),
        discriminator=DiscriminatorConfig(kind="small", num_layers=4),
        diffusion=DiffusionConfig(num_steps=2),
        stage2=Stage2Config(
            epochs=400, batch=128, learning_rate_generator=2e-4, learning_rate_discriminator=1e-4,
            ema_decay=0.999, r1_gamma=2.0, r1_every=10, report_every=5000,
        ),
        slim_decoder=SlimDecoderConfig(width=64, num_blocks=4, epochs=50, learning_rate=3e-4),
        checkpoint_seconds=600.0,
    )  # fmt: skip


def lsun_church256() -> Config:
    """LSUN Church at 256 px as the paper trains it (2.1 days on two GPUs)."""
    celebahq = celebahq256()
    return dataclasses.replace(
        celebahq,
        recipe="lsun-church256",
        autoencoder=AutoencoderConfig(latent_channels=3, width=128, multipliers=(1, 2, 4, 4), num_blocks=2),
        stage1=dataclasses.replace(celebahq.stage1, epochs=525),
        diffusion=DiffusionConfig(num_steps=4),
        stage2=dataclasses.replace(celebahq.stage2, r1_gamma=1.0),
    )


FOLDER_RESOLUTIONS = (16, 32, 64, 128, 256)
FOLDER_IMAGES = {"autoencoder": 15_000, "decoder": 20_000, "gan": 120_000}
"""Images that each stage of `folder` sees, however many the folder holds."""


def folder(data: str, count: int, channels: int, short_side: int, resolution: int | None = None) -> Config:
    """A set of your own: resolution, channels, factor and sizes follow from the images.

    The factor is the largest up to 8 that leaves a latent of at least 8x8, where a generator draws fastest: beside a
    linear shortcut the autoencoder keeps enough at any of them.

    Args:
        data: the path of the set, with `count` images of `channels` channels.
        short_side: the median of the shorter sides in pixels; the resolution is the largest power of two within it.
        resolution: overrides that choice; a multiple of 8.

    Raises:
        UserError: another resolution.
    """
    if resolution is None:
        resolution = max((r for r in FOLDER_RESOLUTIONS if r <= short_side), default=FOLDER_RESOLUTIONS[0])
    if resolution < 8 or resolution % 8:
        raise UserError(f"images.resolution {resolution} is not a multiple of 8: choose another")
    halvings = max((h for h in (2, 3) if resolution % (4 * 2**h) == 0 and resolution >= 8 * 2**h), default=1)
    epochs = {stage: max(1, images // count) for stage, images in FOLDER_IMAGES.items()}
    batch = 32
    return Config(
        recipe="folder",
        data=data,
        images=ImagesConfig(resolution=resolution, channels=channels, flips=True),  # type: ignore[arg-type]
        autoencoder=AutoencoderConfig(
            latent_channels=(channels + 1, 4 * channels, 8 * channels)[halvings - 1],
            width=16, multipliers=(1, 2, 4, 4)[: halvings + 1], num_blocks=1, linear_shortcut=True,
        ),
        stage1=Stage1Config(
            epochs=epochs["autoencoder"], batch=batch, learning_rate=1e-3, cosine_decay=True, ema_decay=0.99,
            discriminator_width=32, discriminator_start=FOLDER_IMAGES["autoencoder"] // batch // 2,
            discriminator_weight=0.1, report_every=250,
        ),
        generator=GeneratorConfig(
            width=64, multipliers=(1, 2, 2) if resolution // 2**halvings % 16 == 0 else (1, 2), num_blocks=1,
            latent_dim=50, mapping_width=128, mapping_depth=3,
        ),
        discriminator=DiscriminatorConfig(kind="small", num_layers=3, width=32, time_dim=128),
        diffusion=DiffusionConfig(num_steps=4),
        stage2=Stage2Config(
            epochs=epochs["gan"], batch=64, learning_rate_generator=5e-4, learning_rate_discriminator=5e-4,
            ema_decay=0.995, r1_gamma=2.0, r1_every=8, objective="reconstruction", cosine_decay=True,
            report_every=400, precision="float32",
        ),
        slim_decoder=SlimDecoderConfig(width=24, num_blocks=2, epochs=epochs["decoder"], learning_rate=1e-3),
    )  # fmt: skip


RECIPES: dict[str, Callable[[], Config]] = {
    "demo": demo,
    "cifar10-small": cifar10_small,
    "cifar10": cifar10,
    "celebahq256": celebahq256,
    "lsun-church256": lsun_church256,
}


def recipe(name: str) -> Config:
    """The recipe called `name` (all but `folder`, which has to see the data first).

    Raises:
        UserError: there is none; names the closest one.
    """
    if name not in RECIPES:
        names = [*RECIPES, "folder"]
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f"did you mean '{close[0]}'?" if close else f"choose one of {', '.join(names)}"
        raise UserError(f"there is no recipe '{name}': {hint}")
    return RECIPES[name]()
