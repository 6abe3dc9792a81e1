"""One optimiser step of D and one of G."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lddgan.diffusion.schedule import Schedule
from lddgan.gan.augment import Augmented, View, draw_view
from lddgan.gan.objective import discriminator_loss, generator_loss, r1_penalty, reconstruction_loss, spread_loss
from lddgan.runtime.parallel import world
from lddgan.runtime.progress import gradient_norm

Precision = Callable[[], AbstractContextManager]
"""Gives the autocast context; each phase enters its own, because autocast caches cast weights."""
Guard = Callable[[dict[str, float]], None]
"""Looks at losses and gradient norms before the weights take them."""
Run = Callable[..., Any]
"""`run(name, work, *given)` gives what `work(*given)` gives, if not the way Python goes there: see `Graphs`."""


def directly(name: Hashable, work: Callable[..., Any], *given: Any) -> Any:
    """The plainest `Run`."""
    return work(*given)


class Pair(NamedTuple):
    """A training pair and the draws around it: all that one phase needs."""

    x_0: Tensor
    t: Tensor
    x_t: Tensor
    x_next: Tensor
    z: Tensor
    noise: Tensor
    """Of the posterior."""
    other_z: Tensor | None = None
    """A second draw of z, where the objective compares two."""
    views: Sequence[View] = ()
    """How an augmented discriminator sees the batch: one for each time that it looks."""

    def parts(self, shares: Sequence[Tensor]) -> list[Pair]:
        """The same pair cut into batches of the rows `shares`."""

        def cut(rows: Tensor) -> Pair:
            own = {name: value[rows] for name, value in self._asdict().items() if isinstance(value, Tensor)}
            return self._replace(**own, views=[(shift[:, rows], corner[:, rows]) for shift, corner in self.views])

        return [self] if len(shares) == 1 and len(shares[0]) == len(self.x_0) else [cut(rows) for rows in shares]

    def with_other_z(self, random: torch.Generator, views: int = 0) -> Pair:
        """The same samples at the same times, with a fresh z, posterior noise and `views`, drawn on the CPU."""
        z, noise = (torch.randn(part.shape, generator=random).to(part.device) for part in (self.z, self.noise))
        return self._replace(z=z, noise=noise, views=_draw_views(self.x_0, views, random))


def draw_pair(
    schedule: Schedule, x_0: Tensor, latent_dim: int, random: torch.Generator, views: int = 0, *, two: bool = False
) -> Pair:
    """A fresh t, pair, z and posterior noise for `x_0` `[B, C, H, W]`, drawn on the CPU.

    Args:
        views: of an augmented discriminator.
        two: draw a second z too.
    """
    device = x_0.device
    t = torch.randint(schedule.num_steps, (len(x_0),), generator=random).to(device)
    noise, noise_next, noise_posterior = torch.randn(3, *x_0.shape, generator=random).to(device).unbind()
    z = torch.randn(len(x_0), latent_dim, generator=random).to(device)
    other_z = torch.randn(len(x_0), latent_dim, generator=random).to(device) if two else None
    x_t, x_next = schedule.pair(x_0, t, noise, noise_next)
    return Pair(x_0, t, x_t, x_next, z, noise_posterior, other_z, _draw_views(x_0, views, random))


def _draw_views(x_0: Tensor, count: int, random: torch.Generator) -> list[View]:
    return [draw_view(len(x_0), x_0.shape[2], random) for _ in range(count)]


@torch.no_grad()
def predict(generator: nn.Module, parts: Sequence[Pair], precision: Precision) -> list[Tensor]:
    """The x_0 that `generator` predicts for each of `parts`, float32, without a gradient."""
    with precision():
        return [generator(pair.x_next, pair.t, pair.z).float() for pair in parts]


def discriminator_phase(
    discriminator: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    parts: Sequence[Pair],
    predicted: Sequence[Tensor],
    precision: Precision,
    *,
    r1_gamma: float,
    guard: Guard,
    run: Run = directly,
) -> dict[str, float]:
    """Eq. 5, plus `r1_gamma / 2` times the R1 penalty (in float32) where `r1_gamma` is not 0.

    Args:
        parts: of this process, equal in size (`Pair.parts`); they are worked through one after another.
        predicted: the generator's x_0 for each of them (`predict`).
        run: what calls everything up to the gradients.
    """

    def gradients(parts: Sequence[Pair], predicted: Sequence[Tensor]) -> dict[str, Tensor]:
        _clear_gradients(discriminator)
        rows = []
        for pair, x_0_fake in zip(parts, predicted, strict=True):
            seen = Augmented(discriminator, pair.views) if pair.views else discriminator
            t, x_next = pair.t, pair.x_next
            x_t_fake = schedule.posterior_sample(x_0_fake, x_next, t, pair.noise)
            with precision():
                loss_real, loss_fake = discriminator_loss(seen, pair.x_t, x_t_fake, x_next, t)
            loss = loss_real.mean() + loss_fake.mean()
            values = {
                "loss/discriminator": loss,
                "logits/real": -_inverse_softplus(loss_real).mean(),
                "logits/fake": _inverse_softplus(loss_fake).mean(),
            }
            if r1_gamma:
                values["r1"] = r1_penalty(seen, pair.x_t, t, x_next).mean()
                loss = loss + r1_gamma / 2 * values["r1"]
            (loss / len(parts)).backward()
            rows.append(values)
        return _means(rows)

    values = run(("discriminator", bool(r1_gamma)), gradients, parts, predicted)
    return _take_step("discriminator", discriminator, optimizer, values, guard)


def generator_phase(
    generator: nn.Module,
    discriminator: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    parts: Sequence[Pair],
    precision: Precision,
    *,
    reconstruction_weight: float,
    guard: Guard,
    spread: float = 0.0,
    others: Sequence[Tensor] = (),
    run: Run = directly,
) -> dict[str, float]:
    """Eq. 8: the adversarial loss plus `reconstruction_weight` (lambda) times Eq. 7.

    Args:
        spread: this times `spread_loss` is taken off Eq. 7. The second prediction of the same samples is drawn with the
            `other_z` of each of `parts`, and Eq. 7 averaged over both.
        others: or it is given for each of `parts` (`predict`, by the same weights). These take no gradient, but by
            symmetry half of the expected one is theirs, so that of the first counts twice.
        run: what calls everything up to the gradients.
    """

    def gradients(parts: Sequence[Pair], others: Sequence[Tensor], weight: Tensor) -> dict[str, Tensor]:
        _clear_gradients(generator)
        rows = []
        for pair, other in zip(parts, others or [None] * len(parts), strict=True):
            seen = Augmented(discriminator, pair.views) if pair.views else discriminator
            t, x_next, values = pair.t, pair.x_next, {}
            with precision():
                x_0_fake = generator(x_next, t, pair.z).float()
            x_t_fake = schedule.posterior_sample(x_0_fake, x_next, t, pair.noise)
            with precision():
                loss_adversarial = generator_loss(seen, x_t_fake, x_next, t).mean()
            loss_reconstruction = reconstruction_loss(x_0_fake, pair.x_0).mean()
            if other is None and pair.other_z is not None:
                with precision():
                    other = generator(x_next, t, pair.other_z).float()
                loss_reconstruction = (loss_reconstruction + reconstruction_loss(other, pair.x_0).mean()) / 2
            score = loss_reconstruction
            if other is not None:
                values["loss/spread"] = distance = spread_loss(x_0_fake, other).mean()
                score = loss_reconstruction - spread * distance
                loss_reconstruction = score if other.requires_grad else score - spread * distance
            ((loss_adversarial + weight * loss_reconstruction) / len(parts)).backward()
            rows.append(values | {"loss/generator": loss_adversarial, "loss/reconstruction": score})
        return _means(rows)

    discriminator.requires_grad_(False)
    weight = parts[0].x_0.new_full((), reconstruction_weight)
    values = run("generator", gradients, parts, others, weight)
    discriminator.requires_grad_(True)
    return _take_step("generator", generator, optimizer, values, guard) | {"lambda": reconstruction_weight}


def _clear_gradients(network: nn.Module) -> None:
    """On a GPU in place: work that is recorded adds to them where they lie."""
    on_gpu = next(network.parameters()).device.type == "cuda"
    network.zero_grad(set_to_none=not on_gpu)


def _means(rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([row[name].detach() for row in rows]).mean() for name in rows[0]}


def _take_step(
    name: str, network: nn.Module, optimizer: torch.optim.Optimizer, values: dict[str, Tensor], guard: Guard
) -> dict[str, float]:
    """The optimiser's step with the gradient over all processes; the means of what they say."""
    everyone = world()
    # The values first: their message fails where a process is gone, before one over the GPUs' own network is begun.
    means = everyone.mean(dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True)))
    everyone.mean_gradients(network)
    means[f"grad_norm/{name}"] = gradient_norm(network)
    guard(means)
    optimizer.step()
    return means


def _inverse_softplus(loss: Tensor) -> Tensor:
    """The logit l of a loss softplus(l): `log(exp(loss) - 1)`, without overflow; -104 where the loss is 0."""
    return loss.detach() + torch.log(-torch.expm1(-loss.detach())).clamp_min(-104)
