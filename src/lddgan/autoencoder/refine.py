"""The last stage: the slim decoder learns to draw what the generator really puts out.

A decoder is trained on the encoder's latents, but draws the generator's, which carry a faint grain. Here it goes on
against a discriminator that sees real images on one side, and on the other both reconstructions of noisy latents (whose
L1 holds it to them) and decoded samples (which nothing else judges). Encoder and generator stay as they are. This is
not in the paper.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lddgan.autoencoder.measure import HeldOut
from lddgan.autoencoder.objective import reconstruction_loss
from lddgan.config import Config, identity
from lddgan.data.latents import Latents, to_unit_range
from lddgan.data.prepare import ImageSet
from lddgan.diffusion.sampler import sample
from lddgan.diffusion.schedule import Schedule
from lddgan.errors import RunStopped
from lddgan.networks.layers import Conv2d
from lddgan.runtime.checkpoint import Checkpoint
from lddgan.runtime.ema import Ema
from lddgan.runtime.progress import Progress, Timer, gradient_norm, interruptible, require_finite
from lddgan.runtime.seeds import BatchOrder, image_draws, mix, step_generator
from lddgan.spaces.latent import LatentSpace

SAMPLE_BATCH = 100


class GrainDiscriminator(nn.Sequential):
    """Images `[B, C, H, W]` to one logit per 4x4 pixels; no norms, and its first layer at full resolution: what it has
    to see is as fine as pixels."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(
            Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(0.2),
            Conv2d(width, 2 * width, 4, 2, 1), nn.LeakyReLU(0.2),
            Conv2d(2 * width, 4 * width, 4, 2, 1), nn.LeakyReLU(0.2),
            Conv2d(4 * width, 4 * width, 3, padding=1), nn.LeakyReLU(0.2),
            Conv2d(4 * width, 1, 3, padding=1),
        )  # fmt: skip


@torch.inference_mode()
def draw_latents(config: Config, generator: nn.Module, count: int, device: torch.device) -> Tensor:
    """x_0 `[count, Z, r, r]` of the generator, on the CPU; of a seed that no report draws from."""
    schedule = Schedule(config.diffusion.num_steps, config.diffusion.beta_min, config.diffusion.beta_max).to(device)
    latent_dim, shape = config.generator.latent_dim, config.latent_shape
    generator.eval()
    parts = []
    for indices in torch.arange(count).split(SAMPLE_BATCH):
        draws = image_draws(mix(config.seed, "refine"), indices.tolist(), shape, latent_dim, schedule.num_steps, device)
        parts.append(sample(generator, schedule, *draws).cpu())
    return torch.cat(parts).clone()


