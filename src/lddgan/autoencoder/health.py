"""Early signs that stage 1 goes wrong, and what to change."""

from __future__ import annotations

from collections.abc import Mapping

from lddgan.autoencoder.measure import Fidelity
from lddgan.runtime.warnings import Warnings

BLIND_ACCURACY = 0.55
WINNING_ACCURACY = 0.99
LOST_PSNR = 0.5
"""dB that the adversarial part may cost."""
LOST_CODES = 0.1
"""Share of the codebook in use below which it has collapsed."""


class Stage1Health(Warnings):
    """Of stage 1; it remembers the best held-out PSNR from before the discriminator was heard."""

    def __init__(self) -> None:
        super().__init__()
        self._psnr_before = float("-inf")

    def of_row(self, row: Mapping[str, float]) -> list[str]:
        """Warnings from the means of a few steps, by the names that the loop logs."""
        found = []
        if "discriminator/accuracy" in row:
            accuracy = row["discriminator/accuracy"]
            found += self.say(
                f"the patch discriminator is blind (it is right about {accuracy:.0%} of the patches): raise "
                "stage1.discriminator_width, or let it start later, when the reconstructions have settled",
                accuracy < BLIND_ACCURACY,
            )
            found += self.say(
                f"the patch discriminator overwhelms the decoder (right about {accuracy:.1%} of the patches), so its "
                "judgement says little: lower stage1.discriminator_width or raise stage1.discriminator_start",
                accuracy > WINNING_ACCURACY,
            )
        if "codebook/used" in row:
            found += self.say(
                f"the codebook collapses (only {row['codebook/used']:.0%} of its codes are used): lower "
                "autoencoder.codebook_size or stage1.learning_rate",
                row["codebook/used"] < LOST_CODES,
            )
        return found

    def of_fidelity(self, fidelity: Fidelity, adversarial: bool) -> list[str]:
        """Warnings from a held-out measure; `adversarial`: whether the discriminator is heard."""
        if not adversarial:
            self._psnr_before = max(self._psnr_before, fidelity.psnr)
        lost = self._psnr_before - fidelity.psnr
        return self.say(
            f"the adversarial part worsens held-out reconstruction (by {lost:.1f} dB since it started): lower "
            "stage1.discriminator_weight, or raise stage1.discriminator_start or stage1.discriminator_ramp",
            adversarial and lost > LOST_PSNR,
            patience=1,
        )

    def state_dict(self) -> dict[str, float]:
        return {"psnr_before": self._psnr_before}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self._psnr_before = state["psnr_before"]
