"""Stage 1: train the autoencoder, or a slim decoder for a trained one. One loop, read from top to bottom."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lddgan.autoencoder.health import Stage1Health
from lddgan.autoencoder.measure import HeldOut
from lddgan.autoencoder.model import TrainingPass
from lddgan.autoencoder.objective import (
    PatchDiscriminator,
    adaptive_weight,
    hinge_loss,
    kl_factor,
    ramp,
    reconstruction_loss,
)
from lddgan.autoencoder.perceptual import perceptual_of
from lddgan.autoencoder.quantiser import CodebookUse, Quantiser
from lddgan.config import Config, Stage1Config, defaults, identity
from lddgan.data.latents import to_unit_range
from lddgan.data.prepare import ImageSet
from lddgan.errors import RunStopped
from lddgan.models import load_weights, save_weights
from lddgan.runtime.checkpoint import Best, Checkpoint
from lddgan.runtime.device import autocast
from lddgan.runtime.ema import Ema
from lddgan.runtime.progress import Progress, Timer, gradient_norm, interruptible, report_due, require_finite
from lddgan.runtime.seeds import BatchOrder, mix, step_generator

REVIVE_EVERY = 100
"""Steps between two revivals of dead codes."""


@dataclass(frozen=True)
class Task:
    """What the loop trains: an autoencoder, or a decoder alone.

    `name` names the files, `title` is for people. `forward` takes the network, images `[B, C, R, R]`, their indices and
    flips, and the step's generator. `last_layer` is the weight at which the adaptive weight compares gradients.
    `held_out` measures.
    """

    name: str
    title: str
    network: nn.Module
    forward: Callable[[nn.Module, Tensor, Tensor, Tensor, torch.Generator], TrainingPass]
    last_layer: Tensor
    held_out: HeldOut
    quantiser: Quantiser | None = None


def train_reconstruction(
    config: Config,
    settings: Stage1Config,
    task: Task,
    train: ImageSet,
    folder: Path,
    device: torch.device,
    prepare: Callable[[], None] = lambda: None,
) -> None:
    """Train `task.network` in place, from the run folder's checkpoint where there is one.

    It ends as the average of its weights that did best on the held-out images.

    Args:
        settings: of this training (`config.stage1`, or what a slim decoder changes of it).
        train: the images; only these are learnt from.
        folder: the run folder; takes `checkpoints/NAME.pt`, `NAME_best.safetensors` there, curves and pictures.
        prepare: called once, before the first step.

    Raises:
        UserError: the weights of its perceptual distance can be neither found nor fetched.
        RunStopped: interrupted (saved first), not finite, or the disk is full.
    """
    network = task.network
    torch.manual_seed(mix(config.seed, task.name, "discriminator"))
    discriminator = PatchDiscriminator(config.images.channels, settings.discriminator_width, config.images.resolution)
    network.to(device).to(memory_format=torch.channels_last).train()
    discriminator.to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(network.parameters(), settings.learning_rate, (0.5, 0.9), fused=True)
    optimizer_d = torch.optim.Adam(discriminator.parameters(), settings.learning_rate, (0.5, 0.9), fused=True)
    ema, best = Ema(network, settings.ema_decay), Best()
    use = CodebookUse(task.quantiser.embedding.num_embeddings if task.quantiser else 1)
    health = Stage1Health()
    best_file = folder / "checkpoints" / f"{task.name}_best.safetensors"
    checkpoint = Checkpoint(
        folder / "checkpoints" / f"{task.name}.pt", {**identity(config), "the data": train.hash}, defaults(),
        network=network, discriminator=discriminator, optimizer=optimizer, optimizer_d=optimizer_d,
        ema=ema, best=best, codebook_use=use, health=health,
    )  # fmt: skip

    order = BatchOrder(len(train), settings.batch, mix(config.seed, task.name))
    total = max(1, settings.epochs * len(train) // settings.batch)
    start = checkpoint.load(device)
    if start >= total:
        load_weights(network, best_file)
        return
    perceptual = perceptual_of(settings, device)
    if start == 0:
        prepare()
    progress = Progress(folder, task.name, start, total, settings.batch)
    save_timer = Timer(config.checkpoint_seconds)

    with contextlib.closing(progress), interruptible() as interruption:
        for step in range(start, total):
            random = step_generator(config.seed, task.name, step)
            if settings.cosine_decay:
                scale = 0.01 + 0.99 * (1 + math.cos(math.pi * step / total)) / 2
                for group in (*optimizer.param_groups, *optimizer_d.param_groups):
                    group["lr"] = settings.learning_rate * scale
            indices = order.indices(step)
            flips = (torch.rand(len(indices), generator=random) < 0.5) & config.images.flips
            images = to_unit_range(train.batch(indices, flips)).to(device)
            adversarial = step >= settings.discriminator_start

            # The network: L1, perceptual distance, what its latent costs, and the judgement of the discriminator.
            with autocast(device, settings.precision):
                coded = task.forward(network, images, indices, flips, random)
                reconstructions = coded.reconstructions
                loss = reconstruction_loss(reconstructions, images).mean()
                values = {"loss/reconstruction": loss.item()}
                if perceptual is not None:
                    distance = perceptual(reconstructions, images).mean()
                    loss = loss + settings.perceptual_weight * distance
                    values["loss/perceptual"] = distance.item()
                fidelity = loss
                if coded.penalty is not None:
                    penalty = coded.penalty.mean()
                    is_kl = coded.codes is None
                    loss = loss + (kl_factor(settings.kl_weight, images[0].numel()) if is_kl else 1.0) * penalty
                    values["loss/latent"] = penalty.item()
                if adversarial:
                    discriminator.requires_grad_(False)
                    loss_adversarial = -discriminator(reconstructions).float().mean()
                    weight = adaptive_weight(fidelity, loss_adversarial, task.last_layer)
                    values |= {"loss/adversarial": loss_adversarial.item(), "adaptive_weight": weight.item()}
                    growth = ramp(step - settings.discriminator_start, settings.discriminator_ramp)
                    loss = loss + settings.discriminator_weight * growth * weight * loss_adversarial
                    discriminator.requires_grad_(True)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            values[f"grad_norm/{task.name}"] = gradient_norm(network)
            require_finite(step, {"loss": loss.item(), **values}, checkpoint.path)
            optimizer.step()
            ema.update(network)

            if coded.codes is not None and task.quantiser is not None:
                use.update(coded.codes)
                values |= {"codebook/used": use.used, "codebook/perplexity": use.perplexity}
                if (step + 1) % REVIVE_EVERY == 0 and bool(use.dead.any()):
                    vectors = coded.latent.detach().float().permute(0, 2, 3, 1).flatten(0, 2)
                    task.quantiser.revive(use.dead, vectors, random)
                    use.reset(use.dead)

            # The discriminator: hinge loss on images and reconstructions.
            if adversarial:
                with autocast(device, settings.precision):
                    loss_d, accuracy = hinge_loss(discriminator, images, reconstructions)
                optimizer_d.zero_grad(set_to_none=True)
                loss_d.backward()
                values |= {
                    "loss/discriminator": loss_d.item(),
                    "discriminator/accuracy": accuracy.item(),
                    "grad_norm/discriminator": gradient_norm(discriminator),
                }
                require_finite(step, values, checkpoint.path)
                optimizer_d.step()

            row = progress.add(step, values)
            for warning in health.of_row(row) if row else ():
                progress.say(f"{task.title}, step {step + 1}: {warning}")
            done = step + 1
            if report_due(done, settings.report_every, total):
                measured = task.held_out.measure(ema.model, perceptual, device)
                task.held_out.show(ema.model, folder, device)
                if best.improve(measured.distance, done) or not best_file.exists():
                    save_weights(ema.model, best_file)
                progress.record(done, measured.row())
                progress.say(f"{task.title}, step {done}: held out {measured}")
                for warning in health.of_fidelity(measured, adversarial):
                    progress.say(f"{task.title}, step {done}: {warning}")
                progress.draw()
                progress.restart_clock(done)
            if save_timer.due() or done == total or interruption.signal:
                checkpoint.save(done)
            if interruption.signal and done < total:
                raise RunStopped(f"stopped after step {done} of {task.title}", 128 + interruption.signal)
    load_weights(network, best_file)
