"""The paper's tables and figures as data: `paper/*.yaml`, with what of ours belongs beside each row."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

FOLDER = Path(__file__).parent / "paper"
TABLES = tuple(f"table{number}" for number in range(1, 13))
GRIDS = ("fig4", "fig5", "fig6", "fig7", "family")


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(_Data):
    """A column of the paper, and what of ours stands beside it: a value (`lddgan.reports.values`), or in the tables
    that are printed from the recipes a recipe."""

    name: str
    ours: str | None = None
    recipe: str | None = None


class PaperRow(_Data):
    """A row as printed; None where the paper has no number. Ours is a run (`set` and `system`), the cost of a `recipe`,
    a `field` of recipes, or a `layer` of their discriminators; `missing` says why there is none."""

    labels: list[str]
    values: list[str | None]
    set: str | None = None
    system: str | None = None
    recipe: str | None = None
    field: str | None = None
    layer: str | None = None
    missing: str | None = None


class PaperTable(_Data):
    title: str
    caption: str
    labels: list[str]
    columns: list[Column]
    ours: list[str] = Field(default_factory=list)
    """Further values of ours, or recipes, that the paper has no column for."""
    missing: str = ""
    """Why rows have nothing of ours, where they do not say so themselves."""
    notes: list[str] = Field(default_factory=list)
    rows: list[PaperRow]

    @model_validator(mode="after")
    def _rectangular(self) -> PaperTable:
        for row in self.rows:
            if len(row.labels) != len(self.labels) or len(row.values) != len(self.columns):
                raise ValueError(f"{self.title}: the row {row.labels} has not the table's columns")
        return self


class Panel(_Data):
    title: str
    set: str | None = None
    system: str | None = None
    missing: str | None = None


class Grid(_Data):
    title: str
    caption: str
    panels: list[Panel]


@cache
def paper_table(name: str) -> PaperTable:
    """`table1` to `table12`."""
    return PaperTable.model_validate(_read(name))


@cache
def paper_grid(name: str) -> Grid:
    """`fig4` to `fig7`, or `family`."""
    return Grid.model_validate(_read("figures")[name])


def _read(name: str) -> Any:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
