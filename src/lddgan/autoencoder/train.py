"""Stage 1: train the autoencoder. One loop, read from top to bottom."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import torch
from torch import Tensor

from lddgan.autoencoder.model import Autoencoder
from lddgan.autoencoder.objective import (
    PatchDiscriminator,
    adaptive_weight,
    hinge_loss,
    psnr,
    reconstruction_loss,
)
from lddgan.config import Config, identity
from lddgan.data.latents import to_uint8, to_unit_range
from lddgan.data.prepare import ImageSet
from lddgan.errors import RunStopped
from lddgan.reports.grid import save_grid
from lddgan.runtime.checkpoint import Checkpoint
from lddgan.runtime.device import autocast
from lddgan.runtime.progress import Progress, Timer, gradient_norm, interruptible, require_finite
from lddgan.runtime.seeds import BatchOrder, mix, step_generator

HELD_OUT_IMAGES = 1000
"""Held-out images measured at every report."""
SHORTCUT_IMAGES = 5000
"""Training images whose patches give the linear shortcut."""
GRID_IMAGES = 32


def train_autoencoder(
    config: Config,
    autoencoder: Autoencoder,
    train: ImageSet,
    held_out: ImageSet,
    folder: Path,
    device: torch.device,
    initialised: bool = False,
) -> None:
    """Train `autoencoder` in place, from the run folder's checkpoint where there is one.

    Args:
        initialised: it comes with trained weights, so its linear shortcut stays as it is.
        train, held_out: the images; only `train` is learnt from.
        folder: the run folder; takes `checkpoints/stage1.pt`, curves and `reconstructions.png`.

    Raises:
        RunStopped: interrupted (saved first), not finite, or the disk is full.
    """
    settings = config.stage1
    torch.manual_seed(mix(config.seed, "stage1", "discriminator"))
    discriminator = PatchDiscriminator(config.images.channels, settings.discriminator_width, config.images.resolution)
    autoencoder.to(device).to(memory_format=torch.channels_last).train()
    discriminator.to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(autoencoder.parameters(), settings.learning_rate, (0.5, 0.9))
    optimizer_d = torch.optim.Adam(discriminator.parameters(), settings.learning_rate, (0.5, 0.9))
    checkpoint = Checkpoint(
        folder / "checkpoints" / "stage1.pt", {**identity(config), "the data": train.hash},
        autoencoder=autoencoder, discriminator=discriminator, optimizer=optimizer, optimizer_d=optimizer_d,
    )  # fmt: skip

    order = BatchOrder(len(train), settings.batch, mix(config.seed, "stage1"))
    total = max(1, settings.epochs * len(train) // settings.batch)
    start = checkpoint.load(device)
    if start >= total:
        return
    if start == 0 and not initialised:
        spread = torch.linspace(0, len(train) - 1, min(SHORTCUT_IMAGES, len(train))).long()
        autoencoder.fit_shortcut(to_unit_range(train.batch(spread)).to(device))
    progress = Progress(folder, "stage1", start, total, settings.batch)
    save_timer = Timer(config.checkpoint_seconds)

    with contextlib.closing(progress), interruptible() as interruption:
        for step in range(start, total):
            generator = step_generator(config.seed, "stage1", step)
            if settings.cosine_decay:
                scale = 0.01 + 0.99 * (1 + math.cos(math.pi * step / total)) / 2
                for group in (*optimizer.param_groups, *optimizer_d.param_groups):
                    group["lr"] = settings.learning_rate * scale
            flips = torch.rand(settings.batch, generator=generator) < 0.5 if config.images.flips else None
            images = to_unit_range(train.batch(order.indices(step), flips)).to(device)
            adversarial = step >= settings.discriminator_start

            # The autoencoder: L1, and from `discriminator_start` on the judgement of the discriminator.
            with autocast(device, settings.precision):
                reconstructions = autoencoder(images)
                loss = reconstruction_loss(reconstructions, images).mean()
                values = {"loss/reconstruction": loss.item()}
                if adversarial:
                    discriminator.requires_grad_(False)
                    loss_adversarial = -discriminator(reconstructions).float().mean()
                    weight = settings.discriminator_weight * adaptive_weight(
                        loss, loss_adversarial, autoencoder.last_layer
                    )
                    loss = loss + weight * loss_adversarial
                    discriminator.requires_grad_(True)
                    values |= {"loss/adversarial": loss_adversarial.item(), "adversarial_weight": weight.item()}
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            values["grad_norm/autoencoder"] = gradient_norm(autoencoder)
            require_finite(step, {"loss": loss.item(), **values}, checkpoint.path)
            optimizer.step()

            # The discriminator: hinge loss on images and reconstructions.
            if adversarial:
                with autocast(device, settings.precision):
                    loss_d = hinge_loss(discriminator, images, reconstructions)
                optimizer_d.zero_grad(set_to_none=True)
                loss_d.backward()
                values |= {"loss/discriminator": loss_d.item(), "grad_norm/discriminator": gradient_norm(discriminator)}
                require_finite(step, values, checkpoint.path)
                optimizer_d.step()

            progress.add(step, values)
            done = step + 1
            if done % settings.report_every == 0 or done == total:
                value = _report(autoencoder, held_out, folder, device)
                progress.record(done, {"psnr/held_out": value})
                progress.say(f"stage 1, step {done}: held-out PSNR {value:.2f} dB")
                progress.draw()
                progress.restart_clock(done)
            if save_timer.due() or done == total or interruption.signal:
                checkpoint.save(done)
            if interruption.signal and done < total:
                raise RunStopped(f"stopped after step {done} of stage 1", 128 + interruption.signal)


@torch.inference_mode()
def reconstruct(autoencoder: Autoencoder, images: Tensor, device: torch.device) -> Tensor:
    """uint8 `[N, H, W, C]` through the autoencoder in evaluation mode, float32; returns `[N, C, H, W]` in [-1, 1]."""
    training = autoencoder.training
    autoencoder.eval()
    parts = [autoencoder(to_unit_range(part).to(device)).clamp(-1, 1).cpu() for part in images.split(100)]
    autoencoder.train(training)
    return torch.cat(parts)


def _report(autoencoder: Autoencoder, held_out: ImageSet, folder: Path, device: torch.device) -> float:
    """Write `reconstructions.png` (original beside reconstruction) and return the held-out PSNR in dB."""
    # Evenly spread: the first ones may all be of one class.
    images = held_out.batch(torch.linspace(0, len(held_out) - 1, min(HELD_OUT_IMAGES, len(held_out))).long())
    reconstructions = reconstruct(autoencoder, images, device)
    pairs = torch.stack([images, to_uint8(reconstructions)], 1).flatten(0, 1)
    save_grid(pairs[: 2 * GRID_IMAGES].numpy(), folder / "reconstructions.png", columns=8)
    return psnr(reconstructions, to_unit_range(images))
