"""Figures 2 to 7 and the family from what is there: formulas, the paper's tables, finished rows, shipped models."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, NullFormatter
from PIL import Image

from lddgan.config import from_dict
from lddgan.gan.objective import weighted_learning
from lddgan.models import SHIPPED
from lddgan.pipeline import Pipeline
from lddgan.reports.curves import COLOURS, FAINT, INK
from lddgan.reports.grid import image_grid
from lddgan.reports.published import Panel, paper_grid, paper_table
from lddgan.reports.rows import Row, by_seeds, mean_row
from lddgan.reports.sheets import Sheet, save_text
from lddgan.reports.tables import describe_row, group_name, matching, row_name, stand_ins, why_blank
from lddgan.runtime.files import atomic_write

FIGURES = ("fig2", "fig3", "fig4", "fig5", "fig6", "fig7", "family")
DELTA = 6.0
"""Of the published runs; the paper does not say which its Fig. 2 shows."""
POINTS = 101
GRID_IMAGES, GRID_COLUMNS, GRID_SEED = 40, 8, 0
PANEL_SIDE = 4.2
SHIPPED_SETS = {"cifar10": "cifar10", "cifar10-small": "cifar10", "demo": "digits"}
"""Recipe of a shipped model -> set."""


def build_figure(name: str, rows: Sequence[Row], scale: str, rows_folder: Path, out: Path) -> tuple[Sheet, list[Path]]:
    """Write `OUT/NAME.png`, the numbers or sources behind it as `.csv`, and `.md` that shows both.

    Returns:
        The numbers or sources, and the files.

    Raises:
        UserError: the folder cannot be written.
    """
    picture = out / f"{name}.png"
    if name == "fig2":
        sheet = _weighted_learning(picture)
    elif name == "fig3":
        sheet = _trade_off(rows, scale, picture)
    else:
        sheet = _sample_grids(name, rows, scale, rows_folder, picture)
    save_text(out / f"{name}.csv", sheet.csv())
    save_text(out / f"{name}.md", sheet.markdown(picture.name))
    return sheet, [out / f"{name}{suffix}" for suffix in (".md", ".csv", ".png")]


def as_printed(progress: float, delta: float) -> float:
    """Eq. 9 to the letter: phi runs from -delta to 0, so lambda ends at 1/2; `progress` in [0, 1]."""
    return weighted_learning(progress / 2, delta)  # the first half of the released curve


def _weighted_learning(picture: Path) -> Sheet:
    progress = np.linspace(0, 1, POINTS)
    curves = {
        "as printed (Eq. 9)": [as_printed(value, DELTA) for value in progress],
        "as released": [weighted_learning(value, DELTA) for value in progress],
    }
    figure = Figure(figsize=(6.0, 3.8), dpi=130, layout="constrained", facecolor="white")
    axes = figure.subplots()
    for (label, values), colour, style in zip(curves.items(), COLOURS[1::-1], ("--", "-"), strict=True):
        axes.plot(
            progress, values, color=colour, linestyle=style, linewidth=2, label=f"{label}: ends at {values[-1]:.3g}"
        )
    axes.set(ylim=(-0.02, 1.04))
    axes.set_xlabel("epoch / number of epochs", color=INK)
    axes.set_ylabel("λ, weight of the reconstruction loss", color=INK)
    axes.set_title(f"Weighted Learning, δ = {DELTA:g}", loc="left", fontweight="bold", color=INK, fontsize=11)
    axes.legend(frameon=False, labelcolor=INK, loc="lower left")
    _style(axes)
    _save(figure, picture)
    lines = [
        [f"{x:.2f}", *(f"{value:.6f}" for value in values), ""]
        for x, *values in zip(progress, *curves.values(), strict=True)
    ]
    return Sheet(
        "Figure 2", "Weighted Learning: the weight of the reconstruction loss over the training.",
        ["epoch / number of epochs", *curves, "ours: remark"], lines, [2, 3],
        ["As printed, phi ends at 0, against the paper's own text and Fig. 2, where lambda approaches zero; as "
         "released it ends at +delta. We train as released.",
         f"delta = {DELTA:g} is that of the published runs; the paper does not say which Fig. 2 shows."],
    )  # fmt: skip


def _trade_off(rows: Sequence[Row], scale: str, picture: Path) -> Sheet:
    """The paper's Table 3 with our rows in a panel of their own: their score is another."""
    lines = [
        [row.labels[0], seconds, fid, "", "", ""]
        for row in paper_table("table3").rows
        for fid, _, _, seconds in [row.values]
        if fid and seconds
    ]
    theirs = [(line[0].split(" [")[0], float(line[1]), float(line[2])) for line in lines]
    ours: dict[str, list[tuple[str, float, float]]] = {}
    sources = {}
    for printed in paper_table("table3").rows:
        for group in by_seeds(matching(rows, scale, printed.set, printed.system)):
            row = mean_row(group)
            assert row.speed is not None
            own = printed.labels[0].split(" [")[0]
            seconds, score = float(row.speed["batch_seconds"]), float(row.scores["frechet_distance"])
            ours.setdefault(f"{row.what.set}: {row.scores['score']}", []).append((own, seconds, score))
            lines.append([own, "", "", f"{seconds:.4g}", f"{row.scores['score']} {score:.2f}", group_name(group)])
            sources |= {row_name(row): describe_row(row) for row in group}

    figure = Figure(figsize=(7.5 + 4.0 * max(1, len(ours)), 4.8), dpi=130, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 1 + max(1, len(ours)), width_ratios=[1.9, *[1.0] * max(1, len(ours))])
    _scatter(panels[0], theirs, "FID, as the paper prints it", COLOURS[0])
    panels[0].set_yscale("log")
    panels[0].set_yticks([2, 3, 5, 10, 20], ["2", "3", "5", "10", "20"])
    panels[0].yaxis.set_minor_formatter(NullFormatter())
    for panel, (score, points) in zip(panels[1:], ours.items(), strict=False):
        remark = "" if score.endswith(": FID") else "\nnot comparable with FID"
        _scatter(panel, points, f"ours, {score}{remark}", COLOURS[1])
    if not ours:
        _blank(panels[1], f"Ours, {scale} scale: not run yet")
    figure.draw_without_rendering()
    for panel in panels[: 1 + len(ours)]:
        _spread_labels(panel)
    _save(figure, picture)
    return Sheet(
        f"Figure 3, {scale} scale", "Sample quality against sampling time on CIFAR-10: rows of Table 3 that have both.",
        ["Model", "paper: Time (s) ↓", "paper: FID ↓", "ours: Time (s) ↓", "ours: Fréchet distance ↓", "ours: remark"],
        lines, [3, 4, 5],
        ["Times are of batches of 100 images, the paper's on its GPUs, ours on the hardware of the row."], sources,
    )  # fmt: skip


