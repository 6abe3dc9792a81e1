from __future__ import annotations

import errno

import pytest
import torch
from tiny import assert_same_bits, tensors, visible
from torch import nn

from lddgan.errors import RunStopped, UserError
from lddgan.runtime.checkpoint import Best, Checkpoint
from lddgan.runtime.ema import Ema

CPU = torch.device("cpu")
IDENTITY = {"stage1.batch": "8", "the data": "abc"}


class Parts:
    """A network two steps into its training, with all that belongs to it."""

    def __init__(self, path, steps: int = 2, identity: dict[str, str] = IDENTITY) -> None:
        torch.manual_seed(steps)
        self.net, self.best = nn.Linear(3, 2), Best()
        self.optimizer, self.ema = torch.optim.Adam(self.net.parameters(), 1e-2), Ema(self.net, 0.9)
        for step in range(steps):
            self.step()
            self.best.improve(10.0 - step, step)
        self.checkpoint = Checkpoint(
            path, identity, net=self.net, optimizer=self.optimizer, ema=self.ema, best=self.best
        )

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.net(torch.ones(1, 3)).square().sum().backward()
        self.optimizer.step()
        self.ema.update(self.net)

    def state(self) -> dict[str, torch.Tensor]:
        return tensors([part.state_dict() for part in (self.net, self.optimizer, self.ema, self.best)])


def test_everything_comes_back_and_goes_on_the_same(tmp_path):
    saved = Parts(tmp_path / "x.pt")
    saved.checkpoint.save(2)
    loaded = Parts(tmp_path / "x.pt", steps=0)
    assert loaded.checkpoint.load(CPU) == 2
    assert_same_bits(saved.state(), loaded.state())
    assert (loaded.best.value, loaded.best.step) == (9.0, 1)
    for parts in (saved, loaded):
        parts.step()
    assert_same_bits(saved.state(), loaded.state())


def test_a_name_that_an_older_file_does_not_have_counts_as_its_default(tmp_path):
    Parts(tmp_path / "x.pt").checkpoint.save(2)
    for value, default in (("latent", "latent"), ("pixels", "latent"), ("latent", None)):
        unsaid = {"space": default} if default else {}
        newer = Checkpoint(tmp_path / "x.pt", {**IDENTITY, "space": value}, unsaid, best=Best())
        if value == default:
            assert newer.load(CPU) == 2
        else:
            with pytest.raises(UserError, match=f"space was {default} and is now {value}"):
                newer.load(CPU)


def test_no_file_means_no_steps(tmp_path):
    assert Parts(tmp_path / "x.pt").checkpoint.load(CPU) == 0


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path, monkeypatch):
    parts = Parts(tmp_path / "x.pt")
    parts.checkpoint.save(2)
    before = (tmp_path / "x.pt").read_bytes()

    def fill_the_disk(state, path):
        path.write_bytes(before[: len(before) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    parts.step()
    monkeypatch.setattr(torch, "save", fill_the_disk)
    with pytest.raises(RunStopped, match=r"x\.pt' at step 3 \(No space left on device\)") as stopped:
        parts.checkpoint.save(3)
    assert stopped.value.exit_code == 1
    assert (tmp_path / "x.pt").read_bytes() == before and visible(tmp_path) == ["x.pt"]
    assert Parts(tmp_path / "x.pt", steps=0).checkpoint.load(CPU) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: b"this is no checkpoint",
        lambda data: bytes(len(data)),
        lambda data: b"\x80\x02" + data[2:],
    ],
)
def test_a_damaged_file_is_named(tmp_path, damage):
    Parts(tmp_path / "x.pt").checkpoint.save(2)
    (tmp_path / "x.pt").write_bytes(damage((tmp_path / "x.pt").read_bytes()))
    with pytest.raises(UserError, match=r"the checkpoint '.*x\.pt' cannot be read") as caught:
        Parts(tmp_path / "x.pt").checkpoint.load(CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [[1, 2], {"step": 3}, {"step": 3, "identity": dict(IDENTITY), "parts": {}}])
def test_a_file_of_other_content_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"x\.pt"):
        Parts(tmp_path / "x.pt").checkpoint.load(CPU)


@pytest.mark.parametrize(
    ("identity", "says"),
    [
        ({**IDENTITY, "stage1.batch": "16"}, "stage1.batch was 8 and is now 16"),
        ({**IDENTITY, "the data": "xyz"}, "the data was abc and is now xyz"),
        ({**IDENTITY, "seed": "1"}, "seed was None and is now 1"),
    ],
)
def test_a_changed_config_is_named(tmp_path, identity, says):
    Parts(tmp_path / "x.pt").checkpoint.save(2)
    with pytest.raises(UserError, match=says):
        Parts(tmp_path / "x.pt", identity=identity).checkpoint.load(CPU)


def test_best_takes_only_smaller_values():
    best = Best()
    assert [best.improve(value, step) for step, value in enumerate([3.0, 4.0, 3.0, float("nan"), 2.5])] == [
        True, False, False, False, True,
    ]  # fmt: skip
    assert (best.value, best.step) == (2.5, 4)
