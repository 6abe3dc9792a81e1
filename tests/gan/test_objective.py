from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lddgan.gan.objective import (
    discriminator_loss,
    generator_loss,
    r1_penalty,
    reconstruction_loss,
    spread_loss,
    weighted_learning,
)


class Linear(nn.Module):
    """D(x_t, t, x_next) = w . x_t + t + v . x_next."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(torch.randn(size)), nn.Parameter(torch.randn(size))

    def forward(self, x_t, t, x_next):
        return x_t.flatten(1) @ self.w + t + x_next.flatten(1) @ self.v


def batch(count=5, size=(2, 3, 3)):
    torch.manual_seed(0)
    return torch.randn(count, *size), torch.randn(count, *size), torch.randn(count, *size), torch.arange(count)


def test_losses_at_zero_logits_are_log_two():
    real, fake, x_next, t = batch()
    zero = lambda x_t, t, x_next: torch.zeros(len(x_t))  # noqa: E731
    expected = torch.full((5,), math.log(2))
    for loss in (*discriminator_loss(zero, real, fake, x_next, t), generator_loss(zero, fake, x_next, t)):
        torch.testing.assert_close(loss, expected)


def test_losses_in_closed_form():
    real, fake, x_next, t = batch()
    discriminator = Linear(18)
    logits_real, logits_fake = discriminator(real, t, x_next), discriminator(fake, t, x_next)
    loss_real, loss_fake = discriminator_loss(discriminator, real, fake, x_next, t)
    torch.testing.assert_close(loss_real, torch.log1p(torch.exp(-logits_real)))
    torch.testing.assert_close(loss_fake, torch.log1p(torch.exp(logits_fake)))
    torch.testing.assert_close(generator_loss(discriminator, fake, x_next, t), torch.log1p(torch.exp(-logits_fake)))


def test_the_discriminators_loss_does_not_reach_the_generator_but_the_generators_does():
    real, fake, x_next, t = batch()
    fake.requires_grad_(True)
    discriminator = Linear(18)
    sum(loss.sum() for loss in discriminator_loss(discriminator, real, fake, x_next, t)).backward()
    assert fake.grad is None and discriminator.w.grad is not None
    generator_loss(discriminator, fake, x_next, t).sum().backward()
    # d softplus(-l) / d fake = -sigmoid(-l) w
    weights = -torch.sigmoid(-discriminator(fake, t, x_next))[:, None] * discriminator.w
    torch.testing.assert_close(fake.grad, weights.view_as(fake))


def test_r1_of_a_linear_discriminator_is_its_squared_norm():
    real, _, x_next, t = batch()
    discriminator = Linear(18)
    penalty = r1_penalty(discriminator, real, t, x_next)
    torch.testing.assert_close(penalty, discriminator.w.square().sum().expand(5))  # neither t nor x_next count
    penalty.mean().backward()
    torch.testing.assert_close(discriminator.w.grad, 2 * discriminator.w)


def test_reconstruction_loss_is_the_mean_absolute_error_per_sample():
    x_0 = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 0.0]]]])
    x_0_fake = torch.tensor([[[[0.0, 4.0]]], [[[0.0, -1.0]]]])
    assert reconstruction_loss(x_0_fake, x_0).tolist() == [1.5, 0.5]
    assert reconstruction_loss(x_0_fake.bfloat16(), x_0).dtype == torch.float32


@pytest.mark.parametrize("delta", [1.0, 6.0, 20.0])
def test_weighted_learning_at_its_ends_and_middle(delta):
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    assert weighted_learning(0.0, delta) == pytest.approx(sigmoid(delta))
    assert weighted_learning(0.5, delta) == 0.5
    assert weighted_learning(1.0, delta) == pytest.approx(sigmoid(-delta))
    assert weighted_learning(0.25, delta) == pytest.approx(sigmoid(delta / 2))
    curve = [weighted_learning(i / 100, delta) for i in range(101)]
    assert curve == sorted(curve, reverse=True)


def test_less_spread_the_reconstruction_is_least_for_the_true_distribution():
    """x_0 is N(0, 1): the score is least for predictions N(0, 1), where the mean absolute error alone prefers 0."""
    torch.manual_seed(0)
    x_0, first, second = torch.randn(3, 200_000, 1)

    def losses(std: float) -> tuple[float, float]:
        error = reconstruction_loss(std * first, x_0).mean().item()
        return error, error - spread_loss(std * first, std * second).mean().item()

    (alone_0, score_0), (alone_1, score_1), (_, score_2) = losses(0.0), losses(1.0), losses(2.0)
    assert score_0 == alone_0 == pytest.approx(math.sqrt(2 / math.pi), abs=0.01) and alone_1 > alone_0
    assert score_1 == pytest.approx(1 / math.sqrt(math.pi), abs=0.01)  # the normal's own, in closed form
    assert score_1 < min(score_0, score_2) - 0.05