def refine_decoder(
    config: Config, space: LatentSpace, generator: nn.Module, latents: Latents, train: ImageSet, held_out: ImageSet,
    folder: Path, device: torch.device,
) -> None:  # fmt: skip
    """Train the slim decoder of `space` on in place, from the run folder's checkpoint where there is one.

    It ends as the average of its weights. Half of each batch are pairs, half are samples.

    Args:
        generator: trained (the averaged weights).
        folder: the run folder; takes `checkpoints/refine.pt`, curves and `reconstructions-refined.png`.

    Raises:
        RunStopped: interrupted (saved first), not finite, or the disk is full.
    """
    settings, slim, decoder = config.refine, config.slim_decoder, space.slim_decoder
    if settings is None or slim is None or decoder is None:
        raise ValueError("the config has no slim decoder to refine")
    torch.manual_seed(mix(config.seed, "refine", "discriminator"))
    discriminator = GrainDiscriminator(config.images.channels, settings.discriminator_width)
    decoder.to(device).to(memory_format=torch.channels_last).train().requires_grad_(True)
    discriminator.to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(decoder.parameters(), settings.learning_rate, (0.5, 0.99))
    optimizer_d = torch.optim.Adam(discriminator.parameters(), settings.learning_rate_discriminator, (0.5, 0.99))
    ema = Ema(decoder, 0.995)
    checkpoint = Checkpoint(
        folder / "checkpoints" / "refine.pt", {**identity(config), "the data": latents.hash},
        decoder=decoder, discriminator=discriminator, optimizer=optimizer, optimizer_d=optimizer_d, ema=ema,
    )  # fmt: skip

    batch, pairs = config.stage1.batch, max(1, config.stage1.batch // 2)
    order = BatchOrder(len(train), batch, mix(config.seed, "refine"))
    total = max(1, settings.epochs * len(train) // batch)
    start = checkpoint.load(device)
    if start < total:
        samples = draw_latents(config, generator, settings.samples, device)
        measure = HeldOut(held_out, lambda network, x: network(space.encode(x)), "reconstructions-refined.png")
        deviations = (latents.std / space.std.cpu())[:, None, None].to(device)
        progress, save_timer = Progress(folder, "refine", start, total, batch), Timer(config.checkpoint_seconds)
        with contextlib.closing(progress), interruptible() as interruption:
            for step in range(start, total):
                random = step_generator(config.seed, "refine", step)
                decay = 0.01 + 0.99 * (1 + math.cos(math.pi * step / total)) / 2
                optimizer.param_groups[0]["lr"] = settings.learning_rate * decay
                optimizer_d.param_groups[0]["lr"] = settings.learning_rate_discriminator * decay
                indices = order.indices(step)
                flips = (torch.rand(len(indices), generator=random) < 0.5) & config.images.flips
                real = to_unit_range(train.batch(indices, flips)).to(device)

                # Pairs are of the batch's first images, so that the discriminator sees all of them as real.
                x_0 = space.normalise(latents.at(indices[:pairs], flips[:pairs]).to(device))
                amount = slim.noise * torch.rand(len(x_0), 1, 1, 1, generator=random).to(device)
                x_0 = x_0 + amount * deviations * torch.randn(x_0.shape, generator=random).to(device)
                drawn = samples[torch.randint(len(samples), (batch - len(x_0),), generator=random)].to(device)
                fake = decoder(torch.cat([x_0, drawn]))

                values = _discriminator_step(
                    discriminator, optimizer_d, real, fake.detach(),
                    settings.r1_gamma if step % settings.r1_every == 0 else 0.0,
                )  # fmt: skip
                discriminator.requires_grad_(False)
                loss_adversarial = F.softplus(-discriminator(fake)).mean()
                discriminator.requires_grad_(True)
                loss_reconstruction = reconstruction_loss(fake[: len(x_0)], real[: len(x_0)]).mean()
                loss = loss_adversarial + settings.reconstruction_weight * loss_reconstruction
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                values |= {
                    "loss/adversarial": loss_adversarial.item(), "loss/reconstruction": loss_reconstruction.item(),
                    "grad_norm/decoder": gradient_norm(decoder),
                }  # fmt: skip
                require_finite(step, values, checkpoint.path)
                optimizer.step()
                ema.update(decoder)

                progress.add(step, values)
                done = step + 1
                if done % config.stage1.report_every == 0 or done == total:
                    measured = measure.measure(ema.model, None, device)
                    measure.show(ema.model, folder, device)
                    progress.record(done, measured.row())
                    progress.say(f"refining, step {done}: held out {measured}")
                    progress.draw()
                    progress.restart_clock(done)
                if save_timer.due() or done == total or interruption.signal:
                    checkpoint.save(done)
                if interruption.signal and done < total:
                    raise RunStopped(f"stopped after step {done} of refining", 128 + interruption.signal)
    decoder.load_state_dict(ema.model.state_dict())
    decoder.eval().requires_grad_(False)


def _discriminator_step(
    discriminator: nn.Module, optimizer: torch.optim.Optimizer, real: Tensor, fake: Tensor, r1_gamma: float
) -> dict[str, float]:
    """One step of the non-saturating loss, plus `r1_gamma / 2` times the R1 penalty of the mean logit."""
    real = real.requires_grad_(bool(r1_gamma))
    logits_real, logits_fake = discriminator(real), discriminator(fake)
    loss = F.softplus(-logits_real).mean() + F.softplus(logits_fake).mean()
    values = {
        "loss/discriminator": loss.item(),
        "logits/real": logits_real.mean().item(), "logits/fake": logits_fake.mean().item(),
    }  # fmt: skip
    if r1_gamma:
        (gradient,) = torch.autograd.grad(logits_real.mean((1, 2, 3)).sum(), real, create_graph=True)
        loss = loss + r1_gamma / 2 * gradient.square().flatten(1).sum(1).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return values
