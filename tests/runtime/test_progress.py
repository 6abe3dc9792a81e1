from __future__ import annotations

import json
import os
import signal

import pytest
import torch
from torch import nn

from lddgan.errors import RunStopped
from lddgan.runtime.progress import Progress, Timer, gradient_norm, interruptible, report_due, require_finite


def rows(folder):
    return [json.loads(line) for line in (folder / "curves" / "stage1.jsonl").read_text().splitlines()]


def test_rows_are_means_and_a_resume_drops_what_came_after_it(tmp_path):
    progress = Progress(tmp_path, "stage1", 0, 200, batch=4)
    for step in range(100):
        progress.add(step, {"loss": float(step)} | ({"rare": 6.0} if step % 10 == 0 else {}))
    progress.record(100, {"psnr": 20.0})
    progress.close()
    assert [(row["step"], row.get("loss"), row.get("rare")) for row in rows(tmp_path)] == [
        (50, 24.5, 6.0), (100, 74.5, 6.0), (100, None, None),
    ]  # fmt: skip
    assert rows(tmp_path)[0]["images_per_second"] > 0

    with open(tmp_path / "curves" / "stage1.jsonl", "a") as file:
        file.write('{"step": 150, "lo')  # a kill in the middle of a line
    progress = Progress(tmp_path, "stage1", 60, 200, batch=4)
    assert [row["step"] for row in rows(tmp_path)] == [50]
    progress.record(70, {"psnr": 21.0})
    progress.draw()
    progress.close()
    assert [row["step"] for row in rows(tmp_path)] == [50, 70]
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_the_bar_shows_losses_and_not_the_gradient_norms_of_the_same_names(tmp_path, capsys):
    progress = Progress(tmp_path, "stage2", 0, 50, batch=4)
    for step in range(50):
        progress.add(step, {"loss/discriminator": 1.25, "logits/real": 0.5, "grad_norm/discriminator": 9.0})
    progress.close()
    assert capsys.readouterr().err.rstrip().endswith(", discriminator=1.25]")  # and nothing else


def test_gradient_norm():
    net = nn.Linear(2, 1)
    net.weight.grad, net.bias.grad = torch.tensor([[3.0, 4.0]]), torch.tensor([12.0])
    assert gradient_norm(net) == 13.0
    net.bias.grad = None
    assert gradient_norm(net) == 5.0


def test_what_is_not_finite_stops(tmp_path):
    require_finite(3, {"loss": 1e30}, tmp_path / "x.pt")
    for bad in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(RunStopped, match="step 3: b = .* is not finite.*nothing was saved") as stopped:
            require_finite(3, {"a": 1.0, "b": bad}, tmp_path / "x.pt")
        assert not stopped.value.resumable and stopped.value.exit_code == 1
    (tmp_path / "x.pt").write_text("")
    with pytest.raises(RunStopped, match=r"x\.pt' holds the last good state"):
        require_finite(3, {"b": float("nan")}, tmp_path / "x.pt")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_becomes_a_flag_and_the_handlers_come_back(number):
    before = signal.getsignal(number)
    with interruptible() as interruption:
        assert interruption.signal is None
        os.kill(os.getpid(), number)
        assert interruption.signal == number
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_timer(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("lddgan.runtime.progress.time.monotonic", lambda: now[0])
    timer = Timer(10)
    due = []
    for now[0] in (105.0, 110.0, 111.0, 119.0, 121.0):
        due.append(timer.due())
    assert due == [False, True, False, False, True]


def test_a_report_comes_after_every_so_many_steps_and_none_soon_before_the_end():
    assert [done for done in range(1, 1208) if report_due(done, 400, 1207)] == [400, 800, 1207]
    assert [done for done in range(1, 13) if report_due(done, 5, 12)] == [5, 12]
    assert [done for done in range(1, 14) if report_due(done, 5, 13)] == [5, 10, 13]
    assert [done for done in range(1, 4) if report_due(done, 9, 3)] == [3]
