"""The two networks of stage 2 with their optimisers, and the step that trains both."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lddgan.config import Config, Stage2Config
from lddgan.diffusion.schedule import Schedule
from lddgan.gan.step import Guard, Run, directly, discriminator_phase, draw_pair, generator_phase, predict
from lddgan.networks.discriminator import Discriminator
from lddgan.runtime.device import autocast
from lddgan.runtime.graphs import Graphs
from lddgan.runtime.seeds import mix

BETAS = (0.5, 0.9)


@dataclasses.dataclass(frozen=True)
class Players:
    """Generator and discriminator, and all that a step of theirs takes."""

    generator: nn.Module
    discriminator: nn.Module
    optimizer_g: torch.optim.Optimizer
    optimizer_d: torch.optim.Optimizer
    schedule: Schedule
    settings: Stage2Config
    latent_dim: int
    device: torch.device
    run: Run
    """What calls the work on the device."""

    @classmethod
    def of(cls, config: Config, generator: nn.Module, device: torch.device) -> Players:
        """`generator`, moved to `device`, and the discriminator that the seed of `config` gives."""
        settings = config.stage2
        torch.manual_seed(mix(config.seed, "stage2", "discriminator"))
        discriminator = Discriminator(channels=config.space_shape[0], **dataclasses.asdict(config.discriminator))
        for network in (generator, discriminator):
            network.to(device).to(memory_format=torch.channels_last).train()
        return cls(
            generator,
            discriminator,
            torch.optim.Adam(generator.parameters(), settings.learning_rate_generator, BETAS, fused=True),
            torch.optim.Adam(discriminator.parameters(), settings.learning_rate_discriminator, BETAS, fused=True),
            Schedule(**dataclasses.asdict(config.diffusion)).to(device),
            settings,
            config.generator.latent_dim,
            device,
            directly if settings.augment else Graphs(device),  # views are drawn and used on the CPU
        )

    def precision(self) -> contextlib.AbstractContextManager:
        """Autocast, where the settings and the device want it."""
        return autocast(self.device, self.settings.precision)

    def decay(self, share: float) -> None:
        """Set both learning rates to `share` of the way (1 at first) from 1e-5 to their full size."""
        for optimizer, rate in (
            (self.optimizer_g, self.settings.learning_rate_generator),
            (self.optimizer_d, self.settings.learning_rate_discriminator),
        ):
            optimizer.param_groups[0]["lr"] = 1e-5 + (rate - 1e-5) * share

    def step(
        self,
        x_0: Tensor,
        random: torch.Generator,
        guard: Guard,
        *,
        weight: float,
        penalised: bool,
        shares: Sequence[Tensor] | None = None,
    ) -> dict[str, float]:
        """One optimiser step of the discriminator, then one of the generator; what both phases say.

        Each phase draws samples of its own, as published; with `reuse` the generator's phase takes those of the
        discriminator's, and for the spread the prediction that it has seen.

        Args:
            x_0: `[B, C, H, W]`, the whole batch.
            guard: looks at losses and gradient norms before the weights take them.
            weight: lambda of Eq. 8.
            penalised: take the R1 penalty.
            shares: rows of the parts that this process works through; None takes all in one.
        """
        settings, schedule = self.settings, self.schedule
        shares = [torch.arange(len(x_0))] if shares is None else shares
        pair = draw_pair(schedule, x_0, self.latent_dim, random, (2 + penalised) * settings.augment)
        parts = pair.parts(shares)
        predicted = self.run("predict", lambda parts: predict(self.generator, parts, self.precision), parts)
        values = discriminator_phase(
            self.discriminator, self.optimizer_d, schedule, parts, predicted, self.precision,
            r1_gamma=settings.r1_gamma if penalised else 0.0, guard=guard, run=self.run,
        )  # fmt: skip
        views, others = int(settings.augment), predicted if settings.reuse else ()
        if settings.reuse:
            pair = pair.with_other_z(random, views)
        else:
            pair = draw_pair(schedule, x_0, self.latent_dim, random, views, two=settings.spread > 0)
        return values | generator_phase(
            self.generator, self.discriminator, self.optimizer_g, schedule, pair.parts(shares), self.precision,
            reconstruction_weight=weight, guard=guard, spread=settings.spread, others=others, run=self.run,
        )  # fmt: skip
