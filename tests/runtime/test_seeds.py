from __future__ import annotations

import pytest
import torch

from lddgan.runtime.seeds import BatchOrder, image_draws, mix, step_generator

SHAPE, LATENT_DIM, STEPS = (2, 3, 3), 5, 4


def test_mix_is_fixed_and_tells_parts_apart():
    assert mix(0, "stage1", 7) == mix(0, "stage1", 7)  # not Python's hash, which differs between processes
    assert mix("image", 0, 1) == 453723272832129429
    values = {mix(1, 2), mix(2, 1), mix(12), mix("1", 2), mix(1, "2"), mix("12"), mix(1, 2, "")}
    assert len(values) == 7 and all(0 <= value < 2**63 for value in values)


def test_step_generator_depends_on_seed_stage_and_step_only():
    def draw(*place):
        generator = step_generator(*place)
        return torch.randn(3, generator=generator), torch.randn(3)  # its own and the global stream, for dropout

    torch.randn(17)
    first = draw(0, "stage2", 5)
    torch.randn(4)
    again = draw(0, "stage2", 5)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1])
    for place in ((1, "stage2", 5), (0, "stage1", 5), (0, "stage2", 6)):
        assert not torch.equal(first[0], draw(*place)[0]) and not torch.equal(first[1], draw(*place)[1])


@pytest.mark.parametrize("indices", [[3], [5, 3], [0, 1, 2, 3, 4, 5, 6], [3, 3]])
def test_image_draws_do_not_depend_on_the_batch(indices):
    x_T, draws = image_draws(7, indices, SHAPE, LATENT_DIM, STEPS)
    assert x_T.shape == (len(indices), *SHAPE) and len(draws) == STEPS
    row = indices.index(3)
    x_alone, draws_alone = image_draws(7, [3], SHAPE, LATENT_DIM, STEPS)
    assert torch.equal(x_T[row], x_alone[0])
    for (z, noise), (z_alone, noise_alone) in zip(draws, draws_alone, strict=True):
        assert z.shape == (len(indices), LATENT_DIM) and noise.shape == (len(indices), *SHAPE)
        assert torch.equal(z[row], z_alone[0]) and torch.equal(noise[row], noise_alone[0])


def test_image_draws_are_standard_normal_and_never_shared():
    x_T, draws = image_draws(0, range(400), SHAPE, LATENT_DIM, STEPS)
    values = torch.cat([x_T.flatten(1), *(torch.cat([z, noise.flatten(1)], 1) for z, noise in draws)], 1)
    assert values.shape == (400, 18 + STEPS * (LATENT_DIM + 18))
    assert values.unique().numel() > 0.999 * values.numel()
    assert values.mean().abs() < 0.02 and (values.std() - 1).abs() < 0.02
    assert not torch.equal(x_T, image_draws(1, range(400), SHAPE, LATENT_DIM, STEPS)[0])


@pytest.mark.parametrize(("n", "batch"), [(10, 4), (7, 7), (5, 12), (1, 3), (9, 2)])
def test_every_epoch_is_a_permutation(n, batch):
    order = BatchOrder(n, batch, seed=3)
    epochs = 6
    stream = torch.cat([order.indices(step) for step in range(epochs * n // batch + 1)])[: epochs * n].view(epochs, n)
    assert torch.equal(stream.sort(1).values, torch.arange(n).expand(epochs, n))
    if n >= 7:
        assert len({tuple(row) for row in stream.tolist()}) == epochs  # shuffled anew each time


@pytest.mark.parametrize(("n", "batch"), [(10, 4), (5, 12)])
def test_steps_can_be_asked_for_in_any_order(n, batch):
    forward = [BatchOrder(n, batch, seed=3).indices(step) for step in range(20)]
    order = BatchOrder(n, batch, seed=3)
    for step in (19, 0, 7, 7, 3, 18, 1):
        assert torch.equal(order.indices(step), forward[step]) and len(forward[step]) == batch
    assert not all(torch.equal(BatchOrder(n, batch, seed=4).indices(step), forward[step]) for step in range(20))


def test_epoch_of_a_step():
    order = BatchOrder(10, 4, seed=0)
    assert [order.epoch(step) for step in range(6)] == [0, 0, 0, 1, 1, 2]
    assert [BatchOrder(5, 12, 0).epoch(step) for step in range(3)] == [0, 2, 4]
