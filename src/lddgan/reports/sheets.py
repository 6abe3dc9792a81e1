"""A finished table, and its forms: Markdown, CSV and PNG."""

from __future__ import annotations

import csv
import dataclasses
import io
import textwrap
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lddgan.reports.curves import FAINT, INK
from lddgan.runtime.files import atomic_write

OURS_HEADER, OURS_CELL, PAPER_HEADER, STRIPE = "#bee3f8", "#ebf8ff", "#e2e8f0", "#f7fafc"
HEADER_WRAP, WRAP = 20, 34
"""Characters of a line in a cell of the PNG."""
SIZE, LINE, PAD, DPI = 9.0, 0.19, 0.09, 130
"""Points, and inches of a line and around a text."""


@dataclasses.dataclass(frozen=True)
class Sheet:
    """Cells as text. `ours` are the indices of the columns that are not the paper's; the last one holds remarks.

    `sources` gives the whole story of a row of ours by the short name that stands in its remark; all forms print it.
    """

    title: str
    caption: str
    header: list[str]
    lines: list[list[str]]
    ours: list[int]
    notes: list[str] = dataclasses.field(default_factory=list)
    sources: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def filled(self) -> int:
        """How many lines hold a value of ours."""
        return sum(any(line[index] for index in self.ours[:-1]) for line in self.lines)

    def markdown(self, picture: str | None = None) -> str:
        """`picture` names a file that is shown above the table."""
        lines = [f"# {self.title}", "", self.caption, ""]
        if picture:
            lines += [f"![{self.title}]({picture})", ""]
        lines += ["| " + " | ".join(map(_escape, self.header)) + " |", "|" + "---|" * len(self.header)]
        lines += ["| " + " | ".join(map(_escape, line)) + " |" for line in self.lines]
        lines += [""] + [f"- {note}" for note in self._all_notes()]
        return "\n".join(lines).rstrip() + "\n"

    def csv(self) -> str:
        """Every line by itself: the remark carries the whole source."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(self.header)
        for line in self.lines:
            writer.writerow(
                [*line[:-1], f"{line[-1]}: {self.sources[line[-1]]}" if line[-1] in self.sources else line[-1]]
            )
        return buffer.getvalue()

    def json(self) -> dict[str, Any]:
        return {
            "title": self.title, "caption": self.caption,
            "rows": [dict(zip(self.header, line, strict=True)) for line in self.lines],
            "notes": self.notes, "sources": self.sources,
        }  # fmt: skip

    def save_png(self, path: str | Path) -> None:
        """Draw the table; columns of ours are tinted.

        Raises:
            UserError: the folder cannot be written.
        """
        cells = [[textwrap.wrap(cell, HEADER_WRAP) for cell in self.header]]
        cells += [[textwrap.wrap(cell, WRAP) or [""] for cell in line] for line in self.lines]
        figure = Figure(figsize=(1, 1), dpi=DPI, facecolor="white")
        canvas = FigureCanvasAgg(figure)
        widths = [
            max(_inches(canvas, text, index == 0) for index, row in enumerate(cells) for text in row[column]) + 2 * PAD
            for column in range(len(self.header))
        ]
        heights = [max(map(len, row)) * LINE + PAD for row in cells]
        width = max(sum(widths), 5.0) + 0.4
        below = [
            part for note in self._all_notes() for part in textwrap.wrap(note, int(width * 15), subsequent_indent="  ")
        ]
        above = textwrap.wrap(self.caption, int(width * 13.5))
        height = 0.55 + LINE * (len(above) + len(below)) + sum(heights) + 0.4
        figure.set_size_inches(width, height)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        axes.text(0.2, 0.28, self.title, fontsize=12.5, fontweight="bold", color=INK, va="center")
        y = 0.5
        for text in above:
            axes.text(0.2, y + LINE / 2, text, fontsize=SIZE, color=INK, va="center")
            y += LINE
        y += 0.08
        for index, (row, tall) in enumerate(zip(cells, heights, strict=True)):
            x = 0.2
            for column, wide in enumerate(widths):
                mine = column in self.ours
                shade = (OURS_HEADER if mine else PAPER_HEADER) if index == 0 else OURS_CELL if mine else STRIPE
                if index == 0 or mine or index % 2:
                    axes.add_patch(Rectangle((x, y), wide, tall, facecolor=shade, linewidth=0))
                for number, text in enumerate(row[column]):
                    middle = y + tall / 2 + (number - (len(row[column]) - 1) / 2) * LINE
                    axes.text(x + PAD, middle, text, fontsize=SIZE, color=INK, va="center",
                              fontweight="bold" if index == 0 else "normal")  # fmt: skip
                x += wide
            y += tall
            axes.plot([0.2, x], [y, y], color=FAINT, linewidth=1.0 if index == 0 else 0.3)
        y += 0.1
        for text in below:
            axes.text(0.2, y + LINE / 2, text, fontsize=SIZE - 1, color="#4a5568", va="center")
            y += LINE
        with atomic_write(path) as temporary:
            figure.savefig(temporary)

    def save(self, stem: Path) -> list[Path]:
        """`STEM.md`, `STEM.csv` and `STEM.png`."""
        save_text(stem.with_suffix(".md"), self.markdown())
        save_text(stem.with_suffix(".csv"), self.csv())
        self.save_png(stem.with_suffix(".png"))
        return [stem.with_suffix(suffix) for suffix in (".md", ".csv", ".png")]

    def _all_notes(self) -> list[str]:
        return [*self.notes, *(f"{name}: {text}" for name, text in self.sources.items())]


def save_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|")


def _inches(canvas: FigureCanvasAgg, text: str, bold: bool) -> float:
    """Width of `text` as drawn."""
    artist = canvas.figure.text(0, 0, text or " ", fontsize=SIZE, fontweight="bold" if bold else "normal")
    width = artist.get_window_extent(canvas.get_renderer()).width / DPI  # type: ignore[arg-type]
    artist.remove()
    return width
