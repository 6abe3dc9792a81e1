"""The vector quantiser of VQGAN (Esser et al. 2021), here inside the decoder (paper, Section 4.2).

B batch, Z latent channels, r side of the latent, K codes, N = B r^2 vectors.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

COMMITMENT = 0.25
"""Weight of the term that moves the codes: as released, it sits there and not on the term that moves the encoder."""
CHUNK = 4096
"""Vectors compared with the codebook at once."""


class Quantised(NamedTuple):
    """`latent` `[B, Z, r, r]` of nearest codes, whose gradient goes straight through; the codebook's loss; the codes
    int64 `[B, r, r]`."""

    latent: Tensor
    loss: Tensor
    codes: Tensor


class Quantiser(nn.Module):
    """Replaces every vector of a latent by the nearest of `num_codes` learnt vectors, in L2."""

    def __init__(self, num_codes: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_codes, channels)
        nn.init.uniform_(self.embedding.weight, -1 / num_codes, 1 / num_codes)

    def forward(self, latent: Tensor) -> Quantised:
        vectors = latent.float().permute(0, 2, 3, 1)  # [B, r, r, Z]
        codes = self.nearest(vectors.detach().flatten(0, 2)).view(vectors.shape[:3])
        quantised = self.embedding(codes)
        loss = (quantised.detach() - vectors).square().mean()
        loss = loss + COMMITMENT * (quantised - vectors.detach()).square().mean()
        straight_through = vectors + (quantised - vectors).detach()
        return Quantised(straight_through.permute(0, 3, 1, 2).contiguous(), loss, codes)

    @torch.no_grad()
    def nearest(self, vectors: Tensor) -> Tensor:
        """The code nearest to each of `vectors [N, Z]`, int64 `[N]`; never more than `CHUNK` x K distances at once."""
        table = self.embedding.weight.float()
        norms = table.square().sum(1)
        # |v - e|^2 without |v|^2, which is the same for all codes.
        return torch.cat([(norms - 2 * part @ table.T).argmin(1) for part in vectors.split(CHUNK)])

    @torch.no_grad()
    def revive(self, dead: Tensor, vectors: Tensor, random: torch.Generator) -> None:
        """Move the codes `dead` (bool `[K]`) to vectors drawn from `vectors [N, Z]`, where they will be used."""
        drawn = torch.randint(len(vectors), (int(dead.sum()),), generator=random).to(vectors.device)
        self.embedding.weight[dead] = vectors[drawn].to(self.embedding.weight.dtype)


class CodebookUse:
    """How often each of `num_codes` codes was used, averaged over about the last hundred batches."""

    DECAY = 0.99

    def __init__(self, num_codes: int) -> None:
        self.counts = torch.ones(num_codes)  # as if every code had been used once a batch: none is dead at the start

    def update(self, codes: Tensor) -> None:
        """Take the codes of one batch, int64 of any shape."""
        counts = torch.bincount(codes.flatten().cpu(), minlength=len(self.counts)).float()
        self.counts.lerp_(counts, 1 - self.DECAY)

    @property
    def perplexity(self) -> float:
        """exp of the entropy of the codes' frequencies: 1 if one code does everything, K if all are used alike."""
        share = self.counts / self.counts.sum().clamp_min(1e-12)
        return float(torch.exp(-(share * share.clamp_min(1e-12).log()).sum()))

    @property
    def used(self) -> float:
        """Share of the codes that are not dead."""
        return float((~self.dead).float().mean())

    @property
    def dead(self) -> Tensor:
        """bool `[K]`: used less than a hundredth as often as the average code."""
        return self.counts < 0.01 * self.counts.mean()

    def reset(self, codes: Tensor) -> None:
        """Count the codes `codes` (bool `[K]`), which were just revived, as average ones."""
        self.counts[codes] = self.counts.mean()

    def state_dict(self) -> dict[str, Tensor]:
        return {"counts": self.counts}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.counts.copy_(state["counts"])
