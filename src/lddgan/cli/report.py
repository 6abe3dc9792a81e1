"""`lddgan report RUN`: one self-contained page about a run, finished or not."""

from __future__ import annotations

from pathlib import Path

from lddgan.cli.main import Parser
from lddgan.errors import UserError
from lddgan.metrics.features import NETWORKS
from lddgan.reports.page import write_report
from lddgan.runtime.device import DEVICES

SAMPLES = 2000


def main(arguments: list[str]) -> None:
    parser = Parser(prog="lddgan report", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("--out", type=Path, metavar="PATH.html", help="default RUN/report.html")
    parser.add_argument("--features", choices=NETWORKS, help="measure the model's samples in this feature network")
    parser.add_argument("--features-weights", type=Path, metavar="PATH", help="its weights, instead of a download")
    parser.add_argument("--n", type=int, help=f"samples that --features measures (default {SAMPLES:,})")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    options = parser.parse_args(arguments)
    if not options.features and (options.features_weights or options.n is not None):
        raise UserError("lddgan report: --features-weights and --n go with --features: name a network with it")
    samples = SAMPLES if options.n is None else options.n
    if samples < 1:
        raise UserError(f"cannot measure {samples} samples: give a positive number")
    page = write_report(options.run, options.device, samples, options.features, options.features_weights, options.out)
    print(f"written to '{page}'")
