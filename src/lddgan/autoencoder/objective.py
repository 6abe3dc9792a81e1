"""Stage 1: L1, perceptual distance, penalty of the latent, and a patch discriminator that starts late (paper,
Section 4.2; Esser et al. 2021).

Networks and tensors in, per-sample or per-patch tensors out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lddgan.networks.layers import Conv2d


class PatchDiscriminator(nn.Sequential):
    """Images `[B, C, H, W]` to one logit per patch `[B, 1, h, w]` (Isola et al. 2017).

    4x4 convs with padding 1; `num_layers` of stride 2, then two of stride 1; BatchNorm in between. The published one
    sees patches of 70 pixels. Given a `resolution` below 32, it has fewer layers, as the patches would vanish.
    """

    def __init__(self, channels: int, width: int, resolution: int | None = None, *, num_layers: int = 3) -> None:
        if resolution is not None:
            num_layers = max(1, min(num_layers, resolution.bit_length() - 3))
        layers: list[nn.Module] = [Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for layer in range(1, num_layers + 1):
            narrow, wide = width * min(2 ** (layer - 1), 8), width * min(2**layer, 8)
            stride = 2 if layer < num_layers else 1
            layers += [Conv2d(narrow, wide, 4, stride, 1, bias=False), nn.BatchNorm2d(wide), nn.LeakyReLU(0.2)]
        layers.append(Conv2d(width * min(2**num_layers, 8), 1, 4, 1, 1))
        super().__init__(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)


def reconstruction_loss(reconstructions: Tensor, images: Tensor) -> Tensor:
    """Mean absolute error per sample, `[B]`."""
    return (reconstructions.float() - images).abs().flatten(1).mean(1)


class Hinge(NamedTuple):
    """`loss`: half the sum of the two hinge losses. `accuracy`: the share of patches on the right side of 0."""

    loss: Tensor
    accuracy: Tensor


def hinge_loss(discriminator: nn.Module, images: Tensor, reconstructions: Tensor) -> Hinge:
    """The discriminator's loss, scalars; real and fake are separate batches (BatchNorm)."""
    real = discriminator(images).float()
    fake = discriminator(reconstructions.detach()).float()
    accuracy = 0.5 * ((real > 0).float().mean() + (fake < 0).float().mean())
    return Hinge(0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean()), accuracy)


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """The ratio of the two losses' gradient norms at the last decoder conv, clamped to [0, 1e4]; a scalar."""
    (grad_reconstruction,) = torch.autograd.grad(reconstruction, last_layer, retain_graph=True)
    (grad_adversarial,) = torch.autograd.grad(adversarial, last_layer, retain_graph=True)
    ratio = grad_reconstruction.float().norm() / (grad_adversarial.float().norm() + 1e-4)
    return ratio.clamp(0, 1e4).detach()


def ramp(step: int, steps: int) -> float:
    """The share of the adversarial weight `step` steps after the discriminator started: 0 to 1 over `steps`."""
    return min(1.0, (step + 1) / (steps + 1))


def kl_factor(kl_weight: float, image_values: int) -> float:
    """The weight of a KL divergence per sample beside a *mean* absolute error.

    LDM weighs it against the error summed over an image's values (channels times pixels).
    """
    return kl_weight / image_values
