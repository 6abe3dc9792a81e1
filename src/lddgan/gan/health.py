"""Early signs that an adversarial run goes wrong, and what to change."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lddgan.gan.evaluate import SampleScores
from lddgan.runtime.warnings import Warnings

BLIND_GAP = 0.05
"""A mean difference of the logits of real and fake below this, at a loss no better than a coin's, is blindness."""
WINNING_LOSS = 0.1
LOST_RECALL = 0.02
LOST_DEVIATION = 0.5


class Health(Warnings):
    """Of stage 2."""

    def of_row(self, row: Mapping[str, float]) -> list[str]:
        """Warnings from the means of a few steps, with `loss/discriminator` and `logits/*` as the loop logs them."""
        coin = 2 * math.log(2)
        gap = row["logits/real"] - row["logits/fake"]
        loss = row["loss/discriminator"]
        return [
            *self.say(
                "the discriminator is blind (it sees no difference between real and fake): raise "
                "stage2.learning_rate_discriminator to two to four times the generator's, or stage2.r1_gamma",
                abs(gap) < BLIND_GAP and loss > coin - 0.05,
            ),
            *self.say(
                "the discriminator wins (loss near zero), so the generator learns little from it: lower "
                "stage2.learning_rate_discriminator or raise stage2.r1_gamma",
                loss < WINNING_LOSS,
            ),
        ]

    def of_scores(self, scores: SampleScores) -> list[str]:
        """Warnings from an evaluation."""
        return [
            *self.say(
                f"the samples hardly cover the data (recall {scores.recall:.3f}): the generator may be collapsing; "
                "lower stage2.learning_rate_generator or keep --stage2.objective reconstruction",
                scores.recall < LOST_RECALL,
            ),
            *self.say(
                f"the samples resemble each other ({scores.deviation:.2f} of the data's deviation): the generator may "
                "be collapsing; lower stage2.learning_rate_generator or raise stage2.r1_gamma",
                scores.deviation < LOST_DEVIATION,
            ),
        ]
