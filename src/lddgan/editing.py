"""Images in, images out, over the same sampler: morphs between seeds, variations, and filling in.

All are pure functions of their arguments; B batch, H and W pixels, C channels. Images are uint8 `[B, H, W, C]`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lddgan.diffusion.sampler import sample
from lddgan.diffusion.schedule import Schedule

Draws = tuple[Tensor, list[tuple[Tensor, Tensor]]]
"""`x_T`, and for t = T-1 .. 0 the pair (`z`, posterior noise), as `lddgan.runtime.seeds.image_draws` gives them."""


def slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Spherical interpolation between `a` and `b` `[B, ...]` at `share` `[B]`, of which 0 gives `a` and 1 `b`.

    Standard normal vectors lie near a sphere; a straight line between two would lead through its empty middle.
    """
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    angle = torch.acos(F.cosine_similarity(flat_a, flat_b).clamp(-1, 1)).clamp(1e-4, math.pi - 1e-4)[:, None]
    share = share[:, None]
    mixed = torch.sin((1 - share) * angle) * flat_a + torch.sin(share * angle) * flat_b
    return (mixed / torch.sin(angle)).view_as(a)


def morph(a: Draws, b: Draws, share: Tensor) -> Draws:
    """All the noise of an image between two, each `x_T`, `z` and posterior noise on its own sphere."""
    (x_a, steps_a), (x_b, steps_b) = a, b
    pairs = zip(steps_a, steps_b, strict=True)
    steps = [(slerp(z_a, z_b, share), slerp(noise_a, noise_b, share)) for (z_a, noise_a), (z_b, noise_b) in pairs]
    return slerp(x_a, x_b, share), steps


def start_step(strength: float, num_steps: int) -> int:
    """The step k from whose noise level an image is drawn anew: 0 at strength 0, `num_steps` at 1, whole between.

    Raises:
        ValueError: `strength` is outside [0, 1].
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"the strength {strength} is not between 0 and 1")
    return int(strength * num_steps + 0.5)


def vary(generator: nn.Module, schedule: Schedule, x_0: Tensor, draws: Draws, step: int) -> Tensor:
    """x_0 noised to level `step` and denoised again; `step` 0 returns it, T a fresh sample that does not know it."""
    noise, steps = draws
    if step == 0:
        return x_0
    if step < schedule.num_steps:
        level = torch.full((len(x_0),), step, dtype=torch.long, device=x_0.device)
        noise = schedule.q_sample(x_0, level, noise)
    return sample(generator, schedule, noise, steps[-step:])


def fill(generator: nn.Module, schedule: Schedule, x_0: Tensor, unknown: Tensor, draws: Draws) -> Tensor:
    """x_0 with the places `unknown` (bool `[B, 1, h, w]`) drawn anew to go with the others, which stay.

    After each step the known places are set to x_0 at that step's noise level, as RePaint does (Lugmayr et al. 2022).
    """
    noise, steps = draws

    def keep(t: int, x: Tensor) -> Tensor:
        level = torch.full((len(x),), t, dtype=torch.long, device=x.device)
        return torch.where(unknown, x, x_0 if t == 0 else schedule.q_sample(x_0, level, noise))

    return sample(generator, schedule, noise, steps, keep)


def unknown_places(mask: Tensor, side: int) -> Tensor:
    """Places of x_0 (`[B, 1, side, side]`) of which any pixel of `mask` (bool `[B, H, W]`) is to be drawn."""
    return F.adaptive_max_pool2d(mask[:, None].float(), side).bool()