def _sample_grids(name: str, rows: Sequence[Row], scale: str, rows_folder: Path, picture: Path) -> Sheet:
    """The systems side by side, each in its column; sets that stand in for the paper's lie below it."""
    grid = paper_grid(name)
    sets = [stand_ins(panel.set, panel.system) for panel in grid.panels]
    lines, sources = [], {}
    cells: list[tuple[str, Image.Image | str] | None] = []
    for level in range(max(map(len, sets))):
        found = [
            _pictures(panel, names[level], rows, scale, rows_folder) if level < len(names) else []
            for panel, names in zip(grid.panels, sets, strict=True)
        ]
        deepest = max(map(len, found))
        for depth in range(max(deepest, 1 if level == 0 else 0)):
            for panel, names, pictures in zip(grid.panels, sets, found, strict=True):
                if depth < len(pictures):
                    subtitle, image, source = pictures[depth]
                    cells.append((f"{panel.title}\n{subtitle}", image))
                    samples = f"{subtitle}, seed {GRID_SEED}, images 0 to {GRID_IMAGES - 1}"
                    lines.append([panel.title, samples, subtitle])
                    sources[subtitle] = source
                elif depth > 0:
                    cells.append(None)
                else:
                    where = f"{names[level]}: " if 0 < level < len(names) else ""
                    why = where + why_blank(panel.set, panel.missing, scale)
                    known = {row.what.set for row in matching(rows, scale, panel.set, panel.system)}
                    if not pictures and level < len(names) and names[level] in known:
                        why = f"{where}its samples are not beside its row"
                    cells.append((panel.title, why))
                    lines.append([panel.title, "", why])
    across = len(grid.panels)
    down = len(cells) // across
    figure = Figure(
        figsize=(PANEL_SIDE * across, (PANEL_SIDE * 0.62 + 0.62) * down + 0.3), dpi=130, layout="constrained",
        facecolor="white",
    )  # fmt: skip
    for axes, cell in zip(figure.subplots(down, across, squeeze=False).flat, cells, strict=True):
        if cell is None:
            axes.remove()
            continue
        title, content = cell
        if isinstance(content, str):
            _blank(axes, content)
            axes.set_box_aspect(GRID_IMAGES / GRID_COLUMNS / GRID_COLUMNS)
        else:
            axes.imshow(np.asarray(content.convert("RGB")), interpolation="nearest")
            axes.axis("off")
        axes.set_title(title, fontsize=9.5, color=INK)
    figure.suptitle(f"{grid.title}, {scale} scale", x=0.01, ha="left", fontsize=11.5, fontweight="bold", color=INK)
    _save(figure, picture)
    return Sheet(
        f"{grid.title}, {scale} scale", grid.caption, ["System", "ours: samples", "ours: remark"], lines, [1, 2],
        [f"The same image number is the same noise in all panels of a set and recipe: images 0 to {GRID_IMAGES - 1} of "
         f"seed {GRID_SEED}, none picked."], sources,
    )  # fmt: skip


