"""`lddgan data PATH`: look at a set of images before training on it: count, splits, sizes, channels, classes, broken
files, exact duplicates, and a contact sheet."""

from __future__ import annotations

import json
from pathlib import Path

from lddgan.cli.main import Parser
from lddgan.data.inspect import inspect_data
from lddgan.reports.grid import check_image_path, save_grid


def main(arguments: list[str]) -> None:
    parser = Parser(prog="lddgan data", description=__doc__)
    parser.add_argument("path", help="a folder or zip of images, an LMDB, or cifar10, stl10, digits")
    parser.add_argument("--out", type=Path, default=Path("contact_sheet.png"), help="where the contact sheet goes")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with every name")
    options = parser.parse_args(arguments)

    check_image_path(options.out)
    report = inspect_data(options.path)
    readable = len(report.contact_sheet) > 0
    if readable:
        save_grid(report.contact_sheet, options.out)
    if options.json:
        print(json.dumps(report.as_json() | {"contact_sheet": str(options.out) if readable else None}, indent=2))
    else:
        print(report.as_text())
        print(f"sheet       {options.out if readable else 'not written, no image is readable'}")
