"""`lddgan reproduce NAME ...`: the paper's tables and figures from the rows that are finished, ours beside theirs.

With --run the rows that are missing are trained and measured first; stopped at any moment, the same command goes on.
What is still missing is left blank, with a word why. Output: OUT/SCALE/NAME.md, .csv and .png; rows: OUT/rows.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from lddgan.cli.main import Parser
from lddgan.errors import UserError
from lddgan.metrics.features import NETWORKS, load_features
from lddgan.reports.experiments import SETS, Plan, run_rows, wanted
from lddgan.reports.figures import FIGURES, build_figure
from lddgan.reports.published import TABLES
from lddgan.reports.rows import load_rows
from lddgan.reports.tables import build_table
from lddgan.runtime.device import DEVICES, resolve_device
from lddgan.runtime.files import ensure_folder

NAMES = (*TABLES, *FIGURES)
FEATURES = {"small": "efficientnet-lite0", "paper": "inception"}


def main(arguments: list[str]) -> None:
    parser = Parser(prog="lddgan reproduce", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME", help="table1 to table12, fig2 to fig7, family, or all")
    parser.add_argument("--scale", default="small", choices=tuple(SETS), help="two CPU cores, or the paper's recipes")
    parser.add_argument("--run", action="store_true", help="first train and measure the rows that are missing")
    parser.add_argument(
        "--data", nargs="+", metavar="SET[=PATH]",
        help="the sets to run, and where their images are: cifar10, digits; at the paper's scale cifar10, celebahq256, "
        "lsun-church256 (default: cifar10; a bare PATH is a copy of it)",
    )  # fmt: skip
    parser.add_argument(
        "--features", choices=NETWORKS, help="network of the scores (efficientnet-lite0; paper: inception)"
    )
    parser.add_argument("--features-weights", type=Path, metavar="PATH", help="its weights, instead of a download")
    parser.add_argument("--seed", type=int, default=0, help="of stage 2; the autoencoder is shared")
    parser.add_argument("--work", type=Path, default=Path("runs/reproduce"), help="where runs are kept")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="default docs/results")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    names = _chosen(options.names)
    sets = parse_data(options.data or ["cifar10"], options.scale)
    if options.seed < 0:
        raise UserError(f"--seed {options.seed} must not be negative: give another")
    if options.run:
        device = resolve_device(options.device)
        network = load_features(options.features or FEATURES[options.scale], options.features_weights, device)
        for name, path in sets.items():
            systems = [system for set_name, system in wanted(names, options.scale) if set_name == name]
            plan = Plan(
                options.scale, name, path, options.seed, options.work, options.out, network, options.device
            )  # fmt: skip
            with contextlib.redirect_stdout(sys.stderr):  # what training tells is no part of the result
                run_rows(plan, systems)
    elif options.data or options.features or options.features_weights or options.seed:
        raise UserError(
            "--data, --features, --features-weights and --seed say what to run: add --run, or leave them out"
        )

    rows_folder = options.out / "rows"
    rows, folder = load_rows(rows_folder), ensure_folder(options.out / options.scale)
    result = {}
    for name in names:
        if name in TABLES:
            sheet = build_table(name, rows, options.scale)
            files = sheet.save(folder / name)
        else:
            sheet, files = build_figure(name, rows, options.scale, rows_folder, folder)
        result[name] = sheet.json() | {"files": [str(file) for file in files]}
        if not options.json:
            print(
                f"{name:<8} {sheet.filled:>3} of {len(sheet.lines):>3} lines hold ours   {files[-1].with_suffix('')}.*"
            )
    if options.json:
        print(json.dumps({"scale": options.scale, "rows": len(rows), **result}))


def parse_data(values: Sequence[str], scale: str) -> dict[str, str]:
    """`["cifar10=images.zip", "digits"]` to set -> path.

    Raises:
        UserError: a set that the scale has not, or one given twice.
    """
    found: dict[str, str] = {}
    for value in values:
        name, equals, path = value.partition("=")
        if not equals:
            name, path = (value, value) if value in SETS[scale] else ("cifar10", value)
        if name not in SETS[scale] or not path:
            raise UserError(f"--data {value}: give SET=PATH with SET one of {', '.join(SETS[scale])}")
        if not equals and name not in ("cifar10", "digits"):
            raise UserError(f"--data {value}: that set is not fetched, give {name}=PATH")
        if name in found:
            raise UserError(f"--data names {name} twice: give one path for it")
        found[name] = path
    return found


def _chosen(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in (*NAMES, "all"):
            close = difflib.get_close_matches(name, NAMES, n=1)
            hint = f"did you mean '{close[0]}'?" if close else "choose table1 to table12, fig2 to fig7, family, or all"
            raise UserError(f"there is no '{name}' in the paper to reproduce: {hint}")
    return list(NAMES) if "all" in names else list(dict.fromkeys(names))
