"""What a config costs: parameters, MACs, memory, and time from a few measured steps. No data is needed."""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from lddgan.autoencoder.objective import PatchDiscriminator, hinge_loss, reconstruction_loss
from lddgan.config import Config
from lddgan.data.sources import open_source
from lddgan.diffusion.schedule import Schedule
from lddgan.errors import UserError
from lddgan.gan.step import discriminator_phase, draw_pair, generator_phase
from lddgan.metrics.cost import count_macs, count_parameters, peak_bytes
from lddgan.models import build_generator, build_space
from lddgan.networks.discriminator import Discriminator
from lddgan.runtime.device import autocast, describe, resolve_device

PROBE_MACS = 100e9
"""The largest forward work of a measured step; larger batches are measured on a share of them."""
PROBE_STEPS = 4


def model_cost(config: Config) -> dict[str, float]:
    """Parameters and multiply-adds of one image: per generator step, decoder, and whole sample.

    `sample_macs` is with the autoencoder's own decoder, as the paper counts; where there is a slim decoder, what it
    takes stands beside it.
    """
    channels, side, _ = config.latent_shape
    with torch.device("meta"):
        space, generator = build_space(config), build_generator(config)
        x, t = torch.empty(1, channels, side, side), torch.zeros(1).long()
        z = torch.empty(1, config.generator.latent_dim)
        decoder, slim = space.autoencoder.decoder, space.slim_decoder
        generator_macs, decoder_macs = count_macs(generator, x, t, z), count_macs(decoder, x)
        slim_macs = count_macs(slim, x) if slim else 0
        image = torch.empty(1, config.images.channels, config.images.resolution, config.images.resolution)
        encoder_macs = count_macs(space.autoencoder.encoder, image)
    steps = config.diffusion.num_steps
    slim_cost = {
        "slim_decoder_params": count_parameters(slim),
        "slim_decoder_macs": slim_macs,
        "slim_sample_macs": steps * generator_macs + slim_macs,
    } if slim else {}  # fmt: skip
    return {
        "generator_params": count_parameters(generator),
        "decoder_params": count_parameters(space.autoencoder.decoder),
        "encoder_params": count_parameters(space.autoencoder.encoder),
        "generator_macs_per_step": generator_macs,
        "decoder_macs": decoder_macs,
        "encoder_macs": encoder_macs,
        "sample_macs": steps * generator_macs + decoder_macs,
        **slim_cost,
    }


def sample_memory(config: Config, batch: int, slim: bool = False) -> int:
    """Bytes that drawing `batch` images takes at least: weights and the activations alive at once, in float32; with the
    autoencoder's own decoder, or the `slim` one where there is one."""
    channels, side, _ = config.latent_shape
    with torch.device("meta"):
        space, generator = build_space(config), build_generator(config)
        decoder = space.slim_decoder if slim and space.slim_decoder else space.autoencoder.decoder
        x, t = torch.empty(batch, channels, side, side), torch.zeros(batch).long()
        z = torch.empty(batch, config.generator.latent_dim)
        weights = 4 * (count_parameters(generator) + count_parameters(decoder))
        return weights + max(peak_bytes(lambda: generator(x, t, z)), peak_bytes(lambda: decoder(x)))


