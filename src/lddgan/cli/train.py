"""`lddgan train RECIPE|CONFIG.yaml`: the stages of a run (autoencoder, slim decoder, diffusion GAN)."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import yaml

from lddgan import recipes
from lddgan.cli.main import Parser
from lddgan.config import STAGES, Config, dump_yaml, field_names, load_yaml, with_fields
from lddgan.data.prepare import describe
from lddgan.errors import UserError
from lddgan.run import resume_run, start_run
from lddgan.runtime.device import DEVICES
from lddgan.runtime.parallel import speaks


def main(arguments: list[str]) -> None:
    parser = Parser(
        prog="lddgan train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False, epilog="any field of the config (see --dry-run):\n  --" + "\n  --".join(field_names()),
    )  # fmt: skip
    parser.add_argument("target", nargs="?", metavar="RECIPE|CONFIG.yaml", help="see `lddgan recipes`")
    parser.add_argument("--data", help="a folder or zip of images, an LMDB, or cifar10, stl10, digits")
    parser.add_argument("--out", type=Path, help="the run folder (default: runs/RECIPE)")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with a run that was stopped")
    parser.add_argument("--init", metavar="MODEL", help="start from a trained model's weights (fine-tuning)")
    parser.add_argument(
        "--stage", choices=STAGES, help="train this alone; the others' weights come from --init or --autoencoder"
    )
    parser.add_argument(
        "--autoencoder", metavar="PATH|NAME",
        help="take this one and train none: a run or model, a released .ckpt, a diffusers folder or hub name",
    )  # fmt: skip
    parser.add_argument("--skip-broken", action="store_true", help="leave unreadable images out")
    parser.add_argument("--dry-run", action="store_true", help="print the config and what the run would cost")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    options, rest = parser.parse_known_args(arguments)

    if options.resume:
        others = (options.target, rest, options.data, options.init, options.out, options.dry_run, options.stage,
                  options.autoencoder)  # fmt: skip
        if any(others):
            raise UserError(f"--resume {options.resume} takes the run as it is: give no recipe, data or field with it")
        resume_run(options.resume, device=options.device, skip_broken=options.skip_broken)
        return
    if options.target is None:
        raise UserError("lddgan train: name a recipe or a config.yaml, or --resume a run; see lddgan recipes")
    config, given = resolve(options.target, options.data, rest), {}
    if options.stage:
        config = with_fields(config, {"stages": [options.stage]})
    if options.autoencoder:
        from lddgan.interop.given import given_autoencoder

        config, given["autoencoder"] = given_autoencoder(options.autoencoder, config)
    if options.dry_run:
        from lddgan.estimate import estimate

        print(dump_yaml(config), end="")
        print(estimate(config, options.device))
        return
    folder = options.out or Path("runs") / config.recipe
    start_run(
        config, folder, device=options.device, skip_broken=options.skip_broken, init=options.init, given=given
    )  # fmt: skip
    if not speaks():
        return
    if (folder / "model").exists():
        print(f"done: the model is '{folder / 'model'}', draw with: lddgan sample {folder} -n 64 --out samples.png")
    else:
        print(f"done: go on with: lddgan train {options.target} --autoencoder {folder}")


def resolve(target: str, data: str | None, overrides: list[str]) -> Config:
    """A recipe's name or a YAML file, with `--field value` overrides, to a config.

    Raises:
        UserError: unknown recipe, missing file, unknown field (with a suggestion) or bad value.
    """
    values = _parse_overrides(overrides)
    if target.endswith((".yaml", ".yml")):
        config = load_yaml(target)
    elif target == "folder":
        if not data:
            raise UserError("the recipe 'folder' needs images: give --data PATH")
        facts = describe(data)
        channels = values.get("images.channels", facts.channels)
        if channels is None:
            raise UserError(f"'{data}' mixes grey, RGB or RGBA images: choose with --images.channels 1, 3 or 4")
        short_side, resolution = min(facts.widths[1], facts.heights[1]), values.get("images.resolution")
        if channels not in (1, 3, 4) or not isinstance(resolution, int | None):
            raise UserError(f"--images.channels {channels} must be 1, 3 or 4, --images.resolution {resolution} whole")
        config = recipes.folder(data, facts.count, channels, short_side, resolution)
    else:
        config = recipes.recipe(target)
    if data:
        config = dataclasses.replace(config, data=data)
    return with_fields(config, values)


def _parse_overrides(arguments: list[str]) -> dict[str, Any]:
    """`--a.b 1 --c=x,y` to `{"a.b": 1, "c": ["x", "y"]}`; values are YAML."""
    values: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        name = rest.pop(0)
        if not name.startswith("--"):
            raise UserError(f"'{name}' is one argument too many: fields are set with --field VALUE")
        name, equals, text = name[2:].partition("=")
        if not equals:
            if not rest:
                raise UserError(f"--{name} has no value: give one after it")
            text = rest.pop(0)
        try:
            value = yaml.safe_load(f"[{text}]" if "," in text and text[0] not in "[{" else text)
        except yaml.YAMLError:
            raise UserError(f"--{name} {text} cannot be read: give a number, a word, or a list like 1,2,2") from None
        values[name.replace("-", "_")] = value
    return values
