"""Compare our networks, losses, schedule, sampler and optimiser steps with numbers that the published systems produced.

    python benchmarks/parity.py DIR

DIR holds `.safetensors` fixtures: weights under their released names, inputs, outputs, and the sizes as JSON under the
metadata entry `config`. The kind of a fixture is told by the start of its file name. For every quantity a line
`fixture.quantity relative_error` is printed, with the error |ours - theirs| / |theirs| in Frobenius norms (of codes:
the share that differs); a fixture of a kind we do not have yet is listed as `fixture unsupported`. Exits with 1 if an
error is above its tolerance, or with 2 if there is nothing to compare.

The networks are compared in float32 and in float64, and the smaller error counts: two float32 runs together lose more
than the tolerance, unless the same kernels ran; float64 leaves the fixture's rounding.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from lddgan.autoencoder.model import kl_divergence
from lddgan.autoencoder.objective import hinge_loss
from lddgan.diffusion.sampler import sample
from lddgan.diffusion.schedule import Schedule
from lddgan.errors import UserError
from lddgan.gan.objective import discriminator_loss, r1_penalty, weighted_learning
from lddgan.gan.step import Pair, discriminator_phase, generator_phase, predict
from lddgan.interop.autoencoders import autoencoder_from_released, patch_discriminator_from_released
from lddgan.interop.released import (
    discriminator_from_released,
    discriminator_to_released,
    generator_from_released,
    generator_to_released,
)
from lddgan.networks.discriminator import Discriminator
from lddgan.networks.haar import haar, inverse_haar
from lddgan.networks.ncsnpp import NCSNpp
from lddgan.networks.resample import downsample2, smooth, upsample2
from lddgan.runtime.ema import Ema

OUTPUT, AUTOENCODER, GRADIENT, TRAINED_WEIGHT = 1e-6, 5e-6, 1e-4, 1e-4  # tolerances
IMAGES = ("x0", "reconstruction_of_mean", "reconstruction")  # what a generator or decoder puts out
Fixture = dict[str, Tensor]
Row = tuple[str, float, float]  # quantity, relative error, tolerance

# The fixtures were recorded on two threads. The convolution algorithm depends on the number of threads, and where the
# logits nearly cancel its rounding alone exceeds the tolerance.
THREADS = 2


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """|ours - theirs| / |theirs| in float64; the absolute error where theirs is zero."""
    ours, theirs = ours.detach().double(), theirs.double()
    if ours.shape != theirs.shape:
        raise UserError(f"Shapes differ: ours {list(ours.shape)}, the fixture's {list(theirs.shape)}.")
    norm = torch.linalg.vector_norm(theirs).item()
    return torch.linalg.vector_norm(ours - theirs).item() / (norm or 1.0)


def schedule_rows(fixture: Fixture, config: dict) -> Iterator[Row]:
    for group in sorted({name.rsplit(".", 1)[0] for name in fixture}):
        family, steps = group.split(".")
        schedule = Schedule(int(steps[1:]), **config[family], geometric=family == "geometric")
        ours = {
            "betas": schedule.betas[1:],
            "forward_scale": schedule.forward_scale,
            "forward_std": schedule.forward_std,
            "cumulative_scale": schedule.cumulative_scale,
            "cumulative_std": schedule.cumulative_std,
            "posterior_mean_coef_x0": schedule.coef_x0,
            "posterior_mean_coef_xt": schedule.coef_xt,
            "posterior_log_variance_clipped": schedule.posterior_log_variance,
        }
        for name, tensor in ours.items():
            yield f"{group}.{name}", relative_error(tensor, fixture[f"{group}.{name}"]), OUTPUT


def fir_rows(fixture: Fixture, config: dict) -> Iterator[Row]:
    x = fixture["in.x"]
    yield "up", relative_error(upsample2(x), fixture["out.up"]), OUTPUT
    yield "down", relative_error(downsample2(x), fixture["out.down"]), OUTPUT
    conv_down = F.conv2d(smooth(x), fixture["in.conv_weight"], fixture.get("in.conv_bias"), stride=2)
    yield "conv_down", relative_error(conv_down, fixture["out.conv_down"]), OUTPUT


def haar_rows(fixture: Fixture, config: dict) -> Iterator[Row]:
    bands = haar(fixture["in.x"])
    for name, band in zip(("ll", "lh", "hl", "hh"), bands.chunk(4, dim=1), strict=True):
        yield name, relative_error(band, fixture[f"out.{name}"]), OUTPUT
    yield "inverse", relative_error(inverse_haar(bands), fixture["out.inverse"]), OUTPUT


def generator_rows(fixture: Fixture, config: dict) -> Iterator[Row]:
    generator = generator_from_released(_weights(fixture), tanh=_has_tanh(fixture, config))

    def outputs(dtype: torch.dtype) -> dict[str, Tensor]:
        x_0 = generator.to(dtype)(fixture["in.x_t"].to(dtype), fixture["in.t"], fixture["in.z"].to(dtype))
        ours = {"x0": x_0.detach()}
        if "out.grad_first_conv" in fixture:
            (ours["grad_first_conv"],) = torch.autograd.grad(x_0.square().sum(), generator.conv_in.weight)
        return ours

    yield from _least_errors(outputs, fixture, {"grad_first_conv": GRADIENT}, OUTPUT)


def discriminator_rows(fixture: Fixture, config: dict) -> Iterator[Row]:
    discriminator, t = discriminator_from_released(_weights(fixture)), fixture["in.t"]

    def outputs(dtype: torch.dtype) -> dict[str, Tensor]:
        discriminator.to(dtype)
        x_t, x_next = fixture["in.x_t"].to(dtype).requires_grad_(True), fixture["in.x_tp1"].to(dtype)
        logits = discriminator(x_t, t, x_next)
        (gradient,) = torch.autograd.grad(logits.sum(), x_t)
        penalty = r1_penalty(discriminator, x_t, t, x_next)
        ours = {"logits": logits.view(fixture["out.logits"].shape), "grad_x_t": gradient, "r1_per_sample": penalty}
        return {name: tensor.detach() for name, tensor in ours.items()}

    yield from _least_errors(outputs, fixture, {"grad_x_t": GRADIENT}, OUTPUT)


def sampling_rows(fixture: Fixture, config: dict) -> Iterator[Row]:
    generator = generator_from_released(_weights(fixture), tanh=_has_tanh(fixture, config))
    numbered = sorted(name for name in fixture if name.startswith("draw."))
    zs = [fixture[name] for name in numbered if name.endswith(".z")]
    noises = [fixture[name] for name in numbered if name.endswith(".posterior_noise")]
    x_0 = sample(generator, _schedule(config), fixture["in.x_T"], list(zip(zs, noises, strict=True)))
    yield "x0", relative_error(x_0, fixture["out.x0"]), OUTPUT


def training_rows(fixture: Fixture, config: dict) -> Iterator[Row]:
    """Repeat the recorded optimiser steps with their recorded draws."""
    generator = generator_from_released(_part(fixture, "init.generator."), tanh=not config.get("not_use_tanh", False))
    discriminator = discriminator_from_released(_part(fixture, "init.discriminator."))
    generator.train()
    discriminator.train()
    optimizer_d = torch.optim.Adam(
        discriminator.parameters(), lr=config["lr_d"], betas=tuple(config["betas"]), fused=True
    )
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=config["lr_g"], betas=tuple(config["betas"]), fused=True)
    ema = Ema(generator, config["ema_decay"], warm_up=False)
    schedule = _schedule(config)
    delta = config["weighted_learning_delta"]

    for step, epoch in enumerate(config["epoch_of_step"]):
        prefix = f"step{step}"
        pair = _pair(fixture, f"{prefix}.draw.D.", fixture[f"{prefix}.x0"], schedule)
        losses = _discriminator_losses(generator, discriminator, schedule, pair)
        with_r1 = step % config["r1_every"] == 0
        predicted = predict(generator, [pair], contextlib.nullcontext)
        values = discriminator_phase(
            discriminator, optimizer_d, schedule, [pair], predicted, contextlib.nullcontext,
            r1_gamma=config["r1_gamma"] if with_r1 else 0.0, guard=_no_guard,
        )  # fmt: skip
        if with_r1:
            losses["r1"] = config["r1_gamma"] / 2 * values["r1"]

        # Where the objective is adversarial only, a lambda is recorded but unused.
        weight = 0.0 if delta is None else weighted_learning(epoch / config["num_epochs"], delta)
        if delta is not None:
            yield f"{prefix}.lambda", relative_error(torch.tensor(weight), fixture[f"{prefix}.lambda"]), OUTPUT
        pair = _pair(fixture, f"{prefix}.draw.G.", fixture[f"{prefix}.x0"], schedule)
        values = generator_phase(
            generator, discriminator, optimizer_g, schedule, [pair], contextlib.nullcontext,
            reconstruction_weight=weight, guard=_no_guard,
        )  # fmt: skip
        losses |= {"g_adv": values["loss/generator"], "g_rec_l1": values["loss/reconstruction"]}
        ema.update(generator)

        for name, value in losses.items():
            theirs = fixture[f"{prefix}.loss.{name}"]
            yield f"{prefix}.loss.{name}", relative_error(torch.tensor(value), theirs), OUTPUT

    averaged = ema.model
    assert isinstance(averaged, NCSNpp)
    trained = {
        "generator": generator_to_released(generator),
        "discriminator": discriminator_to_released(discriminator),
        "ema": generator_to_released(averaged),
    }
    for part, weights in trained.items():  # the worst tensor of each network
        theirs = _part(fixture, f"final.{part}.")
        # The true gradient of attention's key bias is zero, and Adam makes steps of its rounding.
        errors = [relative_error(weights[name], theirs[name]) for name in theirs if not name.endswith(".NIN_1.b")]
        yield f"final.{part}", max(errors), TRAINED_WEIGHT


def autoencoder_rows(fixture: Fixture, config: dict) -> Iterator[Row]:
    tanh = _has_tanh(fixture, config)
    autoencoder, _ = autoencoder_from_released(_part(fixture, "state_dict."), tanh=tanh)

    @torch.no_grad()
    def outputs(dtype: torch.dtype) -> dict[str, Tensor]:
        encoder, decoder = autoencoder.to(dtype).encoder, autoencoder.decoder
        latent, log_variance = encoder.moments(fixture["in.image"].to(dtype))
        if log_variance is not None:
            divergence = kl_divergence(latent, log_variance)
            ours = {"mean": latent, "logvar": log_variance, "kl": divergence, "reconstruction_of_mean": decoder(latent)}
        else:
            ours = {"latent": latent, "reconstruction": decoder(latent)}
        if decoder.quantiser is not None:
            ours["quantized"], ours["codebook_loss"], codes = decoder.quantiser(latent)
            ours["codes"] = codes.view(fixture["out.codes"].shape)  # released ones are flat, in B, H, W order
        return ours

    yield from _least_errors(outputs, fixture, {}, AUTOENCODER)


def patch_discriminator_rows(fixture: Fixture, config: dict) -> Iterator[Row]:
    discriminator = patch_discriminator_from_released(_weights(fixture)).train()  # batch statistics

    @torch.no_grad()
    def outputs(dtype: torch.dtype) -> dict[str, Tensor]:
        discriminator.to(dtype)
        real, fake = fixture["in.real"].to(dtype), fixture["in.reconstruction"].to(dtype)
        ours = {"logits_real": discriminator(real), "logits_fake": discriminator(fake)}
        loss = hinge_loss(discriminator, real, fake).loss
        return ours | {"hinge_d_loss": loss, "g_loss": -ours["logits_fake"].mean()}

    yield from _least_errors(outputs, fixture, {}, OUTPUT)


def _least_errors(
    outputs: Callable[[torch.dtype], dict[str, Tensor]], fixture: Fixture, tolerances: dict[str, float], other: float
) -> Iterator[Row]:
    """The smaller of the errors in float32 and in float64 (see the module's first lines); `other` is the tolerance of
    what `tolerances` does not name."""
    single, double = outputs(torch.float32), outputs(torch.float64)
    for name, theirs in ((name, fixture[f"out.{name}"]) for name in single):
        if theirs.is_floating_point():
            yield (
                name,
                min(relative_error(ours[name], theirs) for ours in (single, double)),
                tolerances.get(name, other),
            )
        else:
            yield name, min((ours[name] != theirs).double().mean().item() for ours in (single, double)), 0.0


def _pair(fixture: Fixture, prefix: str, x_0: Tensor, schedule: Schedule) -> Pair:
    """The pair of one phase, from its recorded draws."""
    t, z, noise = fixture[prefix + "t"], fixture[prefix + "z"], fixture[prefix + "posterior_noise"]
    x_t, x_next = schedule.pair(x_0, t, fixture[prefix + "noise_xt"], fixture[prefix + "noise_xtp1"])
    return Pair(x_0, t, x_t, x_next, z, noise)


@torch.no_grad()
def _discriminator_losses(
    generator: NCSNpp, discriminator: Discriminator, schedule: Schedule, pair: Pair
) -> dict[str, float]:
    """The two halves of D's loss, of which its phase reports only the sum."""
    x_t_fake = schedule.posterior_sample(generator(pair.x_next, pair.t, pair.z), pair.x_next, pair.t, pair.noise)
    real, fake = discriminator_loss(discriminator, pair.x_t, x_t_fake, pair.x_next, pair.t)
    return {"d_real": real.mean().item(), "d_fake": fake.mean().item()}


def _no_guard(values: dict[str, float]) -> None:
    """Parity stops for nothing."""


def _schedule(config: dict) -> Schedule:
    given = {key: config[key] for key in ("beta_min", "beta_max") if key in config}
    return Schedule(config["num_timesteps"], **given, geometric=config.get("use_geometric", False))


def _has_tanh(fixture: Fixture, config: dict) -> bool:
    """As the config says; otherwise an output beyond 1 cannot have come from tanh."""
    if "not_use_tanh" in config:
        return not config["not_use_tanh"]
    if "ddconfig" in config:
        return config["ddconfig"].get("tanh_out", False)
    images = next(fixture[f"out.{name}"] for name in IMAGES if f"out.{name}" in fixture)
    return config.get("tanh", bool(images.abs().max() <= 1))


def _weights(fixture: Fixture) -> Fixture:
    return {name: tensor for name, tensor in fixture.items() if not re.match(r"(in|out|draw)\.", name)}


def _part(fixture: Fixture, prefix: str) -> Fixture:
    return {name.removeprefix(prefix): tensor for name, tensor in fixture.items() if name.startswith(prefix)}


def rows(path: Path) -> Iterator[Row] | None:
    """The comparisons of one fixture, or None if its kind is unsupported."""
    with safe_open(path, "pt") as file:
        fixture = {name: file.get_tensor(name) for name in file.keys()}
        config = json.loads((file.metadata() or {}).get("config", "{}"))
    if path.stem.startswith("diffusion_schedule"):
        return schedule_rows(fixture, config)
    if path.stem.startswith("fir_"):
        return fir_rows(fixture, config)
    if path.stem.startswith("haar"):
        return haar_rows(fixture, config)
    if path.stem.startswith("sampling_"):
        return sampling_rows(fixture, config)
    if path.stem.startswith("train_steps"):
        return training_rows(fixture, config)
    if path.stem.startswith("autoencoder"):
        return autoencoder_rows(fixture, config)
    if path.stem.startswith("patch_discriminator"):
        return patch_discriminator_rows(fixture, config)
    if path.stem.startswith("discriminator"):
        return discriminator_rows(fixture, config)
    if "_generator" in path.stem:
        return generator_rows(fixture, config)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR", type=Path)
    paths = sorted(parser.parse_args().folder.glob("*.safetensors"))
    if not paths:
        print("DIR holds no .safetensors fixture; give the folder that does.", file=sys.stderr)
        return 2
    torch.set_num_threads(THREADS)
    failed = False
    for path in paths:
        compared = rows(path)
        if compared is None:
            print(f"{path.stem} unsupported")
            continue
        for quantity, error, tolerance in compared:
            failed |= not error <= tolerance  # a NaN fails too
            print(f"{path.stem}.{quantity} {error:.2e}" + ("" if error <= tolerance else f" above {tolerance:.0e}"))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