def estimate(config: Config, device_name: str) -> str:
    """The lines that `--dry-run` prints below the config, as comments, so that the whole is YAML."""
    device, cost = resolve_device(device_name), model_cost(config)
    lines = ["what it costs"]
    for name, value in cost.items():
        lines.append(f"{name:<26} {value / 1e6:>12,.2f} M")
    timed: list[tuple[str, int, int, tuple[float, int]]] = []
    space, image = build_space(config), (config.images.channels, config.images.resolution, config.images.resolution)
    if "autoencoder" in config.stages:
        macs = cost["encoder_macs"] + cost["decoder_macs"]
        measured = _time_reconstruction(config, space.autoencoder, macs, image, device)
        timed.append(("autoencoder", config.stage1.epochs, config.stage1.batch, measured))
    if "decoder" in config.stages and config.slim_decoder and space.slim_decoder:
        measured = _time_reconstruction(
            config, space.slim_decoder, cost["slim_decoder_macs"], config.latent_shape, device
        )
        timed.append(("slim decoder", config.slim_decoder.epochs, config.stage1.batch, measured))
    if "gan" in config.stages:
        timed.append(("diffusion GAN", config.stage2.epochs, config.stage2.batch, time_stage2(config, cost, device)))
    lines.append(f"{'peak memory of a step':<26} {_peak_memory(device) / 2**30:>12,.2f} GiB (measured)")
    count = {"cifar10": 50_000, "stl10": 5_000}.get(config.data)
    if config.data and not count:
        with contextlib.suppress(UserError):
            count = len(open_source(config.data, "train"))
    for name, epochs, batch, (seconds, share) in timed:
        text = f"{name:<26} {seconds * 1e3:>12,.0f} ms a step of {batch}"
        text += f" (scaled from {share} images)" if share < batch else ""
        if count:
            steps = max(1, epochs * count // batch)
            text += f", {steps:,} steps: {_duration(seconds * steps)}"
        lines.append(text)
    lines.append(f"measured on {describe(device)}" + ("" if count else "; no data at hand, so no number of steps"))
    return "\n".join(f"# {line}" for line in lines)


def _time_reconstruction(
    config: Config, network: nn.Module, macs: float, input_shape: tuple[int, ...], device: torch.device
) -> tuple[float, int]:
    """Seconds a step of stage 1's loop (adversarial part on, perceptual distance left out), and the images it was
    measured on; `network` maps `[B, *input_shape]` to images."""
    batch, settings = _probe_batch(config.stage1.batch, macs), config.stage1
    channels, side = config.images.channels, config.images.resolution
    network.to(device).to(memory_format=torch.channels_last).train()
    discriminator = PatchDiscriminator(channels, settings.discriminator_width, side).to(device)
    optimizer = torch.optim.Adam([*network.parameters(), *discriminator.parameters()], 1e-6)
    inputs = torch.rand(batch, *input_shape, device=device)
    images = torch.rand(batch, channels, side, side, device=device)

    def step() -> None:
        with autocast(device, settings.precision):
            ours = network(inputs)
            loss = reconstruction_loss(ours, images).mean() - discriminator(ours).float().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        with autocast(device, settings.precision):
            loss = hinge_loss(discriminator, images, ours).loss
        loss.backward()
        optimizer.step()

    return _seconds(step, device) * settings.batch / batch, batch


def time_stage2(config: Config, cost: dict[str, float], device: torch.device) -> tuple[float, int]:
    """Seconds a step (without the penalty, which is rare), and the images it was measured on."""
    batch = _probe_batch(config.stage2.batch, cost["generator_macs_per_step"])
    shape, latent_dim = config.latent_shape, config.generator.latent_dim
    generator = build_generator(config).to(device).to(memory_format=torch.channels_last)
    discriminator = Discriminator(channels=shape[0], **dataclasses.asdict(config.discriminator))
    discriminator.to(device).to(memory_format=torch.channels_last)
    optimizer_g, optimizer_d = (torch.optim.Adam(net.parameters(), 1e-6) for net in (generator, discriminator))
    schedule = Schedule(**dataclasses.asdict(config.diffusion)).to(device)
    x_0, random = torch.randn(batch, *shape, device=device), torch.Generator().manual_seed(0)

    def precision() -> contextlib.AbstractContextManager:
        return autocast(device, config.stage2.precision)

    def guard(values: dict[str, float]) -> None:
        pass

    def step() -> None:
        pair = draw_pair(schedule, x_0, latent_dim, random)
        discriminator_phase(generator, discriminator, optimizer_d, schedule, pair, precision, r1_gamma=0.0, guard=guard)
        generator_phase(
            generator, discriminator, optimizer_g, schedule, pair, precision, reconstruction_weight=1.0, guard=guard
        )

    return _seconds(step, device) * config.stage2.batch / batch, batch


def _probe_batch(batch: int, macs: float) -> int:
    return max(1, min(batch, int(PROBE_MACS / macs)))


def _seconds(step: Callable[[], None], device: torch.device) -> float:
    times = []
    for _ in range(PROBE_STEPS + 1):
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])  # the first one warms up


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _duration(seconds: float) -> str:
    if seconds < 3600:
        return f"about {seconds / 60:.0f} minutes"
    return f"about {seconds / 3600:.1f} hours" if seconds < 48 * 3600 else f"about {seconds / 86400:.0f} days"
