"""Recipes for two CPU cores and images of one's own: the demo's digits, and any folder."""

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
)
from lddgan.errors import UserError


def demo() -> Config:
    """Real handwritten digits at 8x8, both stages in five minutes or less on two CPU cores."""
    return Config(
        recipe="demo",
        data="digits",
        images=ImagesConfig(resolution=8, channels=1, flips=False),
        autoencoder=AutoencoderConfig(latent_channels=4, width=32, multipliers=(1, 2), num_blocks=1),
        stage1=Stage1Config(
            epochs=16, batch=64, learning_rate=2e-3, cosine_decay=True, ema_decay=0.0,  # the decay settles them anyway
            discriminator_width=16, discriminator_start=250, discriminator_weight=0.1, report_every=200,
            precision="float32",
        ),
        generator=GeneratorConfig(
            width=32, multipliers=(1, 2), num_blocks=1, latent_dim=32, mapping_width=64, mapping_depth=2
        ),
        discriminator=DiscriminatorConfig(kind="small", num_layers=3, width=12, time_dim=64),
        diffusion=DiffusionConfig(num_steps=12),
        # In so few steps the discriminator is nearly blind (logits near 0 for all), and without the full reconstruction
        # loss to the end the generator drifts. Twelve steps draw clearer digits than eight; the spread gives back the
        # variety that they lack.
        stage2=Stage2Config(
            epochs=38, batch=64, learning_rate_generator=2e-3, learning_rate_discriminator=2e-3, ema_decay=0.995,
            r1_gamma=1.0, r1_every=8, objective="reconstruction", spread=0.2, reuse=True, cosine_decay=True,
            report_every=600, precision="float32",
        ),
        sample_gain=1.02,  # the data's deviation over the samples'
        checkpoint_seconds=30.0,
    )  # fmt: skip


FOLDER_RESOLUTIONS = (16, 32, 64, 128, 256)
FOLDER_IMAGES = {"autoencoder": 10_000, "decoder": 12_000, "gan": 128_000}
"""Images that each stage of `folder` sees, however many the folder holds."""
FEW_IMAGES = 20_000
"""Below this a discriminator sees each so often that it would know them by heart."""


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
            latent_channels=(channels + 1, 4 * channels, 5 * channels + 1)[halvings - 1],
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
        # Of faces, four steps leave blocks of skin and brows, eight a face: each of them has less to guess.
        diffusion=DiffusionConfig(num_steps=8),
        stage2=Stage2Config(
            epochs=epochs["gan"], batch=64, learning_rate_generator=5e-4, learning_rate_discriminator=5e-4,
            ema_decay=0.995, r1_gamma=2.0, r1_every=8, objective="reconstruction", spread=0.4,
            augment=count < FEW_IMAGES, cosine_decay=True, report_every=400, precision="float32",
        ),
        slim_decoder=SlimDecoderConfig(width=24, num_blocks=2, epochs=epochs["decoder"], learning_rate=1e-3),
    )  # fmt: skip
