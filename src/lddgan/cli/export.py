"""`lddgan export MODEL --to FORM`: the whole sampler for another engine, checked against this one."""

from __future__ import annotations

from pathlib import Path

from lddgan.cli.main import Parser
from lddgan.export.model import FORMATS, LEVELS, TIMED, export_model
from lddgan.pipeline import Pipeline
from lddgan.runtime.device import describe
from lddgan.spaces.latent import DECODERS


def main(arguments: list[str]) -> None:
    parser = Parser(prog="lddgan export", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="a model or run folder, or the name of a shipped model")
    parser.add_argument("--to", required=True, choices=FORMATS, help="the engine's form")
    parser.add_argument("--out", type=Path, help="file or folder (default: named after the model, in this folder)")
    parser.add_argument("--half", action="store_true", help="weights in float16 (a torch program stays as large)")
    parser.add_argument("--decoder", choices=DECODERS, help="slim (the default where the model has one) or full")
    options = parser.parse_args(arguments)
    pipe = Pipeline.from_pretrained(options.model, "cpu", options.decoder)
    out = options.out or Path(Path(options.model).resolve().name + FORMATS[options.to][1])
    done = export_model(pipe, options.to, out, half=options.half)
    print(
        f"'{done.path}', {done.megabytes:.1f} MB: at most {done.levels} grey levels off the Python sampler (allowed: "
        f"{LEVELS})\nmilliseconds an image, batches of {TIMED}: {options.to} {done.engine_ms:.2f}, Python "
        f"{done.python_ms:.2f} ({done.python_ms / done.engine_ms:.2f} times as fast), {describe(pipe.device)}"
    )
