"""What keeps a discriminator from knowing a small set by heart: it never sees the same sample twice.

Shifts and holes as in Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training". Real and drawn
samples take them alike, so the generator does not learn to draw them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

View = tuple[Tensor, Tensor]
"""Of a batch: how far each sample is shifted, and the corner of its hole; down and across, int64 `[2, B, 1]` each."""


def draw_view(count: int, side: int, random: torch.Generator) -> View:
    """Shifts of up to an eighth of a side, and holes of half a side, partly outside at times."""
    most, hole = max(1, side // 8), side // 2
    shift = torch.randint(-most, most + 1, (2, count, 1), generator=random)
    return shift, torch.randint(-(hole // 2), side - hole // 2 + 1, (2, count, 1), generator=random)


class Augmented(nn.Module):
    """A discriminator that sees `x_t` and `x_{t+1}` shifted and with a hole in them, both alike.

    Mirror images are left to the data, because a latent's mirror image is not the mirror image's latent.

    Args:
        views: one for each call to come.
    """

    def __init__(self, discriminator: nn.Module, views: Iterable[View]) -> None:
        super().__init__()
        self.discriminator, self._views = discriminator, iter(views)

    def forward(self, x_t: Tensor, t: Tensor, x_next: Tensor) -> Tensor:
        """As the discriminator's: `x_t`, `x_next` `[B, C, H, H]`, logits `[B]`."""
        side = x_t.shape[2]
        most, hole = max(1, side // 8), side // 2
        shift, corner = next(self._views)
        pixels = torch.arange(side)  # every axis has one line of indices a sample, [2, B, side]
        source = (pixels + most + shift).to(x_t.device)
        inside = ((pixels >= corner) & (pixels < corner + hole)).to(x_t.device)
        seen = F.pad(torch.cat([x_t, x_next], 1), (most, most, most, most))
        seen = seen.gather(2, source[0][:, None, :, None].expand(*seen.shape[:2], side, seen.shape[3]))
        seen = seen.gather(3, source[1][:, None, None, :].expand(*seen.shape[:2], side, side))
        covered = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        x_t, x_next = seen.masked_fill(covered, 0.0).chunk(2, dim=1)
        return self.discriminator(x_t, t, x_next)
