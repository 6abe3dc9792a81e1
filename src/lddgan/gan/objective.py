"""The objective of the few-step diffusion GAN: paper Eq. 5 to 9 and the lazy R1 penalty.

Networks and tensors in, per-sample tensors `[B]` out; the caller takes means, weighs and steps.
`x_t` is the less noisy and `x_next` the noisier sample (`x_{t+1}`) of a pair.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lddgan.networks import winograd


def discriminator_loss(
    discriminator: nn.Module, x_t: Tensor, x_t_fake: Tensor, x_next: Tensor, t: Tensor
) -> tuple[Tensor, Tensor]:
    """Eq. 5 (its second sign is a misprint): `softplus(-D(real))` and `softplus(D(fake))`, each `[B]`.

    Real and fake are separate batches, because the discriminator looks at statistics of its batch.
    """
    loss_real = F.softplus(-discriminator(x_t, t, x_next).float())
    loss_fake = F.softplus(discriminator(x_t_fake.detach(), t, x_next).float())
    return loss_real, loss_fake


def r1_penalty(discriminator: nn.Module, x_t: Tensor, t: Tensor, x_next: Tensor) -> Tensor:
    """`|grad_{x_t} D(x_t, t, x_next)|^2` per sample `[B]` on real samples only (Mescheder et al. 2018)."""
    x_t = x_t.detach().requires_grad_(True)
    with winograd.without():
        logits = discriminator(x_t, t, x_next)
    (gradient,) = torch.autograd.grad(logits.sum(), x_t, create_graph=True)
    return gradient.square().flatten(1).sum(1)


def generator_loss(discriminator: nn.Module, x_t_fake: Tensor, x_next: Tensor, t: Tensor) -> Tensor:
    """Eq. 6: the non-saturating loss `softplus(-D(fake))`, `[B]`."""
    return F.softplus(-discriminator(x_t_fake, t, x_next).float())


def reconstruction_loss(x_0_fake: Tensor, x_0: Tensor) -> Tensor:
    """Eq. 7: the mean absolute error of the predicted `x_0`, `[B]`."""
    return (x_0_fake.float() - x_0).abs().flatten(1).mean(1)


def spread_loss(first: Tensor, second: Tensor) -> Tensor:
    """Half the mean absolute difference of two predictions of x_0 from the same x_{t+1} and other z, `[B]`.

    Taken off Eq. 7 it leaves the continuous ranked probability score of every value of x_0. That is least where the
    predictions are distributed as x_0 is given x_{t+1}; Eq. 7 alone is least at its median, without any use of z
    (Gneiting and Raftery 2007, Eq. 21; for diffusion De Bortoli et al. 2025).
    """
    return 0.5 * reconstruction_loss(first, second)


def weighted_learning(progress: float, delta: float) -> float:
    """Eq. 9, as released: lambda from `sigmoid(delta)` at progress 0 to `sigmoid(-delta)` at progress 1.

    As printed, `phi` ends at 0 and lambda at 1/2, against the paper's own text and Fig. 2.

    Args:
        progress: epoch / number of epochs, in [0, 1].
        delta: steepness; the published runs use 6.
    """
    phi = -delta + 2 * delta * progress
    return 1 - 1 / (1 + math.exp(-phi))
