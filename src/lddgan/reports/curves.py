"""The curves of a training run in one picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from lddgan.runtime.files import atomic_write

COLOURS = ("#2b6cb0", "#dd6b20", "#2f855a", "#b83280", "#6b46c1", "#718096")
INK, FAINT = "#2d3748", "#a0aec0"


def plot_curves(rows: Sequence[Mapping[str, float]], path: str | Path, title: str) -> None:
    """Draw the logged columns over "step" to the PNG `path`, one panel per group, whole or not at all.

    Each row has "step" and any numeric columns; a column may be missing from some rows, and a value that is not finite
    leaves a gap. The group of a column is what stands before its first "/" ("loss" for "loss/generator"). Each panel
    shows the values faint and a centred moving average strong; a positive group that spans more than two decades and
    exceeds 1 gets a logarithmic axis (weights that fade from 1 to 0 do not).

    Raises:
        ValueError: no row holds a column beside "step".
        UserError: the folder of `path` cannot be written.
    """
    groups = _groups(rows)
    if not groups:
        raise ValueError("there is nothing to plot: no row has a column beside 'step'")
    across = min(len(groups), 3 if len(groups) <= 9 else 4)
    down = math.ceil(len(groups) / across)
    width, height = 4.2 * across + 0.2, 2.7 * down + 0.5
    figure = Figure(figsize=(width, height), dpi=110, facecolor="white")
    figure.suptitle(title, fontsize=13, fontweight="bold", color=INK, x=0.012, ha="left")
    # Margins for labels of up to seven characters: to measure each would take as long as all the drawing.
    figure.subplots_adjust(
        left=0.65 / width, right=1 - 0.15 / width, bottom=0.5 / height, top=1 - 0.75 / height, wspace=0.2, hspace=0.32
    )
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for (group, columns), panel in zip(groups.items(), axes, strict=False):
        _draw(panel, group, columns, rows)
    for panel in axes[len(groups) :]:
        panel.remove()
    for panel in axes[max(0, len(groups) - across) : len(groups)]:
        panel.set_xlabel("step", fontsize=9, color=INK)
    with atomic_write(path) as temporary:
        figure.savefig(temporary)


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving average over about a twentieth of `values [N]`, cut off at the ends; gaps (NaN) are left out."""
    count = len(values)
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    index, half = np.arange(count), count // 40
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, count)
    with np.errstate(invalid="ignore"):
        average = (sums[high] - sums[low]) / (counts[high] - counts[low])
    return np.where(known, average, np.nan)


def _groups(rows: Sequence[Mapping[str, float]]) -> dict[str, list[str]]:
    """Columns by group, both in the order in which they first appear."""
    groups: dict[str, list[str]] = {}
    for column in dict.fromkeys(column for row in rows for column in row if column != "step"):
        groups.setdefault(column.split("/")[0], []).append(column)
    return groups


def _draw(panel: Axes, group: str, columns: list[str], rows: Sequence[Mapping[str, float]]) -> None:
    drawn = []
    for column, colour in zip(columns, _cycled(len(columns)), strict=True):
        steps, values = np.array([(row["step"], row[column]) for row in rows if column in row], dtype=float).T
        values = np.where(np.isfinite(values), values, np.nan)
        label = column.split("/", 1)[-1] if "/" in column else None
        if len(values) < 40:  # too few to smooth: mark each
            panel.plot(steps, values, color=colour, linewidth=1.5, marker="o", markersize=3, label=label)
            drawn.append(values)
        else:
            panel.plot(steps, values, color=colour, linewidth=0.7, alpha=0.25)
            panel.plot(steps, smooth(values), color=colour, linewidth=1.6, label=label)
            drawn.append(smooth(values))
    title = group.replace("_", " ")
    if len(columns) == 1 and "/" in columns[0]:
        title = f"{title}: {columns[0].split('/', 1)[1].replace('_', ' ')}"
    panel.set_title(title, fontsize=10.5, fontweight="bold", color=INK, loc="left")
    _style(panel, np.concatenate(drawn))
    if len(columns) > 1:
        panel.legend(fontsize=8, frameon=False, labelcolor=INK, handlelength=1.4, loc="best")


def _style(panel: Axes, values: np.ndarray) -> None:
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > max(1.0, 100 * values.min()):
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(numticks=6))
        panel.yaxis.set_minor_formatter(NullFormatter())
    elif len(values) and not 0.01 <= np.abs(values).max() < 1e5:
        panel.yaxis.set_major_formatter(EngFormatter(sep=""))  # its labels stay short
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.grid(True, color="#e2e8f0", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(FAINT)
    panel.tick_params(labelsize=8, color=FAINT, labelcolor=INK)
    panel.margins(x=0.02)


def _cycled(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]
