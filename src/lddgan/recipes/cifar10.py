"""CIFAR-10: LDDGAN, the predecessors and the ViT, each as published and small enough for two CPU cores.

A recipe differs from its sibling only where its paper says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

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
    with_fields,
)


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


def cifar10_ddgan() -> Config:
    """DDGAN, the predecessor in pixels, on CIFAR-10 as published."""
    return with_fields(
        cifar10(),
        {
            "recipe": "cifar10-ddgan", "space": "pixels",
            "generator": GeneratorConfig(
                width=128, multipliers=(1, 2, 2, 2), num_blocks=2, attention_resolutions=(16,), latent_dim=100,
                tanh=True,
            ),
            "discriminator": DiscriminatorConfig(kind="small", num_layers=4),
            "stage2": Stage2Config(
                epochs=1800, batch=256, learning_rate_generator=1.6e-4, learning_rate_discriminator=1.25e-4,
                ema_decay=0.9999, r1_gamma=0.02, r1_every=15, objective="adversarial", cosine_decay=True,
                report_every=5000,
            ),
        },
    )  # fmt: skip


def cifar10_wddgan() -> Config:
    """WDDGAN, the predecessor in wavelets, on CIFAR-10 as published."""
    ddgan = cifar10_ddgan()
    return dataclasses.replace(
        ddgan,
        recipe="cifar10-wddgan", space="wavelet",
        generator=GeneratorConfig(width=128, multipliers=(1, 2, 2), num_blocks=2, latent_dim=100, tanh=True),
        discriminator=DiscriminatorConfig(kind="small", num_layers=3),
        stage2=dataclasses.replace(ddgan.stage2, objective="reconstruction"),
    )  # fmt: skip


def _uvit(name: str, base: Callable[[], Config], summary: str, epochs: int, **sizes: Any) -> Callable[[], Config]:
    def build() -> Config:
        config = base()
        sized = UVitConfig(
            latent_dim=config.generator.latent_dim, mapping_width=config.generator.mapping_width,
            mapping_depth=config.generator.mapping_depth, **sizes,
        )  # fmt: skip
        return with_fields(dataclasses.replace(config, recipe=name, generator=sized), {"stage2.epochs": epochs})

    build.__doc__ = summary
    return build


def cifar10_small() -> Config:
    """CIFAR-10 for two CPU cores: stage 1 in half an hour, stage 2 in an hour."""
    return with_fields(_small(), {"stage2.learning_rate_generator": 6e-4})


def _small() -> Config:
    """What LDDGAN and its predecessors have in common there."""
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
        # A high rate of its own and a strong penalty keep the discriminator seeing without letting it win;
        # the reconstruction loss keeps the generator from swinging between modes. At 8x8 float32 is as fast as
        # bfloat16.
        stage2=Stage2Config(
            epochs=6, batch=64, learning_rate_generator=3e-4, learning_rate_discriminator=1e-3, ema_decay=0.999,
            r1_gamma=1.0, r1_every=8, objective="reconstruction", spread=0.4, cosine_decay=True, report_every=400,
            precision="float32",
        ),
        # The data's deviation over the samples', the mean over the channels of x_0.
        sample_gain=1.073,
        slim_decoder=SlimDecoderConfig(width=36, num_blocks=3, epochs=3, learning_rate=1e-3),
    )  # fmt: skip


def cifar10_ddgan_small() -> Config:
    """DDGAN on CIFAR-10 for two CPU cores."""
    return with_fields(
        _small(),
        {
            "recipe": "cifar10-ddgan-small", "space": "pixels",
            # A generator of cifar10-small's width would cost twenty times as much here, with sixteen times the pixels;
            # discriminator and batch are halved with it.
            "generator": GeneratorConfig(
                width=32, multipliers=(1, 2, 2, 2), num_blocks=1, attention_resolutions=(16,), latent_dim=50,
                mapping_width=128, mapping_depth=3, tanh=True,
            ),
            "discriminator": DiscriminatorConfig(kind="small", num_layers=4, width=16, time_dim=128),
            "stage2.epochs": 1, "stage2.batch": 32, "stage2.objective": "adversarial", "stage2.spread": 0.0,
        },
    )  # fmt: skip


def cifar10_wddgan_small() -> Config:
    """WDDGAN on CIFAR-10 for two CPU cores."""
    ddgan = cifar10_ddgan_small()
    return dataclasses.replace(
        ddgan,
        recipe="cifar10-wddgan-small", space="wavelet",
        generator=dataclasses.replace(ddgan.generator, multipliers=(1, 2, 2), attention_resolutions=()),
        discriminator=DiscriminatorConfig(kind="small", num_layers=3, width=16, time_dim=128),
        stage2=dataclasses.replace(ddgan.stage2, epochs=3, objective="reconstruction"),
    )  # fmt: skip


_VIT = "LDDGAN with a ViT for a generator ({}) on CIFAR-10{}."
cifar10_uvit_tiny = _uvit(
    "cifar10-uvit-tiny", cifar10, _VIT.format("Tiny", ""), 2300, patch=2, embed_dim=320, depth=11, num_heads=5
)
cifar10_uvit_mid = _uvit(
    "cifar10-uvit-mid", cifar10, _VIT.format("Mid", ""), 2300, patch=2, embed_dim=448, depth=11, num_heads=7
)
cifar10_uvit_large = _uvit(
    "cifar10-uvit-large", cifar10, _VIT.format("Large", ""), 2300, patch=2, embed_dim=448, depth=15, num_heads=7
)
# The latent has 8x8 pixels here: a pixel a token leaves as many tokens as above.
_SMALL = _VIT.format("{}", ", for two CPU cores")
cifar10_uvit_tiny_small = _uvit(
    "cifar10-uvit-tiny-small", cifar10_small, _SMALL.format("Tiny"), 6, patch=1, embed_dim=128, depth=11, num_heads=2
)
cifar10_uvit_mid_small = _uvit(
    "cifar10-uvit-mid-small", cifar10_small, _SMALL.format("Mid"), 6, patch=1, embed_dim=192, depth=11, num_heads=3
)
cifar10_uvit_large_small = _uvit(
    "cifar10-uvit-large-small", cifar10_small, _SMALL.format("Large"), 6, patch=1, embed_dim=192, depth=15, num_heads=3
)
