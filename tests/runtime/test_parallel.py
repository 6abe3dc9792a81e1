"""Several processes, started as torchrun would start them."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import lively_model, make_sets, spaced_config, tiny_config

from lddgan import Pipeline
from lddgan.cli.main import run as command
from lddgan.config import save_yaml
from lddgan.errors import RunStopped, UserError
from lddgan.models import build_generator, build_space
from lddgan.networks.discriminator import group_shares, minibatch_std
from lddgan.runtime.device import resolve_device
from lddgan.runtime.parallel import World, joined, speaks

PROGRAM = ["-c", "from lddgan.cli.main import main; main()"]


class Team:
    """`size` processes of the program, all with the same arguments."""

    def __init__(self, size: int, *arguments: str, cache, **environment: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.processes = []
        for rank in range(size):
            variables = {
                "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
                "OMP_NUM_THREADS": 1, "LDDGAN_CACHE": cache,
            }  # fmt: skip
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, *([] if arguments[0] == "-c" else PROGRAM), *arguments], text=True,
                    env=os.environ | {key: str(value) for key, value in variables.items()} | environment,
                    stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                )
            )  # fmt: skip

    def end(self) -> list[tuple[int, str, str]]:
        """Exit code, what was printed and what was complained about, of each."""
        results = []
        for process in self.processes:
            out, err = process.communicate(timeout=120)
            results.append((process.returncode, out, err))
        return results


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A run in pixels, short enough for rounding to stay rounding, with all that looks at a whole batch."""
    folder = tmp_path_factory.mktemp("small")
    config = spaced_config("pixels", make_sets(folder / "data"))
    config = dataclasses.replace(
        config,
        generator=dataclasses.replace(config.generator, dropout=0.0),
        stage2=dataclasses.replace(
            config.stage2, batch=16, epochs=4, r1_every=2, spread=0.5, augment=True, report_every=5,
            learning_rate_generator=1e-4, learning_rate_discriminator=1e-4,
        ),
    )  # fmt: skip
    save_yaml(config, folder / "config.yaml")
    # A fresh generator makes the same of any z but for rounding, and the spread's gradient is the sign of that.
    torch.manual_seed(0)
    generator = build_generator(config)
    for weight in generator.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    Pipeline(config, build_space(config), generator, device="cpu").save_pretrained(folder / "init")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LDDGAN_CACHE", str(folder / "cache"))
        command(train(folder, folder / "alone"))
    return folder


def train(small, out, *more):
    return ["train", str(small / "config.yaml"), "--init", str(small / "init"), "--out", str(out), *more]


def assert_near(run, other):
    """Weights that differ by rounding; few are farther off, whose gradient is rounding alone (attention's key bias) and
    of which Adam makes whole steps."""
    for name in ("model", "best"):
        ours, theirs = (load_file(folder / name / "generator.safetensors") for folder in (run, other))
        apart = torch.cat([(ours[key] - theirs[key]).abs().flatten() for key in ours])
        assert apart.mean() < 1e-7 and apart.quantile(0.95) < 1e-6
    rows, others = (
        [json.loads(row) for row in (folder / "curves" / "stage2.jsonl").read_text().splitlines()]
        for folder in (run, other)
    )
    assert [row["step"] for row in rows] == [5, 9] == [row["step"] for row in others]
    for row, same in zip(rows, others, strict=True):
        assert row["FD[pixels]"] == pytest.approx(same["FD[pixels]"], rel=1e-4)


def test_accumulating_is_the_same_step(small):
    command(train(small, small / "parts", "--stage2.accumulate", "4"))
    assert_near(small / "parts", small / "alone")


def test_two_processes_equal_one_and_resume_as_one(small, tmp_path):
    two = Team(2, *train(small, tmp_path / "two"), cache=small / "cache")
    (code, out, err), (other_code, other_out, _) = two.end()
    assert code == other_code == 0, err
    assert "done: the model is" in out and other_out == ""  # one speaks
    assert_near(tmp_path / "two", small / "alone")

    stopped = Team(2, *train(small, tmp_path / "half", "--checkpoint_seconds", "0.05"), cache=small / "cache")
    checkpoint, deadline = tmp_path / "half" / "checkpoints" / "stage2.pt", time.monotonic() + 100
    while not checkpoint.exists():
        assert time.monotonic() < deadline and stopped.processes[0].poll() is None
        time.sleep(0.005)
    stopped.processes[1].send_signal(signal.SIGTERM)  # one is told to stop: all do, after the same step
    codes = [code for code, _, _ in stopped.end()]
    assert codes == [143, 143]
    assert 0 < torch.load(checkpoint, weights_only=True)["step"] < 9
    command(["train", "--resume", str(tmp_path / "half")])
    assert_near(tmp_path / "half", small / "alone")


