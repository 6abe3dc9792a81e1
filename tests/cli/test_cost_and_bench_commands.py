from __future__ import annotations

import json

import pytest

import lddgan.bench
from lddgan import UserError, recipes
from lddgan.cli.main import run
from lddgan.estimate import model_cost, sample_memory


def test_cost_of_a_recipe_in_raw_counts(capsys):
    run(["cost", "cifar10", "--json"])
    cost = json.loads(capsys.readouterr().out)
    # Measured on the published networks: 33.33 M parameters and 1.665 GMAC a step, decoder 8.63 M and 3.61 GMAC.
    assert cost["generator_params"] / 1e6 == pytest.approx(33.33, abs=0.1)
    assert cost["generator_macs_per_step"] / 1e9 == pytest.approx(1.665, abs=0.01)
    assert cost["decoder_params"] / 1e6 == pytest.approx(8.63, abs=0.05)
    assert cost["decoder_macs"] / 1e9 == pytest.approx(3.61, abs=0.05)
    assert cost["sample_macs"] == 4 * cost["generator_macs_per_step"] + cost["decoder_macs"]
    assert cost["memory_bytes_batch_100"] > cost["memory_bytes_batch_1"] > 4 * cost["generator_params"]


def test_cost_of_a_model_as_a_table(finished_run, capsys):
    run(["cost", str(finished_run)])
    text = capsys.readouterr().out
    assert "of 3" in text and "whole sample" in text and "GiB for 100 at once" in text
    with pytest.raises(UserError, match="there is no recipe 'cifar': did you mean"):
        run(["cost", "cifar"])


def test_memory_grows_with_the_batch_by_the_same_amount_an_image():
    config = recipes.demo()
    weights = 4 * (model_cost(config)["generator_params"] + model_cost(config)["decoder_params"])
    one, two, eight = (sample_memory(config, n) for n in (1, 2, 8))
    assert one > weights and (eight - two) / 6 == pytest.approx(two - one, rel=0.05)


def test_bench_prints_one_object_or_a_table(finished_run, capsys, monkeypatch):
    monkeypatch.setattr(lddgan.bench, "convolution_peak", lambda device, dtype: 2e9)  # it takes seconds
    arguments = ["bench", str(finished_run), "--batch", "2", "--trials", "3", "--device", "cpu"]
    run([*arguments, "--json"])
    result = json.loads(capsys.readouterr().out)
    assert (result["batch"], result["trials"], result["nfe"]) == (2, 3, 3)
    run(arguments)
    text = capsys.readouterr().out
    assert "function evaluations    3" in text and "was reached" in text
    with pytest.raises(UserError, match="cannot time 0 batches"):
        run(["bench", str(finished_run), "--trials", "0"])
