from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lddgan.cli.data import main
from lddgan.errors import UserError


def make_folder(root: Path) -> Path:
    root.mkdir()
    for i in range(3):
        Image.fromarray(np.full((12, 12, 3), 40 * i, np.uint8)).save(root / f"{i}.png")
    return root


def run(*arguments: str | Path) -> None:
    main([str(argument) for argument in arguments])


def test_text_and_contact_sheet(tmp_path, capsys):
    sheet = tmp_path / "deep" / "sheet.png"
    run(make_folder(tmp_path / "x"), "--out", sheet)
    printed = capsys.readouterr().out
    assert "3 images (2 train, 1 test)" in printed and "RGB 3" in printed and str(sheet) in printed
    image = np.asarray(Image.open(sheet))
    assert image.shape == (2 * 50 + 2, 2 * 50 + 2, 3)  # 12 px enlarged four times, two by two
    assert [image[10, 10, 0], image[10, 60, 0], image[60, 10, 0], image[60, 60, 0]] == [0, 40, 80, 255]


def test_json(tmp_path, capsys):
    run(make_folder(tmp_path / "x"), "--json", "--out", tmp_path / "sheet.png")
    facts = json.loads(capsys.readouterr().out)
    assert (facts["count"], facts["channels"], facts["widths"]) == (3, {"RGB": 3}, [12, 12, 12])
    assert facts["contact_sheet"] == str(tmp_path / "sheet.png")


def test_no_readable_image_still_reports(tmp_path, capsys):
    (tmp_path / "x").mkdir()
    (tmp_path / "x/1.png").write_text("text")
    run(tmp_path / "x", "--out", tmp_path / "sheet.png")
    assert "1: '1.png' (no known image format)" in capsys.readouterr().out
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(("out", "says"), [("x", "/x'"), ("sheet.txt", "/sheet.txt'"), ("file/sheet.png", "/file'")])
def test_bad_output(tmp_path, out, says):
    make_folder(tmp_path / "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=says):
        run(tmp_path / "x", "--out", tmp_path / out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "x"]


def test_bad_input_leaves_nothing(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("../1.png", b"")
    for path in (tmp_path / "missing", tmp_path / "x.zip"):
        with pytest.raises(UserError, match=path.name):
            run(path, "--out", tmp_path / "new" / "sheet.png")
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]
