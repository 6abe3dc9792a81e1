"""A training step of stage 2 as a ratio to the plain baseline, and on a GPU the memory that it takes.

    python benchmarks/training.py [--recipe cifar10] [--batch 64] [--rounds 3] [--device cpu]

The baseline encodes every batch anew and goes back through the generator in the discriminator's phase too, a gradient
that is thrown away, as the published loop does. Both take the penalty of real samples at their lazy interval. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from plain import compare, liven, plain_copy, plain_filters
from samples import exit_code

from lddgan.bench import timed
from lddgan.config import Config, with_fields
from lddgan.gan.objective import r1_penalty, reconstruction_loss
from lddgan.gan.players import BETAS, Players
from lddgan.gan.step import draw_pair
from lddgan.models import build_generator, build_space
from lddgan.recipes import recipe
from lddgan.runtime.device import describe, resolve_device
from lddgan.runtime.ema import Ema


class Ours:
    """What the loop of stage 2 does in a step, on latents that are there."""

    def __init__(self, config: Config, batch: int, device: torch.device) -> None:
        self.config, self.device = config, device
        self.players = Players.of(config, build_generator(config), device)
        self.generator, self.discriminator = (
            liven(network, seed) for network, seed in ((self.players.generator, 1), (self.players.discriminator, 2))
        )
        self.random, self.ema = torch.Generator().manual_seed(0), Ema(self.generator, 0.999)
        self.latents = torch.randn(batch, *config.space_shape)

    def step(self, *, penalised: bool) -> None:
        x_0 = self.latents.to(self.device)
        self.players.step(x_0, self.random, lambda values: None, weight=1.0, penalised=penalised)
        self.ema.update(self.generator)


class Plain:
    """The same step the plain way, from images."""

    def __init__(self, ours: Ours) -> None:
        self.config, self.schedule, self.random = ours.config, ours.players.schedule, ours.random
        self.generator, self.discriminator = plain_copy(ours.generator), plain_copy(ours.discriminator)
        self.encoder = plain_copy(liven(build_space(ours.config)).to(ours.device)).eval()
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), 1e-6, BETAS, foreach=False)
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), 1e-6, BETAS, foreach=False)
        self.average = copy.deepcopy(self.generator)
        images = self.config.images
        self.images = torch.rand(len(ours.latents), images.channels, images.resolution, images.resolution).to(
            ours.device
        )

    def step(self, *, penalised: bool) -> None:
        with plain_filters():
            self._step(penalised)

    def _step(self, penalised: bool) -> None:
        latent_dim, generator, discriminator = self.config.generator.latent_dim, self.generator, self.discriminator
        with torch.no_grad():
            x_0 = self.encoder.encode(2 * self.images - 1)
        pair = draw_pair(self.schedule, x_0, latent_dim, self.random)
        self.optimizer_d.zero_grad()
        F.softplus(-discriminator(pair.x_t, pair.t, pair.x_next)).mean().backward()
        if penalised:
            penalty = r1_penalty(discriminator, pair.x_t, pair.t, pair.x_next).mean()
            (self.config.stage2.r1_gamma / 2 * penalty).backward()
        fake = generator(pair.x_next, pair.t, pair.z)
        fake = self.schedule.posterior_sample(fake, pair.x_next, pair.t, pair.noise)
        F.softplus(discriminator(fake, pair.t, pair.x_next)).mean().backward()
        self.optimizer_d.step()

        pair = draw_pair(self.schedule, x_0, latent_dim, self.random)
        self.optimizer_g.zero_grad()
        fake_x_0 = generator(pair.x_next, pair.t, pair.z)
        fake = self.schedule.posterior_sample(fake_x_0, pair.x_next, pair.t, pair.noise)
        loss = F.softplus(-discriminator(fake, pair.t, pair.x_next)).mean()
        (loss + reconstruction_loss(fake_x_0, x_0).mean()).backward()
        self.optimizer_g.step()
        with torch.no_grad():
            for averaged, weight in zip(self.average.parameters(), generator.parameters(), strict=True):
                averaged.mul_(0.999).add_(weight, alpha=0.001)


def run(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Speed of training against the plain baseline.")
    parser.add_argument("--recipe", default="cifar10")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    device = resolve_device(args.device)
    config = with_fields(recipe(args.recipe), {"stage2.spread": 0.0})  # the published loop has none
    ours = Ours(config, args.batch, device)
    plain = Plain(ours)
    print(f"{'':<22} {'plain':>12}  {'ours':>12}  {'ratio':>7}  (quartiles)")
    comparisons = {}
    for name, penalised in (("step", False), ("step with the penalty", True)):
        comparisons[name] = compare(
            _bound(plain.step, penalised), _bound(ours.step, penalised), args.rounds, device
        )  # fmt: skip
        print(f"{name:<22} {comparisons[name]}")
    every, (step, rare) = config.stage2.r1_every, comparisons.values()
    mean_plain, mean_ours = (
        ((every - 1) * a + b) / every for a, b in ((step.plain, rare.plain), (step.ours, rare.ours))
    )
    print(f"{f'mean, every {every}th with':<22} {mean_plain * 1e3:>9,.1f} ms  {mean_ours * 1e3:>9,.1f} ms  "
          f"{mean_plain / mean_ours:>6.2f}x")  # fmt: skip
    quartiles = [((every - 1) * a + b) / every for a, b in zip(step.quartiles, rare.quartiles, strict=True)]
    result = {
        "recipe": args.recipe, "hardware": describe(device), "torch": torch.__version__, "batch": args.batch,
        "training_step": round(mean_plain / mean_ours, 3), "step_seconds": round(mean_ours, 4),
        "spread": {"training_step": [round(part, 3) for part in quartiles]},
    }  # fmt: skip
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        timed(_bound(ours.step, True), device)
        result["peak_gib"] = round(torch.cuda.max_memory_reserved() / 2**30, 3)
    print(json.dumps(result))
    return 0


def _bound(step: Callable[..., None], penalised: bool) -> Callable[[], None]:
    return lambda: step(penalised=penalised)


if __name__ == "__main__":
    sys.exit(exit_code(run))
