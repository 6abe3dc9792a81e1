from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from lddgan.errors import UserError
from lddgan.reports.curves import COLOURS, _groups, plot_curves, smooth


def test_smoothing_keeps_straight_lines_and_averages_noise():
    line = np.linspace(-3.0, 5.0, 200)
    np.testing.assert_allclose(smooth(line)[5:-5], line[5:-5], atol=1e-12)
    assert smooth(line)[0] == pytest.approx(line[:6].mean())
    noise = np.random.default_rng(0).normal(size=2000)
    assert smooth(noise)[100:-100].std() == pytest.approx(101**-0.5, rel=0.25)  # half a window of 50 to each side


def test_smoothing_leaves_gaps_out():
    values = np.full(100, 2.0)
    values[50] = np.nan
    expected = np.full(100, 2.0)
    expected[50] = np.nan
    np.testing.assert_allclose(smooth(values), expected)


def test_columns_are_grouped_by_prefix_in_order_of_appearance():
    rows = [{"step": 0, "loss/g": 1.0, "lambda": 1.0}, {"step": 1, "loss/d": 2.0, "psnr/heldout": 3.0, "loss/g": 1.0}]
    assert _groups(rows) == {"loss": ["loss/g", "loss/d"], "lambda": ["lambda"], "psnr": ["psnr/heldout"]}


def colour_share(path, colour: str) -> float:
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return float((np.abs(pixels - wanted).max(axis=-1) < 12).mean())


def test_picture_holds_one_panel_per_group_and_one_colour_per_column(tmp_path):
    rows = [{"step": i, "loss/generator": 1 + i, "loss/discriminator": math.nan if i == 7 else -i} for i in range(100)]
    plot_curves(rows, tmp_path / "one.png", "one")
    one = Image.open(tmp_path / "one.png")
    assert colour_share(tmp_path / "one.png", COLOURS[0]) > 0.001
    assert colour_share(tmp_path / "one.png", COLOURS[1]) > 0.001
    assert colour_share(tmp_path / "one.png", COLOURS[2]) == 0
    plot_curves([{**row, "a": 1.0, "b": 1.0, "c": 1.0} for row in rows], tmp_path / "four.png", "four")
    four = Image.open(tmp_path / "four.png")
    assert four.width > 2.5 * one.width and four.height > 1.5 * one.height  # three across, two down
    assert sorted(path.name for path in tmp_path.iterdir()) == ["four.png", "one.png"]


def test_columns_that_never_hold_a_finite_value_and_single_rows_are_drawn(tmp_path):
    plot_curves([{"step": 5, "loss/g": math.inf, "lambda": 0.5}], tmp_path / "x.png", "x")
    assert colour_share(tmp_path / "x.png", COLOURS[0]) > 0


@pytest.mark.parametrize("scale", [1e-7, 9e-4, 0.09, 9.0, 9e4, 9e8])
def test_labels_stay_within_the_picture(scale, tmp_path):
    rows = [{"step": step, "loss": (-1) ** step * scale * step / 7} for step in range(8)]
    plot_curves(rows, tmp_path / "curves.png", "title")
    assert (np.asarray(Image.open(tmp_path / "curves.png").convert("L"))[:, :4] == 255).all()


def test_nothing_to_plot_and_an_unwritable_folder_are_errors(tmp_path):
    with pytest.raises(ValueError, match="nothing to plot"):
        plot_curves([{"step": 1}], tmp_path / "x.png", "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="another output path"):
        plot_curves([{"step": 1, "a": 1.0}], tmp_path / "file" / "x.png", "x")
