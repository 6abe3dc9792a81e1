"""Tables 1 to 12: the paper's numbers, ours beside them, blanks with a word why."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from lddgan.recipes import recipe
from lddgan.reports.published import PaperRow, PaperTable, paper_table
from lddgan.reports.rows import Row, by_seeds, mean_row
from lddgan.reports.sheets import Sheet
from lddgan.reports.values import cost_value, discriminator_layers, heading, recipe_field, run_value

STAND_INS = {"cifar10": ("cifar10", "digits")}
"""Sets whose rows are shown in the place of a set of the paper; without an entry it is that set alone."""
PREDECESSORS = ("ddgan", "wddgan")
FAMILY = (*PREDECESSORS, "uvit-tiny", "uvit-mid", "uvit-large")
"""Systems that are no setting of LDDGAN's recipe; no other set stands in for theirs."""
SMALL_SETS = ("cifar10",)
REMARK = "ours: remark"


def build_table(name: str, rows: Sequence[Row], scale: str) -> Sheet:
    """`table1` to `table12` with those of `rows` that are of `scale`."""
    table = paper_table(name)
    if any(column.recipe for column in table.columns):
        return _from_recipes(table)
    values = [column.ours for column in table.columns if column.ours] + table.ours
    header = [
        *table.labels, *(f"paper: {column.name}" for column in table.columns),
        *(f"ours: {heading(value)}" for value in values), REMARK,
    ]  # fmt: skip
    lines, sources = [], {}
    for printed in table.rows:
        theirs = [*printed.labels, *("-" if value is None else value for value in printed.values)]
        found = matching(rows, scale, printed.set, printed.system)
        blank = [*theirs, *[""] * len(values)]
        if printed.recipe:
            costs = [cost_value(value, printed.recipe) for value in values]
            lines.append([*theirs, *costs, f"recipe {printed.recipe}"])
        elif not found or found[0].what.set != printed.set:
            lines.append([*blank, why_blank(printed.set, printed.missing or table.missing, scale)])
        for number, (row, name) in enumerate(_with_means(found)):
            autoencoder = _autoencoder_of(row, rows)
            beside = number == 0 and row.what.set == printed.set
            shown = theirs if beside else [*_own_labels(table, printed, row), *[""] * len(table.columns)]
            lines.append([*shown, *(run_value(value, row, autoencoder) for value in values), name])
            sources[row_name(row)] = describe_row(row)
            if autoencoder and any(value.startswith("autoencoder.") for value in values):
                sources[row_name(autoencoder)] = describe_row(autoencoder)
    first = len(table.labels) + len(table.columns)
    runs = any(printed.set for printed in table.rows)  # what is counted is the same at any scale
    return Sheet(
        f"{table.title}, {scale} scale" if runs else table.title, table.caption, header, lines,
        list(range(first, len(header))), _notes(table, lines, scale), sources,
    )  # fmt: skip


def matching(rows: Sequence[Row], scale: str, set_name: str | None, system: str | None) -> list[Row]:
    """Rows of ours that belong beside a row of the paper, those of its own set first."""
    return [
        row
        for name in stand_ins(set_name, system)
        for row in rows
        if (row.what.scale, row.what.set, row.what.system) == (scale, name, system)
    ]


def stand_ins(set_name: str | None, system: str | None) -> tuple[str | None, ...]:
    """The sets of ours whose rows are shown in the place of the paper's."""
    return (set_name,) if system in FAMILY else STAND_INS.get(set_name or "", (set_name,))


def _own_labels(table: PaperTable, printed: PaperRow, row: Row) -> list[str]:
    """Of a line of ours alone: its own set, so that nothing reads as if it had been measured on the paper's."""
    if "Dataset" not in table.labels:
        return [f"{label} ({row.what.set})" for label in printed.labels]
    shown = {**dict(zip(table.labels, printed.labels, strict=True)), "Dataset": row.what.set}
    return [shown[name] if name in ("Dataset", "Model", "Autoencoder") else "" for name in table.labels]


def _with_means(rows: Sequence[Row]) -> Iterator[tuple[Row, str]]:
    """Rows and their names; before those of several seeds their mean."""
    for group in by_seeds(rows):
        if len(group) > 1:
            yield mean_row(group), group_name(group)
        for row in group:
            yield row, row_name(row)


