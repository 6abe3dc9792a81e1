"""Draws docs/images/method.svg, the training of LDDGAN (after the paper's Fig. 1): `python docs/figures/method.py`."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

INK, FAINT = "#2d3748", "#718096"
FIXED, TRAINED, DATA, LOSS = "#ebf8ff", "#c6f6d5", "#fffaf0", "#fed7d7"
OUT = Path(__file__).parents[1] / "images" / "method.svg"


def box(axes: Axes, x: float, y: float, text: str, colour: str, width: float = 1.5, height: float = 0.7) -> None:
    axes.add_patch(
        FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0.04,rounding_size=0.12",
                       facecolor=colour, edgecolor=INK, linewidth=1)
    )  # fmt: skip
    axes.text(x, y, text, ha="center", va="center", fontsize=9.5, color=INK)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "", curve: float = 0) -> None:
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color=FAINT, linewidth=1.3,
                        connectionstyle=f"arc3,rad={curve}")
    )  # fmt: skip
    if text:
        axes.text((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.14, text, ha="center", fontsize=8.5, color=FAINT)


def main() -> None:
    figure = Figure(figsize=(10.5, 4.9), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 13), ylim=(0.3, 6), aspect="equal")
    axes.axis("off")
    box(axes, 1.0, 4.6, "image", DATA)
    box(axes, 3.2, 4.6, "space\nencode", FIXED)
    box(axes, 5.2, 4.6, "$x_0$", DATA, 0.8)
    box(axes, 7.2, 4.6, "$x_t$", DATA, 0.8)
    box(axes, 9.3, 4.6, "$x_{t+1}$", DATA, 0.9)
    box(axes, 9.3, 2.6, "generator\n$G(x_{t+1}, t, z)$", TRAINED, 2.0, 0.9)
    box(axes, 6.4, 2.6, "$x_0'$", DATA, 0.8)
    box(axes, 6.4, 1.0, "$x_t'$", DATA, 0.8)
    box(axes, 9.3, 1.0, "discriminator\n$D(\\cdot, t, x_{t+1})$", TRAINED, 2.0, 0.9)
    box(axes, 12.0, 1.0, "Eq. 5, 6\nR1", LOSS, 1.3, 0.9)
    box(axes, 4.2, 2.6, "$\\lambda \\cdot L_1$\nEq. 7, 9", LOSS, 1.3, 0.9)
    box(axes, 2.4, 1.0, "space\ndecode", FIXED)
    box(axes, 0.8, 1.0, "sample", DATA, 1.1)
    arrow(axes, (1.8, 4.6), (2.4, 4.6))
    arrow(axes, (4.0, 4.6), (4.75, 4.6))
    arrow(axes, (5.65, 4.6), (6.75, 4.6), "noise")
    arrow(axes, (7.65, 4.6), (8.8, 4.6), "one step")
    arrow(axes, (9.3, 4.2), (9.3, 3.1))
    arrow(axes, (12.0, 2.6), (10.35, 2.6), "z")
    arrow(axes, (8.25, 2.6), (6.85, 2.6))
    arrow(axes, (6.4, 2.2), (6.4, 1.4))
    axes.text(6.5, 1.75, "posterior", fontsize=8.5, color=FAINT)
    arrow(axes, (6.85, 1.0), (8.25, 1.0), "drawn")
    arrow(axes, (7.2, 4.2), (8.5, 1.5), curve=0.12)
    axes.text(7.5, 3.55, "real", fontsize=8.5, color=FAINT)
    arrow(axes, (9.8, 4.3), (10.2, 1.5), curve=-0.45)
    arrow(axes, (10.35, 1.0), (11.3, 1.0))
    arrow(axes, (5.95, 2.6), (4.9, 2.6))
    arrow(axes, (5.0, 4.2), (4.4, 3.1))
    arrow(axes, (5.95, 1.0), (3.2, 1.0), "T times, from noise, to draw")
    arrow(axes, (1.6, 1.0), (1.4, 1.0))
    legend = ((0.6, FIXED, "pixels, Haar bands, or an autoencoder"), (6.2, TRAINED, "trained"), (9.0, LOSS, "losses"))
    for x, colour, text in legend:
        box(axes, x, 5.6, "", colour, 0.4, 0.25)
        axes.text(x + 0.35, 5.6, text, va="center", fontsize=8.5, color=INK)
    figure.savefig(OUT)


if __name__ == "__main__":
    main()
