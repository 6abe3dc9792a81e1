"""Runs that are really killed, in processes of their own, and go on to the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from tiny import STEPS, assert_same_bits, tensors, tiny_config

from lddgan.cli.main import run as command
from lddgan.config import save_yaml

PROGRAM = [sys.executable, "-c", "from lddgan.cli.main import main; main()"]


def launch(*arguments: str, cache) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "LDDGAN_CACHE": str(cache)}
    return subprocess.Popen([*PROGRAM, *arguments], stderr=subprocess.PIPE, text=True, env=environment)


def end_in_the_middle(process: subprocess.Popen, run, stage: str, number: signal.Signals) -> tuple[int, str]:
    """Send the signal as soon as the stage has a checkpoint; returns exit code and what went to stderr."""
    checkpoint, deadline = run / "checkpoints" / f"{stage}.pt", time.monotonic() + 120
    while not checkpoint.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.002)
    process.send_signal(number)
    errors = process.communicate(timeout=120)[1]
    assert 0 < torch.load(checkpoint, weights_only=True)["step"] < STEPS  # it was in the middle
    return process.returncode, errors


def assert_equal_runs(run, finished):
    for folder in ("model", "best"):
        for name in ("generator", "autoencoder"):
            file = f"{folder}/{name}.safetensors"
            assert_same_bits(load_file(run / file), load_file(finished / file))
    for stage in ("stage1", "decoder", "stage2"):
        one, other = (
            torch.load(folder / "checkpoints" / f"{stage}.pt", weights_only=True) for folder in (run, finished)
        )
        assert one["step"] == other["step"] == STEPS
        assert_same_bits(tensors(one["parts"]), tensors(other["parts"]))
        measures = [
            [row for row in map(json.loads, (folder / "curves" / f"{stage}.jsonl").read_text().splitlines())
             if "images_per_second" not in row]
            for folder in (run, finished)
        ]  # fmt: skip
        assert measures[0] == measures[1] and len(measures[0]) == 2
    assert (run / "cache" / "latents.f32").read_bytes() == (finished / "cache" / "latents.f32").read_bytes()
    assert not [path for path in run.rglob(".*") if path.is_file()]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGKILL, signal.SIGKILL), (signal.SIGINT, signal.SIGTERM)], ids=["kill", "stop"]
)
def test_ends_with_the_same_bits(first, second, finished_run, tiny_data, cache, tmp_path):
    run = tmp_path / "run"
    save_yaml(tiny_config(tiny_data, checkpoint_seconds=0.05), tmp_path / "config.yaml")
    device = ("--device", "cpu")

    process = launch("train", str(tmp_path / "config.yaml"), "--out", str(run), *device, cache=cache)
    codes = [end_in_the_middle(process, run, "stage1", first)]
    process = launch("train", "--resume", str(run), *device, cache=cache)
    codes.append(end_in_the_middle(process, run, "stage2", second))
    for stage, number, (code, errors) in zip((1, 2), (first, second), codes, strict=True):
        if number == signal.SIGKILL:
            assert code == -signal.SIGKILL
        else:
            assert code == 128 + number
            last = errors.strip().splitlines()[-1]
            assert f"of stage {stage}; go on with: lddgan train --resume {run}" in last
            assert "Traceback" not in errors
    assert not (run / "model").exists()

    command(["train", "--resume", str(run), *device])
    assert_equal_runs(run, finished_run)
