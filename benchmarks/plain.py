"""The plain baseline that every speed is a ratio to, and how two programs are timed in turns.

Plain is what the published code does where its CUDA extensions are not compiled, with our modules: eager, float32,
contiguous tensors, and every FIR filter as zeros put between the pixels and a full convolution of what comes out.
"""

from __future__ import annotations

import contextlib
import copy
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lddgan.bench import timed
from lddgan.data.latents import to_uint8
from lddgan.diffusion.schedule import Schedule
from lddgan.networks import discriminator, scaling
from lddgan.pipeline import Pipeline
from lddgan.runtime.memory import keep_freed_memory, set_malloc_limits
from lddgan.spaces.latent import LatentSpace

Network = TypeVar("Network", bound=nn.Module)
GLIBC_SETTLES_AT = 32 << 20, 64 << 20
"""The limits of memory that is kept, to which glibc comes by itself once blocks as large as ours have been freed."""


def filtered(x: Tensor, up: int, down: int, pad: tuple[int, int], gain: float) -> Tensor:
    """`[B, C, H, W]` with zeros put in, padded, convolved with the 4x4 filter, and thinned."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch * channels, 1, height, 1, width, 1)
    x = F.pad(x, (0, up - 1, 0, 0, 0, up - 1)).reshape(batch * channels, 1, height * up, width * up)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x.device) / 8
    x = F.conv2d(F.pad(x, (*pad, *pad)), gain * torch.outer(taps, taps)[None, None])[:, :, ::down, ::down]
    return x.reshape(batch, channels, *x.shape[2:])


def _up(x: Tensor) -> Tensor:
    return filtered(x, 2, 1, (2, 1), 4.0)


def _down(x: Tensor) -> Tensor:
    return filtered(x, 1, 2, (1, 1), 1.0)


def _smooth(x: Tensor) -> Tensor:
    return filtered(x, 1, 1, (2, 2), 1.0)


@contextlib.contextmanager
def plain_filters() -> Iterator[None]:
    """Inside, generators and discriminators filter by zero insertion."""
    with (
        mock.patch.multiple(scaling, upsample2=_up, downsample2=_down, smooth=_smooth),
        mock.patch.object(discriminator, "downsample2", _down),
    ):
        yield


def plain_copy(module: Network) -> Network:
    """A copy with contiguous weights."""
    return copy.deepcopy(module).float().to(memory_format=torch.contiguous_format)


def plain_sample(
    generator: nn.Module, decode: Callable[[Tensor], Tensor], schedule: Schedule, x: Tensor,
    draws: Sequence[tuple[Tensor, Tensor]],
) -> Tensor:  # fmt: skip
    """Algorithm 1 and the decoder, line by line."""
    for t, (z, noise) in zip(reversed(range(len(draws))), draws, strict=True):
        index = torch.full((len(x),), t, dtype=torch.long, device=x.device)
        x = schedule.posterior_sample(generator(x.contiguous(), index, z), x, index, noise)
    return decode(x)


def plain_drawer(pipe: Pipeline, indices: Sequence[int], decoder: str = "full") -> Callable[[], np.ndarray]:
    """What draws the images `indices` of seed 0 the plain way, uint8 `[n, H, W, C]`; `decoder` is for latent models."""
    generator, space = plain_copy(pipe.generator), plain_copy(pipe.space)
    if isinstance(space, LatentSpace):
        space.decoder = decoder

    @torch.inference_mode()
    def draw() -> np.ndarray:
        with plain_filters():
            x_0 = plain_sample(generator, space.decode, pipe.schedule, *pipe._draws(0, indices))
        return to_uint8(x_0).cpu().numpy()

    return draw


@torch.no_grad()
def liven(module: Network, seed: int = 0) -> Network:
    """Draw the weights of `module` anew as large as a trained network's: fresh ones end most branches in zeros, which
    hide any error."""
    random = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            fan_in = part.weight[0].numel()
            part.weight.copy_(torch.randn(part.weight.shape, generator=random) / fan_in**0.5)
        elif isinstance(part, nn.GroupNorm) and part.affine:
            part.weight.copy_(1 + 0.1 * torch.randn(part.weight.shape, generator=random))
    return module


@dataclass(frozen=True)
class Comparison:
    """Medians in seconds, and the median and quartiles of plain / ours within each pair."""

    plain: float
    ours: float
    ratio: float
    quartiles: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.quartiles
        return (
            f"{self.plain * 1e3:>9,.1f} ms  {self.ours * 1e3:>9,.1f} ms  {self.ratio:>6.2f}x  ({low:.2f} to {high:.2f})"
        )


def compare(plain: Callable[[], object], ours: Callable[[], object], rounds: int, device: torch.device) -> Comparison:
    """Time both in turns, `rounds` times after a first round that does not count; other programs then harm both.

    Ours keeps freed memory, as the command line does, and plain as little as a program that says nothing of it.
    """

    def in_turn() -> tuple[float, float]:
        set_malloc_limits(*GLIBC_SETTLES_AT)
        of_plain = timed(plain, device)
        keep_freed_memory()
        return of_plain, timed(ours, device)

    times = [in_turn() for _ in range(rounds + 1)][1:]
    ratios = [a / b for a, b in times]
    low, _, high = statistics.quantiles(ratios, n=4) if rounds > 1 else ratios * 3
    return Comparison(
        statistics.median(a for a, _ in times), statistics.median(b for _, b in times), statistics.median(ratios),
        (low, high),
    )  # fmt: skip
