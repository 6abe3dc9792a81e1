"""`lddgan serve MODEL`: a page that draws in real time, on this machine alone unless told otherwise."""

from __future__ import annotations

from pathlib import Path

from lddgan.cli.main import Parser
from lddgan.errors import UserError
from lddgan.pipeline import Pipeline
from lddgan.runtime.device import DEVICES


def main(arguments: list[str]) -> None:
    parser = Parser(prog="lddgan serve", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="a model or run folder, or the name of a shipped model")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets others in")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--device", default="auto", choices=DEVICES)
    options = parser.parse_args(arguments)
    if not 0 < options.port < 65536:
        raise UserError(f"--port {options.port} is not between 1 and 65535: give another")
    from lddgan.web.app import build_app, launch

    pipe = Pipeline.from_pretrained(options.model, options.device)
    launch(build_app(pipe, Path(options.model).resolve().name), options.host, options.port)
