from __future__ import annotations

import math

import pytest
import torch

from lddgan.autoencoder.quantiser import COMMITMENT, CodebookUse, Quantiser


def quantiser() -> Quantiser:
    net = Quantiser(3, 2)
    with torch.no_grad():
        net.embedding.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]]))
    return net


def test_every_vector_becomes_its_nearest_code_and_the_gradient_goes_straight_through():
    latent = torch.tensor([[0.6, 0.1], [0.2, 1.6]]).T.reshape(1, 2, 1, 2).requires_grad_(True)
    out = quantiser()(latent)
    assert out.codes.tolist() == [[[1, 2]]]
    assert torch.allclose(out.latent, torch.tensor([[1.0, 0.0], [0.0, 3.0]]).T.reshape(1, 2, 1, 2))
    weights = torch.tensor([[2.0, 3.0], [5.0, 7.0]]).reshape(1, 2, 1, 2)
    (gradient,) = torch.autograd.grad((out.latent * weights).sum(), latent)
    assert torch.equal(gradient, weights)


def test_the_loss_in_closed_form_moves_codes_and_encoder_apart():
    net = quantiser()
    latent = torch.tensor([0.6, 0.1]).reshape(1, 2, 1, 1).requires_grad_(True)
    loss = net(latent).loss
    error = torch.tensor([-0.4, 0.1])
    assert loss.item() == pytest.approx((1 + COMMITMENT) * error.square().mean().item())
    loss.backward()
    assert torch.allclose(latent.grad.flatten(), error)  # 2 error / 2 values
    assert torch.allclose(net.embedding.weight.grad[1], -COMMITMENT * error)
    assert net.embedding.weight.grad[0].abs().sum() == 0


def test_chunks_change_nothing(monkeypatch):
    net, vectors = Quantiser(50, 4), torch.randn(37, 4)
    torch.nn.init.normal_(net.embedding.weight)
    direct = torch.cdist(vectors, net.embedding.weight).argmin(1)
    monkeypatch.setattr("lddgan.autoencoder.quantiser.CHUNK", 5)
    assert torch.equal(net.nearest(vectors), direct)


def test_use_tells_perplexity_and_dead_codes_and_they_revive_where_vectors_are(monkeypatch):
    monkeypatch.setattr(CodebookUse, "DECAY", 0.5)
    use, net = CodebookUse(4), Quantiser(4, 2)
    assert use.perplexity == pytest.approx(4) and use.used == 1
    for _ in range(30):
        use.update(torch.tensor([[0, 0, 1, 1]]))
    assert use.perplexity == pytest.approx(2, rel=1e-3) and use.used == 0.5
    assert use.dead.tolist() == [False, False, True, True]
    vectors = torch.tensor([[5.0, 6.0], [7.0, 8.0]])
    before = net.embedding.weight.detach().clone()
    net.revive(use.dead, vectors, torch.Generator().manual_seed(0))
    use.reset(use.dead)
    assert torch.equal(net.embedding.weight[:2], before[:2])
    assert all(row in vectors.tolist() for row in net.embedding.weight[2:].tolist())
    assert use.used == 1
    again = CodebookUse(4)
    again.load_state_dict(use.state_dict())
    assert math.isclose(again.perplexity, use.perplexity)
