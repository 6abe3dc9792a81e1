from __future__ import annotations

import json

import pytest

from lddgan.cli import recipes as module
from lddgan.cli.main import run
from lddgan.estimate import model_cost
from lddgan.recipes import RECIPES, cifar10, demo


def test_the_list_tells_sizes_and_cost(capsys, monkeypatch):
    monkeypatch.setattr(module, "RECIPES", {"demo": demo, "cifar10": cifar10})  # the large ones take a while to count
    run(["recipes"])
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line}
    assert lines["demo"][1:3] == ["8x8x1", "4x4x4"] and lines["cifar10"][1:3] == ["32x32x3", "16x16x4"]
    for name in ("demo", "cifar10"):
        cost = model_cost(RECIPES[name]())
        assert float(lines[name][3]) == pytest.approx(
            (cost["generator_params"] + cost["decoder_params"]) / 1e6, abs=0.006
        )
        assert float(lines[name][5]) == pytest.approx(cost["sample_macs"] / 1e9, abs=0.006)
    assert lines["folder"][1:3] == ["from", "data"]
    run(["recipes", "--json"])
    listed = json.loads(capsys.readouterr().out)
    assert list(listed) == ["demo", "cifar10"]
    assert listed["demo"]["generator_params"] == model_cost(demo())["generator_params"]
