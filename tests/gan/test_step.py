from __future__ import annotations

import contextlib
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from tiny import spaced_config
from torch import nn

from lddgan.diffusion.schedule import Schedule
from lddgan.gan.objective import r1_penalty, spread_loss
from lddgan.gan.step import _inverse_softplus, discriminator_phase, draw_pair, generator_phase, predict
from lddgan.models import build_generator
from lddgan.networks.discriminator import Discriminator as RealDiscriminator
from lddgan.networks.discriminator import group_shares

SHAPE = (2, 4, 4)


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.tensor(0.1))

    def forward(self, x, t, z):
        return self.scale * (x + z.mean(1)[:, None, None, None]) + self.shift


class Discriminator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(64, 1)

    def forward(self, x_t, t, x_next):
        return torch.tanh(self.linear(torch.cat([x_t, x_next], 1).flatten(1))).squeeze(1)


def setting():
    torch.manual_seed(0)
    schedule = Schedule(4)
    pair = draw_pair(schedule, torch.randn(6, *SHAPE), 3, torch.Generator().manual_seed(0))
    generator, discriminator = Generator(), Discriminator()
    common = dict(schedule=schedule, parts=[pair], precision=contextlib.nullcontext, guard=lambda values: None)
    return generator, discriminator, common


def test_a_pair_follows_the_generator_given_and_mixes_times():
    x_0 = torch.randn(64, *SHAPE)
    schedule = Schedule(4)
    one, same, other = (draw_pair(schedule, x_0, 3, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    for name in ("t", "x_t", "x_next", "z", "noise"):
        assert torch.equal(getattr(one, name), getattr(same, name)), name
        assert not torch.equal(getattr(one, name), getattr(other, name)), name
    assert set(one.t.tolist()) == {0, 1, 2, 3} and one.z.shape == (64, 3)
    clean = one.t == 0  # x_0 as a diffused sample carries a variance of 1e-8
    torch.testing.assert_close(one.x_t[clean], x_0[clean], atol=1e-3, rtol=0)


def test_pairs_have_the_moments_of_the_diffusion():
    schedule, x_0 = Schedule(4), torch.full((20_000, 1, 1, 1), 2.0)
    pair = draw_pair(schedule, x_0, 1, torch.Generator().manual_seed(0))
    for t in range(4):
        for x, i in ((pair.x_t, t), (pair.x_next, t + 1)):
            values = x[pair.t == t]
            assert abs(values.mean() - 2 * schedule.cumulative_scale[i]) < 0.06
            assert abs(values.std() - schedule.cumulative_std[i]) < 0.04


@pytest.mark.parametrize("r1_gamma", [0.0, 0.4])
def test_discriminator_phase(r1_gamma):
    generator, discriminator, common = setting()
    (pair,), schedule = common["parts"], common["schedule"]
    fake = schedule.posterior_sample(generator(pair.x_next, pair.t, pair.z), pair.x_next, pair.t, pair.noise).detach()
    logits_real = discriminator(pair.x_t, pair.t, pair.x_next)
    logits_fake = discriminator(fake, pair.t, pair.x_next)
    adversarial = F.softplus(-logits_real).mean() + F.softplus(logits_fake).mean()
    penalty = r1_penalty(discriminator, pair.x_t, pair.t, pair.x_next).mean()
    gradient = torch.autograd.grad(adversarial + r1_gamma / 2 * penalty, discriminator.linear.weight)[0]
    before = discriminator.linear.weight.detach().clone()

    optimizer = torch.optim.SGD(discriminator.parameters(), 0.1)
    predicted = predict(generator, [pair], contextlib.nullcontext)
    values = discriminator_phase(discriminator, optimizer, predicted=predicted, r1_gamma=r1_gamma, **common)
    torch.testing.assert_close(discriminator.linear.weight.detach(), before - 0.1 * gradient)
    assert values["loss/discriminator"] == pytest.approx(adversarial.item(), rel=1e-5)
    assert values["logits/real"] == pytest.approx(logits_real.mean().item(), abs=1e-5)
    assert values["logits/fake"] == pytest.approx(logits_fake.mean().item(), abs=1e-5)
    assert values.get("r1") == (pytest.approx(penalty.item(), rel=1e-5) if r1_gamma else None)
    assert generator.scale.grad is None and not predicted[0].requires_grad


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_generator_phase(weight):
    generator, discriminator, common = setting()
    (pair,), schedule = common["parts"], common["schedule"]
    x_0_fake = generator(pair.x_next, pair.t, pair.z)
    fake = schedule.posterior_sample(x_0_fake, pair.x_next, pair.t, pair.noise)
    adversarial = F.softplus(-discriminator(fake, pair.t, pair.x_next)).mean()
    reconstruction = (x_0_fake - pair.x_0).abs().mean()
    gradient = torch.autograd.grad(adversarial + weight * reconstruction, generator.scale)[0]

    optimizer = torch.optim.SGD(generator.parameters(), 0.1)
    values = generator_phase(generator, discriminator, optimizer, reconstruction_weight=weight, **common)
    torch.testing.assert_close(generator.scale.detach(), 0.7 - 0.1 * gradient)
    assert values["loss/generator"] == pytest.approx(adversarial.item(), rel=1e-5)
    assert values["loss/reconstruction"] == pytest.approx(reconstruction.item(), rel=1e-5)
    assert values["lambda"] == weight
    assert discriminator.linear.weight.grad is None and discriminator.linear.weight.requires_grad


@pytest.mark.parametrize("spread", [0.5, 1.0])
def test_generator_phase_beside_a_prediction_with_another_z(spread):
    generator, discriminator, common = setting()
    (pair,), schedule = common["parts"], common["schedule"]
    other = generator(pair.x_next, pair.t, 2 * pair.z + 1).detach()
    first = generator(pair.x_next, pair.t, pair.z)
    fake = schedule.posterior_sample(first, pair.x_next, pair.t, pair.noise)
    adversarial = F.softplus(-discriminator(fake, pair.t, pair.x_next)).mean()
    error, distance = (first - pair.x_0).abs().mean(), (first - other).abs().mean() / 2
    gradient = torch.autograd.grad(adversarial + 0.7 * (error - 2 * spread * distance), generator.scale)[0]

    optimizer = torch.optim.SGD(generator.parameters(), 0.1)
    values = generator_phase(
        generator, discriminator, optimizer, reconstruction_weight=0.7, spread=spread, others=[other], **common
    )
    torch.testing.assert_close(generator.scale.detach(), 0.7 - 0.1 * gradient)
    assert values["loss/spread"] == pytest.approx(distance.item(), rel=1e-5) and distance > 0
    assert values["loss/reconstruction"] == pytest.approx((error - spread * distance).item(), rel=1e-5)


@pytest.mark.parametrize("spread", [0.5, 1.0])
def test_generator_phase_with_a_second_draw_of_z(spread):
    generator, discriminator, common = setting()
    (pair,), schedule = common["parts"], common["schedule"]
    other_z = 2 * pair.z + 1
    first, second = (generator(pair.x_next, pair.t, z) for z in (pair.z, other_z))
    fake = schedule.posterior_sample(first, pair.x_next, pair.t, pair.noise)
    adversarial = F.softplus(-discriminator(fake, pair.t, pair.x_next)).mean()
    error = ((first - pair.x_0).abs().mean() + (second - pair.x_0).abs().mean()) / 2
    distance = (first - second).abs().mean() / 2
    gradient = torch.autograd.grad(adversarial + 0.7 * (error - spread * distance), generator.scale)[0]

    optimizer = torch.optim.SGD(generator.parameters(), 0.1)
    common["parts"] = [pair._replace(other_z=other_z)]
    values = generator_phase(generator, discriminator, optimizer, reconstruction_weight=0.7, spread=spread, **common)
    torch.testing.assert_close(generator.scale.detach(), 0.7 - 0.1 * gradient)
    assert values["loss/spread"] == pytest.approx(distance.item(), rel=1e-5) and distance > 0
    assert values["loss/reconstruction"] == pytest.approx((error - spread * distance).item(), rel=1e-5)


def test_the_gradient_beside_another_prediction_is_that_through_both_on_average():
    """What `others` leaves out is, by symmetry, what counting the first twice puts in."""
    generator, _, common = setting()
    (pair,) = common["parts"]
    random, sums = torch.Generator().manual_seed(0), {True: 0.0, False: 0.0}
    for _ in range(4000):
        zs = torch.randn(2, *pair.z.shape, generator=random)
        first, other = (generator(pair.x_next, pair.t, z) for z in zs)
        for both in sums:
            distance = spread_loss(first, other).mean() if both else 2 * spread_loss(first, other.detach()).mean()
            sums[both] += torch.autograd.grad(distance, generator.scale, retain_graph=True)[0].item() / 4000
    assert sums[False] == pytest.approx(sums[True], rel=0.03) and sums[True] > 0.1


def test_another_z_keeps_the_samples():
    pair = draw_pair(Schedule(4), torch.randn(8, *SHAPE), 3, torch.Generator().manual_seed(0), 1)
    again = pair.with_other_z(torch.Generator().manual_seed(1), 2)
    assert all(getattr(again, name) is getattr(pair, name) for name in ("x_0", "t", "x_t", "x_next"))
    assert not torch.equal(again.z, pair.z) and not torch.equal(again.noise, pair.noise)
    assert (len(pair.views), len(again.views)) == (1, 2)


@pytest.mark.parametrize("phase", ["discriminator", "generator"])
def test_the_guard_comes_before_the_weights_change(phase):
    generator, discriminator, common = setting()

    def guard(values):
        assert values[f"grad_norm/{phase}"] > 0
        raise RuntimeError("stop")

    net = generator if phase == "generator" else discriminator
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = torch.optim.Adam(net.parameters(), 0.1)
    with pytest.raises(RuntimeError, match="stop"):
        if phase == "generator":
            generator_phase(
                generator, discriminator, optimizer, reconstruction_weight=1.0, **(common | {"guard": guard})
            )
        else:
            predicted = predict(generator, common["parts"], contextlib.nullcontext)
            discriminator_phase(
                discriminator, optimizer, predicted=predicted, r1_gamma=0.1, **(common | {"guard": guard})
            )
    assert all(torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))


def test_logits_come_back_from_losses_even_of_a_very_sure_discriminator():
    logits = torch.tensor([-80.0, -20.0, -1.0, 0.0, 3.0, 50.0, 1000.0])
    torch.testing.assert_close(_inverse_softplus(F.softplus(logits)), logits, atol=1e-4, rtol=1e-4)
    assert _inverse_softplus(F.softplus(torch.tensor(-300.0))).item() == -104  # finite: a sure D must not stop a run


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_is_the_same_step(parts, reuse):
    """Minibatch statistics, the penalty, a second z and an augmented discriminator included."""
    config = spaced_config("pixels", "digits")
    config = dataclasses.replace(config, generator=dataclasses.replace(config.generator, dropout=0.0))
    schedule, results = Schedule(3), []
    for number in (1, parts):
        torch.manual_seed(0)
        generator = build_generator(config)
        discriminator = RealDiscriminator(channels=1, kind="small", num_layers=3, width=4, time_dim=8)
        for network in (generator, discriminator):
            for weight in network.parameters():
                weight.data += 0.1 * torch.randn_like(weight)
        random = torch.Generator().manual_seed(1)
        pair = draw_pair(schedule, torch.randn(16, 1, 8, 8), 4, random, views=3)
        shares, gradients = pair.parts(group_shares(16, number)), {}
        no_step = torch.optim.SGD([*generator.parameters(), *discriminator.parameters()], 0.0)
        common = dict(schedule=schedule, parts=shares, precision=contextlib.nullcontext, guard=lambda values: None)
        predicted = predict(generator, shares, contextlib.nullcontext)
        values = discriminator_phase(discriminator, no_step, predicted=predicted, r1_gamma=0.4, **common)
        gradients["d"] = torch.cat([w.grad.flatten() for w in discriminator.parameters()])
        again = pair.with_other_z(random, 1)
        again = again if reuse else again._replace(other_z=torch.randn(again.z.shape, generator=random))
        common["parts"], others = again.parts(group_shares(16, number)), predicted if reuse else ()
        values |= generator_phase(
            generator, discriminator, no_step, reconstruction_weight=0.7, spread=0.5, others=others, **common
        )
        gradients["g"] = torch.cat([w.grad.flatten() for w in generator.parameters()])
        results.append((values, gradients))
    (values, gradients), (others, other_gradients) = results
    for name in gradients:
        apart = (gradients[name] - other_gradients[name]).norm() / gradients[name].norm()
        assert apart < 1e-5, (name, apart)
    assert values == {name: pytest.approx(value, rel=1e-5) for name, value in others.items()} and "r1" in values
