"""How faithful reconstructions of held-out images are, while a run trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from pytorch_msssim import ssim
from torch import Tensor, nn

from lddgan.autoencoder.perceptual import PerceptualLoss
from lddgan.data.latents import to_uint8, to_unit_range
from lddgan.data.prepare import ImageSet
from lddgan.metrics.frechet import frechet_distance, gaussian_statistics
from lddgan.metrics.measured import evenly_spread
from lddgan.metrics.pooled import finest_grid, least_images, pooled_features
from lddgan.reports.grid import save_grid

IMAGES = 1000
"""Held-out images measured at every report, evenly spread: the first ones may all be of one class."""
GRID_IMAGES = 32
BATCH = 100


class Fidelity(NamedTuple):
    """Of reconstructions against the images themselves.

    `psnr` in dB, of the mean squared error over all images; `ssim` in [-1, 1]; `perceptual` in the run's own distance,
    None where it has none; `frechet` in the features named by `features`, None where there are too few images.
    """

    psnr: float
    ssim: float
    perceptual: float | None
    frechet: float | None
    features: str

    @property
    def distance(self) -> float:
        """What picks the best weights: the Frechet distance, which blur and artefacts both raise; without it -PSNR."""
        return -self.psnr if self.frechet is None else self.frechet

    def row(self) -> dict[str, float]:
        """By the names of the curves."""
        named = {
            "held_out/psnr": self.psnr, "held_out/ssim": self.ssim, "held_out/perceptual": self.perceptual,
            f"held_out/FD[{self.features}]": self.frechet,
        }  # fmt: skip
        return {name: value for name, value in named.items() if value is not None}

    def __str__(self) -> str:
        rest = [f"{name.removeprefix('held_out/')} {value:.4g}" for name, value in self.row().items()][1:]
        return ", ".join([f"PSNR {self.psnr:.2f} dB", *rest])


def psnr(square_error: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error of images in [-1, 1]; at most 126."""
    return 10 * math.log10(4 / max(square_error, 1e-12))


class HeldOut:
    """Held-out images and the way through a network and back.

    Args:
        images: the whole held-out split; `IMAGES` of it are measured.
        reconstruct: takes the network and images `[B, C, R, R]` in [-1, 1], gives the like.
        picture: file name of the grid, original beside reconstruction.
    """

    def __init__(self, images: ImageSet, reconstruct: Callable[[nn.Module, Tensor], Tensor], picture: str) -> None:
        self._images = images.batch(evenly_spread(len(images), IMAGES))
        self._reconstruct, self._picture = reconstruct, picture

    @torch.inference_mode()
    def measure(self, network: nn.Module, perceptual: PerceptualLoss | None, device: torch.device) -> Fidelity:
        """In float32, the network in evaluation mode."""
        _, side, _, channels = self._images.shape
        cells = finest_grid(channels, side, len(self._images))
        errors, similarities, distances, features = [], [], [], []
        for images, ours in self._pairs(network, device):
            errors.append((ours - images).square().mean())
            window = 11 if side >= 11 else 7  # Wang et al. 2004 take 11
            similarities.append(ssim(ours / 2 + 0.5, images / 2 + 0.5, data_range=1.0, win_size=window))
            if perceptual is not None:
                distances.append(perceptual(ours, images).mean())
                features.append((perceptual.features(ours).cpu(), perceptual.features(images).cpu()))
            else:
                features.append((pooled_features(ours, cells), pooled_features(images, cells)))
        weights = torch.tensor([len(part) for part in self._images.split(BATCH)], dtype=torch.float64)

        def mean(values: list[Tensor]) -> float:
            return float((torch.stack(values).double().cpu() * weights).sum() / weights.sum())

        ours, theirs = (torch.cat(part) for part in zip(*features, strict=True))
        enough = len(ours) > ours.shape[1] if perceptual is not None else len(ours) >= least_images(channels)
        return Fidelity(
            psnr=psnr(mean(errors)),
            ssim=mean(similarities),
            perceptual=mean(distances) if distances else None,
            frechet=frechet_distance(gaussian_statistics(theirs), gaussian_statistics(ours)) if enough else None,
            features=perceptual.name if perceptual is not None else "pixels",
        )

    @torch.inference_mode()
    def show(self, network: nn.Module, folder: Path, device: torch.device) -> None:
        """Write the grid into `folder`."""
        images = self._images[evenly_spread(len(self._images), GRID_IMAGES)]
        ours = self._through(network, images, device).cpu()
        pairs = torch.stack([images, to_uint8(ours)], 1).flatten(0, 1)
        save_grid(pairs.numpy(), folder / self._picture, columns=8)

    def _pairs(self, network: nn.Module, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        for part in self._images.split(BATCH):
            yield to_unit_range(part).to(device), self._through(network, part, device)

    def _through(self, network: nn.Module, images: Tensor, device: torch.device) -> Tensor:
        training = network.training
        network.eval()
        ours = self._reconstruct(network, to_unit_range(images).to(device)).float().clamp(-1, 1)
        network.train(training)
        return ours