def test_any_number_of_processes_draws_the_same_images(tmp_path):
    config = tiny_config()
    pipe = Pipeline(config, *lively_model(config), device="cpu")
    pipe.save_pretrained(tmp_path / "model")
    expected = pipe(10).astype(int)
    file = tmp_path / "three.npz"
    team = Team(3, "sample", str(tmp_path / "model"), "-n", "10", "--batch", "3", "--out", str(file), cache=tmp_path)
    assert [code for code, _, _ in team.end()] == [0] * 3
    assert np.abs(np.load(file)["arr_0"] - expected).max() <= 1 and expected.std() > 10


FEATURES = """
import sys, pathlib, numpy as np, torch
from lddgan.metrics import measured
from lddgan.runtime.parallel import joined

class Network:
    name, dim, classes, weights_hash = "pixels", 3, 2, "0" * 16
    def __call__(self, images):
        values = torch.from_numpy(images).float().flatten(1)
        return values[:, :3], values[:, 3:5]

measured.CHUNK = 4
images = np.random.default_rng(0).integers(0, 256, (11, 2, 2, 3), np.uint8)
read = []
def rows(which):
    read.extend(which)
    return images[which.start : which.stop]
with joined(torch.device("cpu")) as everyone:
    features, logits = measured.features_of(
        Network(), measured.Measured(11, (2, 2, 3), rows, "key", {}), pathlib.Path(sys.argv[-1])
    )
assert torch.equal(torch.cat([features[:], logits[:]], 1), torch.from_numpy(images).float().flatten(1)[:, :5])
print(read)
"""


def test_two_processes_share_the_images_that_are_measured(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (11, 2, 2, 3), np.uint8).reshape(11, -1)[:, :5]
    half = values.astype(np.float32).tobytes()[: 5 * 4 * 3 + 7]  # a killed run had come to row 3 and a bit
    (tmp_path / "key-11-png-pixels-0000000000000000.part").write_bytes(half)
    results = Team(2, "-c", FEATURES, str(tmp_path), cache=tmp_path).end()
    assert [code for code, _, _ in results] == [0, 0], results
    read = [json.loads(out) for _, out, _ in results]
    assert read == [[3, 4, 7, 8], [5, 6, 9, 10]]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_or_hung_process_ends_the_run_with_a_sentence(small, tmp_path, number):
    run = tmp_path / "run"
    more = ("--stage2.epochs", "4000", "--checkpoint_seconds", "0.2")
    team = Team(2, *train(small, run, *more), cache=small / "cache", LDDGAN_TIMEOUT="3")
    deadline = time.monotonic() + 100
    while not (run / "checkpoints" / "stage2.pt").exists():
        assert time.monotonic() < deadline and team.processes[0].poll() is None
        time.sleep(0.01)
    team.processes[1].send_signal(number)
    started = time.monotonic()
    _, err = team.processes[0].communicate(timeout=60)
    team.processes[1].kill()
    team.processes[1].communicate()
    assert team.processes[0].returncode == 1 and time.monotonic() - started < 20
    assert "process 0 of 2 stopped, for another one died or did not answer within 3 s" in err
    assert f"go on with: lddgan train --resume {run}" in err and "Traceback" not in err


def test_shares_hold_whole_groups_of_the_minibatch_statistics():
    torch.manual_seed(0)
    for batch, parts in ((16, 2), (16, 4), (64, 8), (8, 1), (6, 2), (7, 1)):
        h, shares = torch.randn(batch, 2, 3, 3), group_shares(batch, parts)
        assert sorted(torch.cat(shares).tolist()) == list(range(batch)) and len(shares) == parts
        for rows in shares:
            torch.testing.assert_close(minibatch_std(h[rows]), minibatch_std(h)[rows])
    for batch, parts in ((60, 8), (7, 2), (4, 2)):
        with pytest.raises(
            ValueError, match=f"a batch of {batch} cannot be cut into {parts} parts .*: take a multiple"
        ):
            group_shares(batch, parts)


def test_a_batch_that_cannot_be_cut_is_a_sentence(small, tmp_path):
    with pytest.raises(UserError, match=r"stage2.batch does not go with 1 processes and stage2.accumulate 3"):
        command(train(small, tmp_path / "x", "--stage2.accumulate", "3"))


def test_a_world_of_one_has_nothing_to_say(monkeypatch):
    alone, rows = World(), torch.arange(3)
    assert alone.first and alone.share(5) == range(5) and alone.gathered(rows, 3) is rows
    assert alone.mean({"a": 1.0}) == {"a": 1.0} and alone.greatest(7) == 7
    assert [World(rank, 3).share(7) for rank in range(3)] == [range(3), range(3, 6), range(6, 7)]
    assert [World(rank, 3).share(1) for rank in range(3)] == [range(1), range(1, 1), range(1, 1)]
    assert speaks()
    monkeypatch.setenv("RANK", "1")
    assert not speaks()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LDDGAN_TIMEOUT", "soon")
    with pytest.raises(UserError, match="LDDGAN_TIMEOUT is 'soon': give a number"), joined(resolve_device("cpu")):
        pass
    assert issubclass(RunStopped, Exception)
