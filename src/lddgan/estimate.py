"""What a config costs: parameters, MACs, memory, and time from a few measured steps. No data is needed."""

from __future__ import annotations

import contextlib
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from lddgan.autoencoder.objective import PatchDiscriminator, hinge_loss, reconstruction_loss
from lddgan.config import Config, Stage1Config
from lddgan.data.sources import open_source
from lddgan.errors import UserError
from lddgan.gan.players import Players
from lddgan.metrics.cost import count_macs, count_parameters, peak_bytes
from lddgan.models import build_generator, build_space
from lddgan.runtime.device import autocast, describe, resolve_device
from lddgan.spaces.latent import LatentSpace

PROBE_MACS = 100e9
"""The largest forward work of a measured step; larger batches are measured on a share of them."""
PROBE_STEPS = 4


def model_cost(config: Config) -> dict[str, float]:
    """Parameters and multiply-adds of one image: per generator step, decoder, and whole sample.

    In a space without networks decoder and encoder count as 0. `sample_macs` is with the autoencoder's own decoder, as
    the paper counts; where there is a slim decoder, what it takes stands beside it.
    """
    channels, side, _ = config.space_shape
    with torch.device("meta"):
        space, generator = build_space(config), build_generator(config)
        x, t = torch.empty(1, channels, side, side), torch.zeros(1).long()
        z = torch.empty(1, config.generator.latent_dim)
        image = torch.empty(1, config.images.channels, config.images.resolution, config.images.resolution)
        networks, steps = space.networks(), config.diffusion.num_steps
        generator_macs = count_macs(generator, x, t, z)
        macs = {name: count_macs(network, image if name == "encoder" else x) for name, network in networks.items()}
    params = {name: count_parameters(network) for name, network in networks.items()}
    cost: dict[str, float] = {
        "generator_params": count_parameters(generator),
        "decoder_params": params.get("decoder", 0),
        "encoder_params": params.get("encoder", 0),
        "generator_macs_per_step": generator_macs,
        "decoder_macs": macs.get("decoder", 0),
        "encoder_macs": macs.get("encoder", 0),
        "sample_macs": steps * generator_macs + macs.get("decoder", 0),
    }
    if "slim_decoder" in networks:
        cost |= {
            "slim_decoder_params": params["slim_decoder"],
            "slim_decoder_macs": macs["slim_decoder"],
            "slim_sample_macs": steps * generator_macs + macs["slim_decoder"],
        }
    return cost


def sample_memory(config: Config, batch: int, slim: bool = False) -> int:
    """Bytes that drawing `batch` images takes at least: weights and the activations alive at once, in float32; with the
    autoencoder's own decoder, or the `slim` one where there is one."""
    channels, side, _ = config.space_shape
    with torch.device("meta"):
        space, generator = build_space(config), build_generator(config)
        networks = space.networks()
        decoder = networks.get("slim_decoder" if slim else "decoder", networks.get("decoder"))
        x, t = torch.empty(batch, channels, side, side), torch.zeros(batch).long()
        z = torch.empty(batch, config.generator.latent_dim)
        weights, peak = 4 * count_parameters(generator), peak_bytes(lambda: generator(x, t, z))
        if decoder is not None:
            weights, peak = weights + 4 * count_parameters(decoder), max(peak, peak_bytes(lambda: decoder(x)))
        return weights + peak


def estimate(config: Config, device_name: str) -> str:
    """The lines that `--dry-run` prints below the config, as comments, so that the whole is YAML."""
    device, cost = resolve_device(device_name), model_cost(config)
    lines = ["what it costs"]
    for name, value in cost.items():
        lines.append(f"{name:<26} {value / 1e6:>12,.2f} M")
    timed: list[tuple[str, float, int, tuple[float, int]]] = []
    space, image = build_space(config), (config.images.channels, config.images.resolution, config.images.resolution)
    if isinstance(space, LatentSpace) and config.stage1 is not None:
        stage1 = config.stage1
        if "autoencoder" in config.stages:
            macs = cost["encoder_macs"] + cost["decoder_macs"]
            measured = _time_reconstruction(config, stage1, space.autoencoder, macs, image, device)
            timed.append(("autoencoder", stage1.epochs, stage1.batch, measured))
        if "decoder" in config.stages and config.slim_decoder and space.slim_decoder:
            macs = cost["slim_decoder_macs"]
            measured = _time_reconstruction(config, stage1, space.slim_decoder, macs, config.space_shape, device)
            timed.append(("slim decoder", config.slim_decoder.epochs, stage1.batch, measured))
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
            steps = max(1, int(epochs * count) // batch)
            text += f", {steps:,} steps: {_duration(seconds * steps)}"
        lines.append(text)
    lines.append(f"measured on {describe(device)}" + ("" if count else "; no data at hand, so no number of steps"))
    return "\n".join(f"# {line}" for line in lines)


def _time_reconstruction(
    config: Config, settings: Stage1Config, network: nn.Module, macs: float, input_shape: tuple[int, ...],
    device: torch.device,
) -> tuple[float, int]:  # fmt: skip
    """Seconds a step of stage 1's loop (adversarial part on, perceptual distance left out), and the images it was
    measured on; `network` maps `[B, *input_shape]` to images."""
    batch = _probe_batch(settings.batch, macs)
    channels, side = config.images.channels, config.images.resolution
    network.to(device).to(memory_format=torch.channels_last).train()
    discriminator = PatchDiscriminator(channels, settings.discriminator_width, side).to(device)
    optimizer = torch.optim.Adam([*network.parameters(), *discriminator.parameters()], 1e-6, fused=True)
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


def time_stage2(
    config: Config, cost: dict[str, float], device: torch.device, steps: int = PROBE_STEPS
) -> tuple[float, int]:
    """Seconds a step, the median of `steps` (without the penalty, which is rare), and the images it was measured on."""
    batch = _probe_batch(config.stage2.batch, cost["generator_macs_per_step"])
    players = Players.of(config, build_generator(config), device)
    x_0, random = torch.randn(batch, *config.space_shape, device=device), torch.Generator().manual_seed(0)

    def step() -> None:
        players.step(x_0, random, lambda values: None, weight=1.0, penalised=False)

    return _seconds(step, device, steps) * config.stage2.batch / batch, batch


def _probe_batch(batch: int, macs: float) -> int:
    return max(1, min(batch, int(PROBE_MACS / macs)))


def _seconds(step: Callable[[], None], device: torch.device, steps: int = PROBE_STEPS) -> float:
    times = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])  # the first one warms up


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)  # recorded steps keep theirs
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _duration(seconds: float) -> str:
    if seconds < 3600:
        return f"about {seconds / 60:.0f} minutes"
    return f"about {seconds / 3600:.1f} hours" if seconds < 48 * 3600 else f"about {seconds / 86400:.0f} days"
