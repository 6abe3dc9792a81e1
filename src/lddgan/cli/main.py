"""`lddgan COMMAND ...`: one file per command; here they are only found, and their errors become sentences."""

from __future__ import annotations

import argparse
import errno
import importlib
import keyword
import sys
from typing import NoReturn

from lddgan.errors import RunStopped, UserError
from lddgan.runtime.memory import keep_freed_memory

COMMANDS = {
    "demo": "train on real handwritten digits in minutes and look at the samples",
    "train": "train a recipe, or resume a run",
    "sample": "draw images from a model",
    "evaluate": "score a model's samples, or any set of images, against a reference set",
    "serve": "a page that draws in real time, morphs, varies and fills in",
    "cost": "parameters, multiply-accumulates and memory of a model or recipe",
    "import": "turn a released checkpoint of DDGAN, WDDGAN or LDDGAN into a model",
    "export": "the whole sampler as ONNX, a torch.export program, OpenVINO, or a web page",
    "report": "one self-contained page about a run",
    "bench": "how fast a model draws, by the protocol of the paper",
    "reproduce": "the paper's tables and figures, ours beside theirs",
    "recipes": "list the recipes and what they cost",
    "data": "look at a set of images",
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are `UserError`s."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}; see {self.prog} --help")


def run(arguments: list[str]) -> None:
    """Run one command. Raises UserError or RunStopped."""
    lines = "\n".join(f"  {name:8}  {text}" for name, text in COMMANDS.items())
    parser = Parser(
        prog="lddgan", description="Latent Denoising Diffusion GAN.", epilog=f"commands:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    command = parser.parse_args(arguments[:1]).command
    module = command + "_" * keyword.iskeyword(command)
    importlib.import_module(f"lddgan.cli.{module}").main(arguments[1:])


def main() -> None:
    """The entry point of the program: exit code 2 for bad input, 1 or 128 + signal for a run that stopped."""
    keep_freed_memory()
    try:
        run(sys.argv[1:])
    except UserError as error:
        print(f"lddgan: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except RunStopped as stop:
        print(f"lddgan: {stop}", file=sys.stderr)
        raise SystemExit(stop.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        raise SystemExit(0) from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"lddgan: the disk is full ({error}): free space and try again", file=sys.stderr)
        raise SystemExit(1) from None
