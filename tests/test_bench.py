from __future__ import annotations

import pytest
import torch

import lddgan.bench as module
from lddgan import Pipeline
from lddgan.bench import bench, convolution_peak
from lddgan.estimate import model_cost


def test_the_numbers_hang_together(finished_run, monkeypatch):
    pipe = Pipeline.from_pretrained(finished_run, device="cpu")
    drawn = []
    draw = pipe.draw
    monkeypatch.setattr(module, "convolution_peak", lambda device, dtype: 2e9)  # it takes seconds
    monkeypatch.setattr(pipe, "draw", lambda indices, seed=0: drawn.append(list(indices)) or draw(indices, seed))
    result = bench(pipe, batch=4, trials=6)
    assert result["nfe"] == 3 and result["batch"] == 4 and result["trials"] == 6
    assert len([indices for indices in drawn if len(indices) == 4]) == 3 + 6  # warm-up apart
    low, high = result["batch_seconds_quartiles"]
    assert 0 < low <= result["batch_seconds_median"] <= high
    assert result["images_per_second"] == pytest.approx(4 / result["batch_seconds_median"])
    macs = model_cost(pipe.config)["slim_sample_macs"]
    reached = macs * 4 / result["batch_seconds_median"]
    assert result["conv_peak_macs"] == 2e9 and result["peak_fraction"] == pytest.approx(reached / 2e9)


def test_the_peak_is_that_of_a_machine():
    peak = convolution_peak(torch.device("cpu"))
    assert 1e8 < peak < 1e13  # a tenth of a GMAC to ten TMAC a second
