"""Algorithm 1: from noise to x_0 in T steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lddgan.diffusion.schedule import Schedule


@torch.inference_mode()
def sample(
    generator: nn.Module,
    schedule: Schedule,
    x: Tensor,
    draws: Sequence[tuple[Tensor, Tensor]],
    on_step: Callable[[int, Tensor], Tensor | None] | None = None,
) -> Tensor:
    """Draw x_0 `[B, C, H, W]` (paper, Algorithm 1).

    Args:
        generator: `G(x_{t+1}, t, z) -> x_0`.
        x: `x_k`, from which k steps lead to x_0; k is the number of draws. For a fresh sample k = T and `x` is standard
            normal noise `[B, C, H, W]`.
        draws: for t = k-1 .. 0 a pair of `z` `[B, nz]` and posterior noise like `x` (unused at t = 0).
        on_step: called with (t, x_t) after every step; what it returns, if anything, takes the place of x_t.

    Raises:
        ValueError: more draws than the schedule has steps.
    """
    if len(draws) > schedule.num_steps:
        raise ValueError(f"{len(draws)} draws are too many for {schedule.num_steps} steps.")
    for t, (z, noise) in zip(reversed(range(len(draws))), draws, strict=True):
        index = torch.full((len(x),), t, dtype=torch.long, device=x.device)
        x_0 = generator(x, index, z).float()
        x = schedule.posterior_sample(x_0, x, index, noise)
        if on_step is not None:
            changed = on_step(t, x)
            x = x if changed is None else changed
    return x
