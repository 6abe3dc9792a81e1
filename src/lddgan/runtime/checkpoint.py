"""All that a run needs to go on, registered once and saved together."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch

from lddgan.errors import RunStopped, UserError, first_line
from lddgan.runtime.files import atomic_write


class Stateful(Protocol):
    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


class Checkpoint:
    """The parts of a run (networks, optimisers, averages, trackers) and the file they rest in.

    Random states and the data order are functions of (seed, step) and need no saving (`lddgan.runtime.seeds`).
    """

    def __init__(
        self, path: str | Path, identity: dict[str, str], unsaid: dict[str, str] | None = None, **parts: Stateful
    ) -> None:
        """`identity` names what must not have changed at a resume: name of the thing -> its value or hash; `unsaid`
        tells what stands for a name that an older checkpoint does not have."""
        self.path, self.identity, self.unsaid = Path(path), identity, unsaid or {}
        self._parts = parts

    def save(self, step: int) -> None:
        """Write everything, after `step` steps, atomically.

        Raises:
            RunStopped: it could not be written (disk full); the older checkpoint is intact.
        """
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        state = {"step": step, "identity": self.identity, "parts": parts}
        try:
            with atomic_write(self.path) as temporary:
                torch.save(state, temporary)
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise RunStopped(
                f"could not save '{self.path}' at step {step} ({reason}): the checkpoint before it is intact; "
                "free space and resume"
            ) from error

    def load(self, device: torch.device) -> int:
        """Restore every part and return the number of steps done (0 when there is no file yet).

        Raises:
            UserError: the file is damaged, or config or data are not those that it was made with.
        """
        if not self.path.exists():
            return 0
        try:
            state = torch.load(self.path, map_location=device, weights_only=True)
            was = {**self.unsaid, **state["identity"]}
            changed = [name for name in self.identity if self.identity[name] != was.get(name)]
            if changed:
                name = changed[0]
                raise UserError(
                    f"cannot resume from '{self.path}': {name} was {was.get(name)} and is now {self.identity[name]}; "
                    "change it back, or start a new run with --init"
                )
            for name, part in self._parts.items():
                part.load_state_dict(state["parts"][name])
        except UserError:
            raise
        except Exception as error:  # damaged bytes make the unpickler raise nearly anything
            raise UserError(
                f"the checkpoint '{self.path}' cannot be read ({first_line(error)}): start a new run"
            ) from error
        return int(state["step"])


class Best:
    """The best value of a measure so far, and where it was seen. Smaller is better."""

    def __init__(self) -> None:
        self.value, self.step = float("inf"), 0

    def improve(self, value: float, step: int) -> bool:
        """Whether `value` is the new best."""
        if not value < self.value:  # so that not-a-number is none
            return False
        self.value, self.step = value, step
        return True

    def state_dict(self) -> dict[str, float]:
        return {"value": self.value, "step": self.step}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.value, self.step = state["value"], int(state["step"])
