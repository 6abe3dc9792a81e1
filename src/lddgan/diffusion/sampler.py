"""Algorithm 1: from noise to x_0 in T steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from lddgan.diffusion.schedule import Schedule


@torch.inference_mode()
def sample(
    generator: nn.Module,
    schedule: Schedule,
    x_T: Tensor,
    draws: Iterable[tuple[Tensor, Tensor]],
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Draw x_0 `[B, C, H, W]` (paper, Algorithm 1).

    Args:
        generator: `G(x_{t+1}, t, z) -> x_0`.
        x_T: standard normal noise `[B, C, H, W]`.
        draws: for t = T-1 .. 0 a pair of `z` `[B, nz]` and posterior noise like `x_T` (unused at t = 0).
        on_step: called with (t, x_t) after every step.
    """
    x = x_T
    for t, (z, noise) in zip(reversed(range(schedule.num_steps)), draws, strict=True):
        index = torch.full((len(x),), t, dtype=torch.long, device=x.device)
        x_0 = generator(x, index, z).float()
        x = schedule.posterior_sample(x_0, x, index, noise)
        if on_step is not None:
            on_step(t, x)
    return x
