from __future__ import annotations

import csv
import math

import numpy as np
import pytest
from PIL import Image
from row_files import made_up, save_made_up

from lddgan.reports import figures
from lddgan.reports.figures import FIGURES, as_printed, build_figure
from lddgan.reports.rows import load_rows


def build(name, tmp_path, rows=(), scale="small"):
    save_made_up(tmp_path / "rows", *rows)
    sheet, files = build_figure(name, load_rows(tmp_path / "rows"), scale, tmp_path / "rows", tmp_path / "out")
    assert [file.name for file in files] == [f"{name}.md", f"{name}.csv", f"{name}.png"]
    with open(files[1], newline="") as file:
        lines = list(csv.DictReader(file))
    assert f"]({name}.png)" in files[0].read_text()
    return sheet, lines, np.asarray(Image.open(files[2]).convert("RGB"))


def test_weighted_learning_as_printed_and_as_released(tmp_path):
    sheet, lines, picture = build("fig2", tmp_path)
    first, last = lines[0], lines[-1]
    printed, released = sheet.header[1:3]
    top = 1 / (1 + math.exp(-6))
    assert float(first[printed]) == float(first[released]) == pytest.approx(top, abs=1e-6)
    assert float(last[printed]) == 0.5 and float(last[released]) == pytest.approx(1 - top, abs=1e-6)
    assert float(lines[50][released]) == 0.5 and len(lines) == 101
    # Eq. 9 to the letter
    assert as_printed(0.3, 6) == pytest.approx(1 - 1 / (1 + math.exp(6 - 6 * 0.3)))
    assert picture.shape == (494, 780, 3)


def test_quality_against_time_without_rows(tmp_path):
    _, lines, picture = build("fig3", tmp_path)
    assert (
        len(lines) == 17
        and {"Model": "Ours", "paper: Time (s) ↓": "0.08", "paper: FID ↓": "2.98"}.items() <= lines[0].items()
    )
    assert not any(line["ours: Time (s) ↓"] for line in lines)
    assert picture.shape == (624, 1495, 3)


def test_rows_of_ours_are_never_in_the_panel_of_the_fids(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "_scatter", lambda axes, points, label, colour: drawn.append((label, points)))
    rows = [made_up("weighted"), made_up("weighted", "digits", frechet_distance=3.0), made_up("adversarial")]
    _, lines, _ = build("fig3", tmp_path, rows)
    assert [label for label, _ in drawn] == [
        "FID, as the paper prints it",
        "ours, cifar10: FD[resnet56]\nnot comparable with FID",
        "ours, digits: FD[resnet56]\nnot comparable with FID",
    ]
    assert len(drawn[0][1]) == 17 and [points[0][1:] for _, points in drawn[1:]] == [(0.5, 12.345), (0.5, 3.0)]
    assert [line["ours: Fréchet distance ↓"] for line in lines[17:]] == ["FD[resnet56] 12.35", "FD[resnet56] 3.00"]
    assert "seed 0" in lines[-1]["ours: remark"]


def test_grids_show_rows_side_by_side_and_say_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "SHIPPED", tmp_path / "none")
    rows = [made_up("adversarial"), made_up("weighted")]
    sheet, lines, picture = build("fig4", tmp_path, rows)
    assert [line["System"] for line in lines] == ["AdvLoss", "AdvLoss + RecLoss", "AdvLoss + RecLoss + WL"]
    assert [bool(line["ours: samples"]) for line in lines] == [True, False, True]
    assert lines[1]["ours: remark"] == "not run yet" and "seed 0, images 0 to 39" in lines[0]["ours: samples"]
    greys = {value: (picture == value).all(2) for value in (60, 100)}  # the colours of the two strips
    assert all(mask.mean() > 0.1 for mask in greys.values())
    left, right = (np.argwhere(greys[value])[:, 1].mean() for value in (60, 100))
    assert left < picture.shape[1] / 3 < 2 * picture.shape[1] / 3 < right


def test_the_shipped_models_stand_in_their_places(tmp_path):
    _, lines, _ = build("fig4", tmp_path)
    assert [bool(line["ours: samples"]) for line in lines] == [False, True, False, False, True, False]
    assert "shipped model 'cifar10-small'" in lines[1]["ours: samples"]
    assert "shipped model 'demo'" in lines[4]["ours: samples"]
    assert not any(line["ours: samples"] for line in build("fig4", tmp_path, scale="paper")[1])


@pytest.mark.parametrize("name", ["fig5", "fig6", "fig7"])
def test_figures_without_a_model_say_so(tmp_path, name):
    _, lines, picture = build(name, tmp_path)
    assert lines and not any(line["ours: samples"] for line in lines)
    for line in lines:
        assert line["ours: remark"] in ("256 px: not at the small scale",)
    assert picture.shape[1] == round(4.2 * len(lines) * 130)


def test_the_family_side_by_side_without_stand_ins(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "SHIPPED", tmp_path / "none")
    rows = [made_up("ddgan"), made_up("weighted")]
    _, lines, _ = build("family", tmp_path, rows)
    assert [line["System"].split()[0] for line in lines[:4]] == ["DDGAN", "WDDGAN", "LDDGAN", "LDDGAN,"]
    assert [bool(line["ours: samples"]) for line in lines[:4]] == [True, False, True, False]
    remarks = {line["System"]: [other["ours: remark"] for other in lines if other["System"] == line["System"]]
               for line in lines}  # fmt: skip
    assert not any("digits" in remark for remark in remarks["DDGAN (pixels)"])  # no recipe draws them


def test_predecessors_are_in_the_plot_of_quality_against_time(tmp_path):
    _, lines, _ = build("fig3", tmp_path, [made_up("ddgan"), made_up("weighted")])
    ours = [(line["Model"], line["ours: Time (s) ↓"]) for line in lines if line["ours: Time (s) ↓"]]
    assert ours == [("Ours", "0.5"), ("DDGAN", "0.5")]


def test_a_row_whose_picture_is_gone_leaves_the_panel_blank(tmp_path):
    rows = [made_up("weighted")]
    save_made_up(tmp_path / "rows", *rows)
    (tmp_path / "rows" / f"{rows[0].what.hash}.png").unlink()
    sheet, _ = build_figure("fig4", rows, "small", tmp_path / "rows", tmp_path)
    assert sheet.lines[2][1:] == ["", "its samples are not beside its row"]
    assert sheet.lines[5][1:] == ["", "digits: not run yet"]


def test_all_figures_have_a_builder(tmp_path):
    assert FIGURES == (*(f"fig{number}" for number in range(2, 8)), "family")
