"""Files that are either whole or absent."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from lddgan.errors import UserError


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it to `path`.

    On any exception (a full disk included) the temporary file goes and an older `path` stays as it was.
    The temporary name keeps the suffix, since some writers choose the format by it.

    Raises:
        UserError: the folder of `path` cannot be made or written.
    """
    path = Path(path)
    ensure_folder(path.parent)
    temporary = path.with_name(f".{path.stem}.{uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # safetensors makes its files private; a model is to be shared
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other processes that want to make `path` waiting, by a lock beside it; they are not kept on Windows."""
    lock = path.with_suffix(".lock")
    with open(lock, "a") as file:
        with contextlib.suppress(ImportError):
            fcntl = importlib.import_module("fcntl")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
        with contextlib.suppress(OSError):  # it stays where `path` was not made: others may be waiting
            lock.unlink()


def remove_leftovers(folder: str | Path) -> None:
    """Remove, anywhere in `folder`, the temporary files of writers that were killed."""
    for path in Path(folder).rglob(".*"):
        if re.fullmatch(r"\..+\.[0-9a-f]{8}(\.[^.]*)?", path.name) and path.is_file():
            path.unlink(missing_ok=True)


def ensure_folder(folder: str | Path) -> Path:
    """Make `folder` (parents included) and return it.

    Raises:
        UserError: it cannot be made, is a file, or is not writable.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder '{folder}' ({error.strerror}): choose another output path") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"the folder '{folder}' is not writable: choose another output path")
    return folder
