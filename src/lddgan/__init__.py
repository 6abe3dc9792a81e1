"""Latent Denoising Diffusion GAN: from a folder of images to real-time samples."""

import os

# Threads that spin while they wait make two programs on the same cores ten times slower, and gain nothing alone.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from lddgan.errors import RunStopped, UserError  # noqa: E402
from lddgan.pipeline import Pipeline  # noqa: E402
from lddgan.recipes import recipe  # noqa: E402

__all__ = ["Pipeline", "RunStopped", "UserError", "recipe"]