def _pictures(
    panel: Panel, set_name: str | None, rows: Sequence[Row], scale: str, folder: Path
) -> list[tuple[str, Image.Image, str]]:
    """Title, samples and source of every row (its first seed) and, at the small scale, shipped model for `panel`."""
    found = []
    for row, *_ in by_seeds(matching(rows, scale, panel.set, panel.system)):
        file = folder / f"{row.what.hash}.png"
        if row.what.set == set_name and file.exists():
            side = row.config["images"]["resolution"]
            found.append((row_name(row), _strip(np.asarray(Image.open(file)), side), describe_row(row)))
    for model in sorted(SHIPPED.iterdir()) if SHIPPED.is_dir() and scale == "small" else ():
        file = model / "config.json"
        config = from_dict(json.loads(file.read_text()), f"'{file}'") if file.exists() else None
        if config and SHIPPED_SETS.get(config.recipe) == set_name and config.stage2.objective == panel.system:
            images = Pipeline.from_pretrained(model, device="cpu")(GRID_IMAGES, GRID_SEED)
            source = f"recipe {config.recipe}, training seed {config.seed}, as shipped"
            title = f"{set_name}, shipped model '{model.name}'"
            found.append((title, image_grid(images, GRID_COLUMNS), source))
    return found


def _strip(sheet: np.ndarray, side: int) -> Image.Image:
    """The images of a row's strip (no gaps) as a grid with gaps."""
    high, wide = sheet.shape[0] // side, sheet.shape[1] // side
    tiles = sheet.reshape(high, side, wide, side, -1).transpose(0, 2, 1, 3, 4).reshape(high * wide, side, side, -1)
    return image_grid(tiles[:GRID_IMAGES], GRID_COLUMNS)


def _scatter(axes: Axes, points: list[tuple[str, float, float]], label: str, colour: str) -> None:
    for name, seconds, score in points:
        own = name == "Ours"
        axes.scatter([seconds], [score], s=60 if own else 26, color=COLOURS[1] if own else colour,
                     marker="*" if own else "o", zorder=3)  # fmt: skip
        axes.annotate(name, (seconds, score), (6, 0), textcoords="offset points", fontsize=8, color=INK, va="center",
                      fontweight="bold" if own else "normal")  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.2, y=0.12)
    axes.set_xlabel("seconds for 100 images", color=INK)
    axes.set_title(label, loc="left", fontsize=10, fontweight="bold", color=INK)
    _style(axes)


def _spread_labels(axes: Axes) -> None:
    """Move each label to the first of a few places where it hits neither a point, nor a label, nor the frame."""
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    labels = [child for child in axes.get_children() if isinstance(child, Annotation)]
    centres = [axes.transData.transform(label.xy) for label in labels]
    frame, taken = axes.get_window_extent(renderer), []
    places = [(x, y) for distance in (0, 8, 16) for x in (6, -6, 0) for y in (distance, -distance) if x or y]
    for label in labels:
        for x, y in places:
            label.set_position((x, y))
            label.set_horizontalalignment("left" if x > 0 else "right" if x < 0 else "center")
            box = label.get_window_extent(renderer)
            own = axes.transData.transform(label.xy)
            free = not any(box.overlaps(other) for other in taken) and not any(
                box.padded(3).contains(*centre) for centre in centres if tuple(centre) != tuple(own)
            )
            if free and box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0 and box.y1 <= frame.y1:
                break
        taken.append(label.get_window_extent(renderer).padded(1))


def _blank(axes: Axes, why: str) -> None:
    axes.set(xticks=[], yticks=[], facecolor="#f7fafc")
    axes.spines[:].set(color=FAINT, linestyle=":")
    axes.text(0.5, 0.5, textwrap.fill(why, 30), ha="center", va="center", fontsize=9.5, color="#718096",
              transform=axes.transAxes)  # fmt: skip


def _style(axes: Axes) -> None:
    axes.grid(True, color="#e2e8f0", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(labelsize=8.5, color=FAINT, labelcolor=INK)


def _save(figure: Figure, picture: Path) -> None:
    with atomic_write(picture) as temporary:
        figure.savefig(temporary)
