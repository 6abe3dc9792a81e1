from __future__ import annotations

import re

import pytest

from lddgan.gan.evaluate import SampleScores
from lddgan.gan.health import Health
from lddgan.runtime.warnings import PATIENCE


def row(loss: float, real: float, fake: float) -> dict[str, float]:
    return {"loss/discriminator": loss, "logits/real": real, "logits/fake": fake}


@pytest.mark.parametrize(
    ("values", "warning"),
    [
        (row(1.39, 0.01, 0.0), "blind"),
        (row(0.05, 8.0, -8.0), "wins"),
        (SampleScores(9.0, 0.0, 1.0), r"hardly cover .*recall 0\.000"),
        (SampleScores(9.0, 0.5, 0.1), "resemble each other"),
    ],
)
def test_a_lasting_fault_is_said_once_and_again_when_it_returns(values, warning):
    health = Health()

    def look(values):
        return health.of_scores(values) if isinstance(values, SampleScores) else health.of_row(values)

    sound = SampleScores(9.0, 0.5, 1.0) if isinstance(values, SampleScores) else row(1.1, 0.6, -0.4)
    said = [look(values) for _ in range(3 * PATIENCE)]
    assert [len(one) for one in said] == [0] * (PATIENCE - 1) + [1] + [0] * 2 * PATIENCE
    assert re.search(warning, said[PATIENCE - 1][0])
    assert look(sound) == []
    assert sum(len(look(values)) for _ in range(PATIENCE)) == 1


def test_a_sound_run_and_a_passing_fault_say_nothing():
    health = Health()
    for values in [row(1.39, 0.01, 0.0), row(1.1, 0.5, -0.5)] * 5:
        assert health.of_row(values) == []
    assert health.of_scores(SampleScores(9.0, 0.5, 1.0)) == []
