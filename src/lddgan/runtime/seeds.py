"""All randomness is a function of (seed, place), so nothing random has to be saved or kept in order.

A training step draws from `step_generator(seed, stage, step)`, image i of a sample from `image_draws(seed, i)`:
a resumed run and another batch size see the same numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def mix(*parts: int | str) -> int:
    """A 63-bit seed from any parts; different parts give independent seeds."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def step_generator(seed: int, stage: str, step: int) -> torch.Generator:
    """The CPU generator of one training step; also reseeds torch's global generator, which dropout draws from."""
    torch.manual_seed(mix(seed, stage, "global", step))
    return torch.Generator().manual_seed(mix(seed, stage, step))


def image_draws(
    seed: int,
    indices: Sequence[int],
    shape: tuple[int, int, int],
    latent_dim: int,
    num_steps: int,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """The noise of images `indices` of a seed: `x_T` `[B, *shape]` and for t = T-1 .. 0 (`z`, posterior noise).

    Drawn on the CPU, one generator an image, then moved: the same bits for any batch size, order and device.
    """
    size = shape[0] * shape[1] * shape[2]
    rows = []
    for index in indices:
        generator = torch.Generator().manual_seed(mix("image", seed, index))
        rows.append(torch.randn(size + num_steps * (latent_dim + size), generator=generator))
    noise = torch.stack(rows).to(device)
    x_T, rest = noise[:, :size].unflatten(1, shape), noise[:, size:].unflatten(1, (num_steps, latent_dim + size))
    draws = [(rest[:, k, :latent_dim], rest[:, k, latent_dim:].unflatten(1, shape)) for k in range(num_steps)]
    return x_T, draws


class BatchOrder:
    """The endless stream of shuffled epochs, cut into batches; any step can be asked for directly.

    Sample number k of the run is element `k % n` of the permutation of epoch `k // n`.
    """

    def __init__(self, n: int, batch: int, seed: int) -> None:
        self.n, self.batch, self.seed = n, batch, seed
        self._permutations: dict[int, Tensor] = {}

    def epoch(self, step: int) -> int:
        """The epoch, from 0, in which `step` begins."""
        return step * self.batch // self.n

    def indices(self, step: int) -> Tensor:
        """The `[batch]` indices of a step."""
        k = torch.arange(step * self.batch, (step + 1) * self.batch)
        return torch.cat([self._permutation(e)[k[k // self.n == e] % self.n] for e in (k // self.n).unique().tolist()])

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self._permutations:
            self._permutations = {e: p for e, p in self._permutations.items() if e >= epoch - 1}
            generator = torch.Generator().manual_seed(mix(self.seed, "order", epoch))
            self._permutations[epoch] = torch.randperm(self.n, generator=generator)
        return self._permutations[epoch]
