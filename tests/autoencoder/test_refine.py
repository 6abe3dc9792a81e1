from __future__ import annotations

import dataclasses

import torch
from tiny import lively_model, tiny_config

from lddgan.autoencoder.refine import GrainDiscriminator, _discriminator_step, draw_latents

CPU = torch.device("cpu")


def test_the_latents_are_the_generators_and_follow_from_the_seed():
    config = tiny_config()
    _, generator = lively_model(config)
    one = draw_latents(config, generator, 130, CPU)
    assert one.shape == (130, *config.latent_shape) and one.std() > 0.1
    assert torch.allclose(draw_latents(config, generator, 7, CPU), one[:7], atol=1e-5)  # whatever the batch
    assert not torch.allclose(draw_latents(dataclasses.replace(config, seed=1), generator, 7, CPU), one[:7])


def test_the_discriminator_learns_to_see_grain():
    torch.manual_seed(0)
    net = GrainDiscriminator(1, 8)
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    smooth = lambda: torch.nn.functional.interpolate(torch.randn(16, 1, 4, 4), size=16, mode="bilinear")  # noqa: E731
    for step in range(120):
        images = smooth()
        values = _discriminator_step(
            net, optimizer, smooth(), images + 0.3 * torch.randn_like(images), 0.1 * (step % 8 == 0)
        )
    assert values["logits/real"] - values["logits/fake"] > 1


def test_the_penalty_is_that_of_the_mean_logit():
    net = GrainDiscriminator(1, 2)
    real, fake = torch.randn(3, 1, 8, 8), torch.randn(3, 1, 8, 8)
    gradients = []
    for gamma in (0.0, 2.0):
        copy = GrainDiscriminator(1, 2)
        copy.load_state_dict(net.state_dict())
        _discriminator_step(copy, torch.optim.SGD(copy.parameters(), 0.0), real.clone(), fake, gamma)
        gradients.append(copy[0].weight.grad.clone())
    x = real.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(net(x).mean((1, 2, 3)).sum(), x, create_graph=True)
    (extra,) = torch.autograd.grad(gradient.square().flatten(1).sum(1).mean(), net[0].weight)
    torch.testing.assert_close(gradients[1] - gradients[0], extra, atol=1e-6, rtol=1e-4)
