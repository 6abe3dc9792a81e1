"""CelebA-HQ and LSUN Church at 256 pixels: LDDGAN and the predecessors as published."""

from __future__ import annotations

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
    with_fields,
)


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
    return with_fields(
        celebahq256(),
        {
            "recipe": "lsun-church256",
            "autoencoder.latent_channels": 3, "autoencoder.multipliers": (1, 2, 4, 4), "stage1.epochs": 525,
            "diffusion.num_steps": 4, "stage2.r1_gamma": 1.0, "slim_decoder.width": 56,
        },
    )  # fmt: skip


def celebahq256_ddgan() -> Config:
    """DDGAN, the predecessor in pixels, on CelebA-HQ at 256 px as published."""
    return Config(
        recipe="celebahq256-ddgan",
        data="",
        images=ImagesConfig(resolution=256, channels=3, flips=True),
        space="pixels",
        generator=GeneratorConfig(
            width=64, multipliers=(1, 1, 2, 2, 4, 4), num_blocks=2, attention_resolutions=(16,), latent_dim=100,
            mapping_depth=3, tanh=True,
        ),
        discriminator=DiscriminatorConfig(kind="large", num_layers=6),
        diffusion=DiffusionConfig(num_steps=2),
        stage2=Stage2Config(
            epochs=800, batch=32, learning_rate_generator=2e-4, learning_rate_discriminator=1e-4, ema_decay=0.9999,
            r1_gamma=2.0, r1_every=10, objective="adversarial", cosine_decay=True, report_every=5000,
        ),
        stages=("gan",),
        checkpoint_seconds=600.0,
    )  # fmt: skip


def lsun_church256_ddgan() -> Config:
    """DDGAN, the predecessor in pixels, on LSUN Church at 256 px as published."""
    return with_fields(
        celebahq256_ddgan(),
        {"recipe": "lsun-church256-ddgan", "diffusion.num_steps": 4, "stage2.epochs": 500, "stage2.batch": 64, **LSUN},
    )


def celebahq256_wddgan() -> Config:
    """WDDGAN, the predecessor in wavelets, on CelebA-HQ at 256 px as published."""
    return with_fields(
        celebahq256_ddgan(),
        {
            "recipe": "celebahq256-wddgan", "space": "wavelet",
            "generator.multipliers": (1, 2, 2, 2, 4), "generator.resampling": "haar", "discriminator.num_layers": 5,
            "stage2.objective": "reconstruction", "stage2.epochs": 500,
        },
    )  # fmt: skip


def lsun_church256_wddgan() -> Config:
    """WDDGAN, the predecessor in wavelets, on LSUN Church at 256 px as published."""
    return with_fields(
        celebahq256_wddgan(),
        {"recipe": "lsun-church256-wddgan", "diffusion.num_steps": 4, "stage2.batch": 16, **LSUN},
    )


LSUN = {"stage2.learning_rate_generator": 1.6e-4, "stage2.ema_decay": 0.999, "stage2.r1_gamma": 1.0}
"""What the predecessors' training on LSUN Church has other than on CelebA-HQ."""
