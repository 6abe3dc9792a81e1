"""What a run tells: a bar with an estimate, curves as rows, TensorBoard and one picture; and how it is stopped."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from torch import nn
from tqdm import tqdm

from lddgan.errors import RunStopped
from lddgan.reports.curves import plot_curves
from lddgan.runtime.files import atomic_write, ensure_folder


class Progress:
    """Rows of numbers by step: `FOLDER/curves/STAGE.jsonl`, TensorBoard, and `FOLDER/curves.png`.

    Args:
        folder: the run folder.
        stage: `stage1`, `decoder` or `stage2`.
        start, total: steps done and steps in all; rows of later steps, from a killed run, are dropped.
        batch: images a step, for the rate.
    """

    EVERY = 50
    """Steps between two rows."""

    def __init__(self, folder: Path, stage: str, start: int, total: int, batch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.folder, self.stage, self.batch = folder, stage, batch
        self._file = ensure_folder(folder / "curves") / f"{stage}.jsonl"
        rows = self._rows(self._file)
        with atomic_write(self._file) as temporary:
            self._write([row for row in rows if row["step"] <= start], temporary)
        self._board = SummaryWriter(str(folder / "tensorboard" / stage), purge_step=start)
        self._bar = tqdm(total=total, initial=start, desc=stage, unit="step", dynamic_ncols=True, mininterval=1.0)
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._clock = time.monotonic()
        self._since = start

    @staticmethod
    def _rows(file: Path) -> list[dict[str, float]]:
        if not file.exists():
            return []
        lines = file.read_text().split("\n")[:-1]  # a kill may have cut the last line: it has no newline
        return [json.loads(line) for line in lines]

    @staticmethod
    def _write(rows: list[dict[str, float]], path: Path) -> None:
        with open(path, "a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    def add(self, step: int, values: dict[str, float]) -> dict[str, float] | None:
        """Collect one step's values; every `EVERY` steps their means become a row, which is returned."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        self._bar.update()
        if (step + 1) % self.EVERY:
            return None
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        seconds = time.monotonic() - self._clock
        self.record(step + 1, {**means, "images_per_second": (step + 1 - self._since) * self.batch / seconds})
        self._sums, self._counts = {}, {}
        self.restart_clock(step + 1)
        losses = {k.removeprefix("loss/"): f"{v:.3g}" for k, v in means.items() if k.startswith("loss/")}
        self._bar.set_postfix(losses, refresh=False)
        return means

    def record(self, step: int, values: dict[str, float]) -> None:
        """Write one row now."""
        self._write([{"step": step, **values}], self._file)
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def restart_clock(self, step: int) -> None:
        """Leave what was done since the last row (grids, evaluations) out of the rate."""
        self._clock, self._since = time.monotonic(), step

    def say(self, message: str) -> None:
        """A line above the bar."""
        self._bar.write(message)

    def draw(self) -> None:
        """Renew `curves.png`, which shows all stages."""
        rows = []
        for stage in ("stage1", "decoder", "stage2"):
            for row in self._rows(self.folder / "curves" / f"{stage}.jsonl"):
                rows.append({k if k == "step" else f"{stage} {k}": value for k, value in row.items()})
        if rows:
            plot_curves(rows, self.folder / "curves.png", title=self.folder.name)

    def close(self) -> None:
        self._bar.close()
        self._board.close()


class Silent(Progress):
    """Of a process that is not the first of several: it tells nothing."""

    def __init__(self) -> None:
        pass

    def add(self, step: int, values: dict[str, float]) -> None:
        pass

    def record(self, step: int, values: dict[str, float]) -> None:
        pass

    def restart_clock(self, step: int) -> None:
        pass

    def say(self, message: str) -> None:
        pass

    def draw(self) -> None:
        pass

    def close(self) -> None:
        pass


def gradient_norm(module: nn.Module) -> float:
    """The L2 norm of all gradients of `module`."""
    return torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None]).item()


def require_finite(step: int, values: dict[str, float], checkpoint: Path) -> None:
    """Stop the run at the first loss or gradient that is not finite.

    Raises:
        RunStopped: names the step, the values, and the checkpoint that is still good.
    """
    if not all(math.isfinite(value) for value in values.values()):
        bad = ", ".join(f"{name} = {value}" for name, value in values.items() if not math.isfinite(value))
        holds = f"'{checkpoint}' holds the last good state" if checkpoint.exists() else "nothing was saved before it"
        raise RunStopped(
            f"step {step}: {bad} is not finite, so the run stopped before the weights took it; {holds}: start a new "
            "run with lower learning rates, a higher r1_gamma, or float32 (--stage1.precision, --stage2.precision)",
            resumable=False,
        )


def report_due(done: int, every: int, total: int) -> bool:
    """Whether a report comes after `done` of `total` steps: each `every`, but none soon before that at the end."""
    return done == total or (done % every == 0 and 2 * (total - done) >= every)


class Timer:
    """True at most once in every `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._last = seconds, time.monotonic()

    def due(self) -> bool:
        if time.monotonic() - self._last < self._seconds:
            return False
        self._last = time.monotonic()
        return True


class Interruption:
    """Set by SIGINT or SIGTERM; the loop looks at it between steps."""

    signal: int | None = None


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Turn SIGINT and SIGTERM into a flag while a run trains; a second signal ends the program at once."""
    interruption = Interruption()

    def note(number: int, frame: FrameType | None) -> None:
        if interruption.signal is not None:
            raise KeyboardInterrupt
        interruption.signal = number

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
