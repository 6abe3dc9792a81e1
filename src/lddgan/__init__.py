"""Latent Denoising Diffusion GAN: from a folder of images to real-time samples."""

import os

# By default threads spin for milliseconds while they wait: two programs on the same cores then run fifty times slower.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from lddgan.errors import RunStopped, UserError  # noqa: E402
from lddgan.pipeline import Pipeline  # noqa: E402
from lddgan.recipes import recipe  # noqa: E402

__all__ = ["Pipeline", "RunStopped", "UserError", "recipe"]
