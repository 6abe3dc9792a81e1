"""Latent Denoising Diffusion GAN: from a folder of images to real-time samples."""

from lddgan.errors import RunStopped, UserError
from lddgan.pipeline import Pipeline
from lddgan.recipes import recipe

__all__ = ["Pipeline", "RunStopped", "UserError", "recipe"]
