from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
from tiny import visible

import lddgan.cli.main as module
from lddgan.cli.main import COMMANDS, main, run
from lddgan.errors import RunStopped, UserError


def program(*arguments: str, cwd) -> subprocess.CompletedProcess:
    """The program as a user starts it."""
    return subprocess.run(
        [sys.executable, "-c", "from lddgan.cli.main import main; main()", *arguments],
        capture_output=True, text=True, timeout=120, cwd=cwd, env=os.environ | {"LDDGAN_CACHE": str(cwd / "cache")},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "folder", "--data", "no/such/place"), "'no/such/place'"),
        (("sample", "no-such-model", "-n", "0"), "cannot draw 0 images"),
    ],
)
def test_bad_input_is_one_line_on_stderr_and_exit_code_2(tmp_path, arguments, says):
    done = program(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("lddgan: ") and done.stderr.count("\n") == 1 and says in done.stderr
    assert visible(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [([], "COMMAND"), (["trian"], "'trian'"), (["sample"], "MODEL"), (["train"], "name a recipe")],
)
def test_incomplete_commands(arguments, says):
    with pytest.raises(UserError, match=says) as caught:
        run(arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (UserError("mend it"), 2, "lddgan: mend it\n"),
        (RunStopped("diverged"), 1, "lddgan: diverged\n"),
        (RunStopped("stopped", 143), 143, "lddgan: stopped\n"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 0, ""),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "lddgan: the disk is full"),
    ],
)
def test_exit_codes(monkeypatch, capsys, error, code, says):
    def fail(arguments):
        raise error

    monkeypatch.setattr(module, "run", fail)
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == code
    printed = capsys.readouterr().err
    assert printed.startswith(says) and printed.count("\n") == (1 if says else 0)


def test_faults_of_ours_are_not_hidden(monkeypatch):
    def fail(arguments):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(module, "run", fail)
    with pytest.raises(OSError):
        main()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as exit:
        run([command, "--help"])
    assert exit.value.code == 0 and f"usage: lddgan {command}" in capsys.readouterr().out
