"""Warnings that wait until a finding lasts, and are then said once."""

from __future__ import annotations

PATIENCE = 3
"""Findings in a row before a warning: one row of a young run says little."""


class Warnings:
    """Turns rows of training curves and measures into warnings, each said once for as long as it lasts."""

    def __init__(self) -> None:
        self._in_a_row: dict[str, int] = {}

    def say(self, warning: str, found: bool, patience: int = PATIENCE) -> list[str]:
        """The warning, in a list, when it was `found` for the `patience`-th time in a row; else an empty list.

        Two warnings that differ only from the first bracket on are the same one.
        """
        key = warning.split("(")[0]
        self._in_a_row[key] = self._in_a_row.get(key, 0) + 1 if found else 0
        return [f"warning: {warning}"] if self._in_a_row[key] == patience else []
