"""One optimiser step of D and one of G."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from lddgan.diffusion.schedule import Schedule
from lddgan.gan.objective import discriminator_loss, generator_loss, r1_penalty, reconstruction_loss, spread_loss
from lddgan.runtime.progress import gradient_norm

Precision = Callable[[], AbstractContextManager]
"""Gives the autocast context; each phase enters its own, because autocast caches cast weights."""
Guard = Callable[[dict[str, float]], None]
"""Looks at losses and gradient norms before the weights take them."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """A training pair and the draws around it: all that one phase needs."""

    x_0: Tensor
    t: Tensor
    x_t: Tensor
    x_next: Tensor
    z: Tensor
    noise: Tensor
    """Of the posterior."""


def draw_pair(schedule: Schedule, x_0: Tensor, latent_dim: int, random: torch.Generator) -> Pair:
    """A fresh t, pair, z and posterior noise for `x_0` `[B, C, H, W]`, drawn on the CPU."""
    device = x_0.device
    t = torch.randint(schedule.num_steps, (len(x_0),), generator=random).to(device)
    noise, noise_next, noise_posterior = torch.randn(3, *x_0.shape, generator=random).to(device).unbind()
    z = torch.randn(len(x_0), latent_dim, generator=random).to(device)
    x_t, x_next = schedule.pair(x_0, t, noise, noise_next)
    return Pair(x_0, t, x_t, x_next, z, noise_posterior)


def discriminator_phase(
    generator: nn.Module,
    discriminator: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    pair: Pair,
    precision: Precision,
    *,
    r1_gamma: float,
    guard: Guard,
) -> dict[str, float]:
    """Eq. 5, plus `r1_gamma / 2` times the R1 penalty (in float32) where `r1_gamma` is not 0."""
    t, x_next = pair.t, pair.x_next
    with torch.no_grad(), precision():
        x_0_fake = generator(x_next, t, pair.z).float()
    x_t_fake = schedule.posterior_sample(x_0_fake, x_next, t, pair.noise)
    with precision():
        loss_real, loss_fake = discriminator_loss(discriminator, pair.x_t, x_t_fake, x_next, t)
    loss = loss_real.mean() + loss_fake.mean()
    values = {
        "loss/discriminator": loss.item(),
        "logits/real": -_inverse_softplus(loss_real).mean().item(),
        "logits/fake": _inverse_softplus(loss_fake).mean().item(),
    }
    if r1_gamma:
        penalty = r1_penalty(discriminator, pair.x_t, t, x_next).mean()
        loss = loss + r1_gamma / 2 * penalty
        values["r1"] = penalty.item()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    values["grad_norm/discriminator"] = gradient_norm(discriminator)
    guard(values)
    optimizer.step()
    return values


def generator_phase(
    generator: nn.Module,
    discriminator: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    pair: Pair,
    precision: Precision,
    *,
    reconstruction_weight: float,
    guard: Guard,
    spread: float = 0.0,
    other_z: Tensor | None = None,
) -> dict[str, float]:
    """Eq. 8: the adversarial loss plus `reconstruction_weight` (lambda) times Eq. 7.

    Given `other_z` (like `pair.z`), Eq. 7 is averaged over both, and `spread` times `spread_loss` is taken off it.
    """
    t, x_next = pair.t, pair.x_next
    discriminator.requires_grad_(False)
    with precision():
        x_0_fake = generator(x_next, t, pair.z).float()
    x_t_fake = schedule.posterior_sample(x_0_fake, x_next, t, pair.noise)
    with precision():
        loss_adversarial = generator_loss(discriminator, x_t_fake, x_next, t).mean()
    loss_reconstruction = reconstruction_loss(x_0_fake, pair.x_0).mean()
    values = {}
    if other_z is not None:
        with precision():
            other = generator(x_next, t, other_z).float()
        distance = spread_loss(x_0_fake, other).mean()
        loss_reconstruction = (loss_reconstruction + reconstruction_loss(other, pair.x_0).mean()) / 2
        values["loss/spread"] = distance.item()
        loss_reconstruction = loss_reconstruction - spread * distance
    optimizer.zero_grad(set_to_none=True)
    (loss_adversarial + reconstruction_weight * loss_reconstruction).backward()
    discriminator.requires_grad_(True)
    values |= {
        "loss/generator": loss_adversarial.item(),
        "loss/reconstruction": loss_reconstruction.item(),
        "lambda": reconstruction_weight,
        "grad_norm/generator": gradient_norm(generator),
    }
    guard(values)
    optimizer.step()
    return values


def _inverse_softplus(loss: Tensor) -> Tensor:
    """The logit l of a loss softplus(l): `log(exp(loss) - 1)`, without overflow; -104 where the loss is 0."""
    return loss.detach() + torch.log(-torch.expm1(-loss.detach())).clamp_min(-104)
