from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys

import pytest
import torch
from tiny import spaced_config
from torch.utils._pytree import tree_map_only

from lddgan.config import with_fields
from lddgan.gan.players import Players
from lddgan.gan.step import directly
from lddgan.models import build_generator
from lddgan.runtime import graphs
from lddgan.runtime.graphs import Graphs

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def test_away_from_a_gpu_work_is_called_as_it_is():
    run, calls = Graphs(torch.device("cpu")), []
    assert run("sum", lambda a, b: calls.append(1) or a + b, 1, 2) == 3
    assert run("sum", lambda a, b: calls.append(1) or a + b, 3, 4) == 7
    assert calls == [1, 1]


@needs_gpu
def test_a_recording_takes_new_tensors_and_sees_new_weights():
    run, weight, calls = Graphs(torch.device("cuda")), torch.ones(3, device="cuda"), []

    def work(given):
        calls.append(1)
        return {"product": given[0] * weight}

    for k in range(4):
        weight.fill_(k)
        x = torch.arange(3.0, device="cuda") + k
        assert torch.equal(run("product", work, [x])["product"], x * k)
    assert len(calls) == 2  # a warm-up, and the recording
    longer = torch.ones(5, device="cuda")
    assert torch.equal(run("other", lambda x: x + 1, longer), longer + 1)


class Repeated:
    """Stands in for a `Recording` where there is no GPU: it too works on tensors of its own and gives the same ones."""

    def __init__(self, work, given, pool):
        self.work, self.held = work, tree_map_only(torch.Tensor, torch.clone, given)
        self.result = work(*self.held)

    def __call__(self, *given):
        for held, new in zip(graphs._tensors(self.held), graphs._tensors(given), strict=True):
            held.copy_(new)
        for kept, new in zip(graphs._tensors(self.result), graphs._tensors(self.work(*self.held)), strict=True):
            kept.detach().copy_(new)
        return self.result


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
@pytest.mark.parametrize("options", [{}, {"spread": 0.4}, {"spread": 0.4, "reuse": True}, {"precision": "bfloat16"}])
def test_recorded_steps_are_the_steps(options, device, monkeypatch):
    changes = {f"stage2.{name}": value for name, value in options.items()}
    config = with_fields(spaced_config("pixels", "digits"), changes | {"generator.dropout": 0.0})
    generator, weights = build_generator(config), []
    for weight in generator.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    start = torch.cat([w.detach().flatten() for w in generator.parameters()]).to(device)
    x_0 = torch.randn(8, *config.space_shape).to(device)
    for recorded in (False, True):
        players = Players.of(config, copy.deepcopy(generator), torch.device(device))
        if not recorded:
            players = dataclasses.replace(players, run=directly)
        elif device == "cpu":
            monkeypatch.setattr(graphs, "Recording", Repeated)
            monkeypatch.setattr(players.run, "_on", True)
        random = torch.Generator().manual_seed(0)
        for step in range(5):
            players.step(x_0, random, lambda values: None, weight=0.5 + step / 10, penalised=step % 2 == 0)
        weights.append(torch.cat([w.detach().flatten() for w in players.generator.parameters()]))
    assert len(players.run._recordings) == 4  # predict, generator, discriminator with the penalty and without
    assert (weights[0] - weights[1]).norm() < 1e-4 * (weights[1] - start).norm()


FAILING = """
import torch
from lddgan.runtime.graphs import Graphs
run = Graphs(torch.device("cuda"))
for k in range(2):
    assert run("item", lambda x: x.sum().item(), torch.full((2,), float(k), device="cuda")) == 2 * k
"""


@needs_gpu
def test_what_cannot_be_recorded_runs_all_the_same():
    """In a process of its own: torch 2.11 cannot draw on the GPU any more after a recording that failed."""
    done = subprocess.run([sys.executable, "-c", FAILING], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0 and "without CUDA graphs" in done.stderr
