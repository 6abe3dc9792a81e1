from __future__ import annotations

import pytest
import torch
from torch import nn

from lddgan.gan.augment import Augmented, draw_view
from lddgan.gan.objective import r1_penalty


class Seen(nn.Module):
    """Keeps what it was shown."""

    def forward(self, x_t, t, x_next):
        self.x_t, self.x_next = x_t, x_next
        return x_t.square().flatten(1).sum(1) + x_next.flatten(1).sum(1)


def show(x_t, x_next, seed=0):
    seen = Seen()
    view = draw_view(len(x_t), x_t.shape[2], torch.Generator().manual_seed(seed))
    Augmented(seen, [view])(x_t, torch.zeros(len(x_t)), x_next)
    return seen.x_t, seen.x_next


@pytest.mark.parametrize("side", [4, 8, 16])
def test_every_sample_is_shifted_with_zeros_behind_it_and_has_one_hole(side):
    x = torch.arange(1.0, side**2 + 1).reshape(1, 1, side, side).repeat(64, 1, 1, 1)
    seen, _ = show(x, x)
    most, shifts, covered = max(1, side // 8), set(), []
    for sample in seen[:, 0]:
        places = sample.nonzero()
        number = sample[tuple(places.T)] - 1
        source = torch.stack([number // side, number % side], 1).long()
        by = (source - places).unique(dim=0)
        assert len(by) == 1 and by.abs().max() <= most  # a shift, the same for all that is left
        shifts.add(tuple(by[0].tolist()))
        whole = torch.zeros(side, side)
        rows, columns = (slice(max(0, -int(d)), side - max(0, int(d))) for d in by[0])
        whole[rows, columns] = 1
        hole = (whole > 0) & (sample == 0)
        covered.append(int(hole.sum()))
        if covered[-1]:
            places = hole.nonzero()
            height, width = (places.max(0).values - places.min(0).values + 1).tolist()
            assert height * width == covered[-1] and max(height, width) <= side // 2  # a rectangle within half a side
    assert len(shifts) > 2 and max(covered) > min(covered)


def test_both_of_a_pair_are_changed_alike_and_every_call_is_another():
    torch.manual_seed(0)
    x_t, x_next = torch.rand(32, 2, 8, 8) + 1, torch.rand(32, 2, 8, 8) + 1
    a, b = show(x_t, x_t + 5)
    assert torch.equal(a != 0, b != 0)
    torch.testing.assert_close(b[b != 0], (a + 5)[a != 0])
    assert torch.equal(show(x_t, x_next)[0], show(x_t, x_next)[0])
    assert not torch.equal(show(x_t, x_next)[0], show(x_t, x_next, seed=1)[0])


def test_gradients_and_the_penalty_go_through_to_what_is_seen():
    x_t, x_next = torch.randn(16, 2, 8, 8), torch.randn(16, 2, 8, 8)
    seen = Seen()
    critic = Augmented(seen, [draw_view(16, 8, torch.Generator().manual_seed(0))])
    penalty = r1_penalty(critic, x_t, torch.zeros(16), x_next)
    # D is the sum of squares of what it sees: the gradient is twice that, and nothing where it does not look
    torch.testing.assert_close(penalty, 4 * seen.x_t.square().flatten(1).sum(1))
