"""`lddgan data`: look at a set of images before training on it."""

from __future__ import annotations

import json as json_format
from pathlib import Path

import tyro

from lddgan.data.inspect import inspect_data
from lddgan.reports.grid import check_image_path, save_grid


def data(path: tyro.conf.Positional[str], out: Path = Path("contact_sheet.png"), json: bool = False) -> None:
    """Show what a set of images holds: count, splits, sizes, channels, classes, broken files, exact duplicates.

    Args:
        path: a folder of images, a zip, an LMDB, or one of cifar10, stl10 and digits.
        out: where to write the contact sheet, an image of up to 64 images of the set.
        json: print the report as JSON, with every name.
    """
    check_image_path(out)
    report = inspect_data(path)
    readable = len(report.contact_sheet) > 0
    if readable:
        save_grid(report.contact_sheet, out)
    if json:
        print(json_format.dumps(report.as_json() | {"contact_sheet": str(out) if readable else None}, indent=2))
    else:
        print(report.as_text())
        print(f"sheet       {out if readable else 'not written, no image is readable'}")
