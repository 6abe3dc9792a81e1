from __future__ import annotations

import json

import numpy as np
from image_files import encode, picture, random_image, write

from lddgan.data.inspect import inspect_data


def mixed_set(tmp_path):
    files = {
        "train/a/1.png": picture(0, side=10),
        "train/a/2.png": picture(1, side=20),
        "train/b/1.png": picture(0, side=10),
        "train/b/text.png": b"text",
        "test/b/1.png": picture(0, side=10),
        "test/b/2.png": encode(random_image("L", (40, 30))),
    }
    return write(tmp_path / "set", files)


def test_report(tmp_path):
    report = inspect_data(mixed_set(tmp_path))
    assert (report.count, report.splits) == (6, {"train": 4, "test": 2})
    assert (report.widths, report.heights) == ((10, 10, 40), (10, 10, 30))
    assert report.channels == {"grey": 1, "RGB": 4}
    assert report.classes == {"a": 2, "b": 4}
    assert report.broken == [("train/b/text.png", "no known image format")]
    assert report.duplicates == [["test/b/1.png", "train/a/1.png", "train/b/1.png"]]
    assert report.leaked == 1
    assert report.contact_sheet.shape == (5, 40, 40, 3) and report.contact_sheet.dtype == np.uint8


def test_report_as_json_and_text(tmp_path):
    report = inspect_data(mixed_set(tmp_path))
    facts = json.loads(json.dumps(report.as_json()))
    assert facts["broken"] == [{"name": "train/b/text.png", "reason": "no known image format"}]
    assert facts["splits"] == {"train": 4, "test": 2} and "contact_sheet" not in facts
    text = report.as_text()
    assert "6 images (4 train, 2 test)" in text
    assert "10 to 40 px, median 10" in text
    assert "2: a 2, b 4" in text
    assert "1: 'train/b/text.png' (no known image format)" in text
    assert "1 group (1 in both splits): 'test/b/1.png' = 'train/a/1.png' = 'train/b/1.png'" in text


def test_long_lists_are_cut_in_the_text_only(tmp_path):
    report = inspect_data(write(tmp_path / "x", {f"{i}.png": b"text%d" % i for i in range(13)}))
    assert "13: " in report.as_text() and "and 3 more" in report.as_text()
    assert len(report.as_json()["broken"]) == 13
    assert (report.widths, report.channels, len(report.contact_sheet)) == ((0, 0, 0), {}, 0)


def test_contact_sheet_shows_digits_spread_over_the_set():
    report = inspect_data("digits")
    assert report.splits == {"train": 1717, "test": 80}
    assert report.contact_sheet.shape == (64, 8, 8, 1)
    assert report.classes["3"] == 183 and report.duplicates == [] and report.broken == []