def group_name(rows: Sequence[Row]) -> str:
    """Of the mean of rows that differ in their seed alone, with the deviation between them."""
    if len(rows) == 1:
        return row_name(rows[0])
    deviation = statistics.stdev(row.scores["frechet_distance"] for row in rows)
    return f"{rows[0].what.set}, mean of {len(rows)} seeds (distance ± {deviation:.2f})"


def row_name(row: Row) -> str:
    return f"{row.what.set}, row {row.what.hash[:8]}"


def describe_row(row: Row) -> str:
    """One sentence with all that a reader must know before comparing it."""
    scores, training = row.scores, row.training
    if row.what.system.startswith("autoencoder"):
        trained = f"autoencoder of {row.config['recipe']}, {training['epochs']} epochs of stage 1"
    else:
        minutes = f", {training['minutes']:.1f} minutes" if training["minutes"] is not None else ""
        objective = row.config["stage2"]["objective"]
        trained = f"{row.config['recipe']}, objective {objective}, {training['epochs']} epochs of stage 2"
        trained += f" ({training['steps']:,} steps{minutes}), its last weights"
    text = f"{trained}, seed {row.seed}, trained on {training['images']:,} images ({row.what.data_sha256[:8]}); "
    text += f"{scores['score']} of {scores['n_samples']:,} images against {scores['n_reference']:,} of the "
    text += f"{scores['reference']['split']} split; {row.hardware}"
    if row.speed:
        text += f"; time: batches of {row.speed['batch']}, mean of {row.speed['trials']}, on {row.speed['hardware']}"
    return text


def _from_recipes(table: PaperTable) -> Sheet:
    """Tables 8 to 10: each column of the paper with the recipe's value right of it."""
    header, ours = list(table.labels), []
    for column in table.columns:
        header += [f"paper: {column.name}", f"ours: {column.recipe}"]
        ours.append(len(header) - 1)
    for extra in table.ours:
        header.append(f"ours: {extra}")
        ours.append(len(header) - 1)
    header.append(REMARK)
    lines = [[*printed.labels, *_recipe_cells(printed, table)] for printed in table.rows]
    return Sheet(table.title, table.caption, header, lines, [*ours, len(header) - 1], list(table.notes))


def _recipe_cells(printed: PaperRow, table: PaperTable) -> Iterator[str]:
    differs = []
    for column, value in zip(table.columns, printed.values, strict=True):
        mine = _recipe_cell(printed, str(column.recipe))
        yield "-" if value is None else value
        yield mine
        if mine and value is not None and mine != value:
            differs.append(column.name)
    for extra in table.ours:
        yield _recipe_cell(printed, extra)
    yield f"differs: {', '.join(differs)}" if differs else printed.missing or ""


def _recipe_cell(printed: PaperRow, recipe_name: str) -> str:
    if printed.layer:
        return discriminator_layers(recipe(recipe_name)).get(printed.layer, "")
    return recipe_field(printed.field, recipe_name) if printed.field else ""


def why_blank(set_name: str | None, missing: str | None, scale: str) -> str:
    """A word on a place where nothing of ours stands; `missing` is for what has no set."""
    if not set_name:
        return missing or ""
    return "256 px: not at the small scale" if scale == "small" and set_name not in SMALL_SETS else "not run yet"


def _autoencoder_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """The row of the autoencoder that `row` was trained on, scored in the same features."""
    parts = ("images", "autoencoder", "stage1")
    for other in rows:
        if (
            other.what.system.startswith("autoencoder")
            and (other.what.scale, other.what.set, other.what.data_sha256)
            == (row.what.scale, row.what.set, row.what.data_sha256)
            and other.scores["score"] == row.scores["score"]
            and all(other.config[part] == row.config[part] for part in parts)
        ):
            return other
    return None


def _notes(table: PaperTable, lines: list[list[str]], scale: str) -> list[str]:
    notes = list(table.notes)
    if any("FD[" in cell for line in lines for cell in line):
        notes.append(
            "FD[network] is a Fréchet distance in that network's features: it compares with others of the same name, "
            "number of samples and reference, never with an FID."
        )
    if scale == "small" and any(row.set in SMALL_SETS for row in table.rows):
        notes.append(
            "Small scale: stage 2 of small recipes, each for as many steps as fit in 15 minutes on two CPU cores; "
            "latents are of one autoencoder. The paper trains a day on a GPU: compare our rows with each other only."
        )
    return notes
