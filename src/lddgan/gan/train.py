"""Stage 2: train the diffusion GAN on a set of x_0. One loop, read from top to bottom."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from lddgan.config import Config, defaults, identity
from lddgan.data.latents import TrainingSet
from lddgan.diffusion.sampler import sample
from lddgan.errors import RunStopped
from lddgan.gan.evaluate import SampleEvaluation
from lddgan.gan.health import Health
from lddgan.gan.objective import weighted_learning
from lddgan.gan.players import Players
from lddgan.networks.discriminator import group_shares
from lddgan.runtime.checkpoint import Best, Checkpoint
from lddgan.runtime.ema import Ema
from lddgan.runtime.parallel import world
from lddgan.runtime.progress import Progress, Silent, Timer, interruptible, report_due, require_finite
from lddgan.runtime.seeds import BatchOrder, image_draws, mix, step_generator

EVALUATION_IMAGES = 1000


@dataclasses.dataclass(frozen=True)
class Reporting:
    """What the loop hands on at a report: it writes pictures and model folders, the loop does not."""

    show: Callable[[Tensor, int], None]
    """Takes x_0 of the fixed seeds `[n, Z, r, r]` and the step."""
    keep: Callable[[nn.Module, str], None]
    """Takes the EMA generator and `model` (the last) or `best`."""
    grid_images: int = 64


def train_gan(
    config: Config,
    generator: nn.Module,
    data: TrainingSet,
    normalise: Callable[[Tensor], Tensor],
    folder: Path,
    device: torch.device,
    reporting: Reporting,
) -> None:
    """Train `generator` in place, from the run folder's checkpoint where there is one.

    Args:
        data: what x_0 is drawn from.
        normalise: from a batch of it to x_0 on `device`; raw latents come to unit scale.
        folder: the run folder; takes `checkpoints/stage2.pt` and curves.

    `settings.batch` is that of all processes together. Each draws the whole batch's noise and works on its share.

    Raises:
        RunStopped: interrupted (saved first), not finite, the disk is full, or another process is gone.
        ValueError: the batch cannot be shared among so many processes.
    """
    settings, shape, latent_dim = config.stage2, config.space_shape, config.generator.latent_dim
    everyone = world()
    shares = group_shares(settings.batch, everyone.size * settings.accumulate)
    shares = shares[everyone.rank * settings.accumulate :][: settings.accumulate]
    players = Players.of(config, generator, device)
    ema, best = Ema(generator, settings.ema_decay), Best()
    checkpoint = Checkpoint(
        folder / "checkpoints" / "stage2.pt", {**identity(config), "the data": data.hash}, defaults(),
        generator=generator, discriminator=players.discriminator,
        optimizer_g=players.optimizer_g, optimizer_d=players.optimizer_d, ema=ema, best=best,
    )  # fmt: skip

    order = BatchOrder(len(data), settings.batch, mix(config.seed, "stage2"))
    total = max(1, int(settings.epochs * len(data)) // settings.batch)
    start = checkpoint.load(device)
    if start >= total:
        if everyone.first:
            reporting.keep(ema.model, "model")  # a kill may have come between the last checkpoint and this
        return
    evaluation, health = SampleEvaluation(data, normalise), Health()
    progress = Progress(folder, "stage2", start, total, settings.batch) if everyone.first else Silent()
    save_timer = Timer(config.checkpoint_seconds)

    def guard(step: int) -> Callable[[dict[str, float]], None]:
        return lambda values: require_finite(step, values, checkpoint.path)

    def draw_x_0(seed: int, count: int) -> Tensor:
        """x_0 of images 0 .. count - 1 of `seed`, by the averaged generator."""
        ema.model.eval()
        own = everyone.share(count)
        parts = [torch.empty(0, *shape, device=device)]
        # Without gradients four times as many take less room than a step does; a GPU keeps the room of recorded steps.
        at_once = len(shares[0]) * (1 if device.type == "cuda" else 4)
        for first in range(own.start, own.stop, at_once):
            indices = range(first, min(first + at_once, own.stop))
            noise = image_draws(seed, indices, shape, latent_dim, players.schedule.num_steps, device)
            with players.precision():
                parts.append(sample(ema.model, players.schedule, *noise))
        return everyone.gathered(torch.cat(parts), count)

    with contextlib.closing(progress), interruptible() as interruption:
        for step in range(start, total):
            random = step_generator(config.seed, "stage2", step)
            done_share = order.epoch(step) / settings.epochs if isinstance(settings.epochs, int) else step / total
            if settings.cosine_decay:
                players.decay((1 + math.cos(math.pi * done_share)) / 2)
            weight = {
                "adversarial": 0.0,
                "reconstruction": 1.0,
                "weighted": weighted_learning(done_share, settings.delta),
            }[settings.objective]
            x_0 = normalise(data.batch(order.indices(step), random))
            penalised = step % settings.r1_every == 0 and settings.r1_gamma > 0
            values = players.step(x_0, random, guard(step), weight=weight, penalised=penalised, shares=shares)
            ema.update(generator)

            row = progress.add(step, values)
            for warning in health.of_row(row) if row else ():
                progress.say(f"stage 2, step {step + 1}: {warning}")
            done = step + 1
            if report_due(done, settings.report_every, total):
                shown = draw_x_0(config.seed, reporting.grid_images)
                if everyone.first:
                    reporting.show(shown, done)
                scores = evaluation(draw_x_0(config.seed + 1, EVALUATION_IMAGES))
                if best.improve(scores.frechet, done) and everyone.first:
                    reporting.keep(ema.model, "best")
                progress.record(
                    done,
                    {
                        f"FD[{config.space}]": scores.frechet,
                        "evaluation/recall": scores.recall,
                        "evaluation/deviation": scores.deviation,
                    },
                )
                standing = f"best {best.value:.3f} at step {best.step}"
                progress.say(
                    f"stage 2, step {done}: FD[{config.space}] {scores.frechet:.3f} ({standing}), "
                    f"recall {scores.recall:.3f}"
                )
                for warning in health.of_scores(scores):
                    progress.say(f"stage 2, step {done}: {warning}")
                progress.draw()
                progress.restart_clock(done)
            stop = everyone.greatest(interruption.signal or 0)
            if everyone.first and (save_timer.due() or done == total or stop):
                checkpoint.save(done)
            if stop and done < total:
                raise RunStopped(f"stopped after step {done} of stage 2", 128 + stop)
    if everyone.first:
        reporting.keep(ema.model, "model")
