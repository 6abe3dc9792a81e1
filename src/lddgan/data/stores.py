"""Where image bytes lie: a folder, a zip, an LMDB or an array. A store reads and decodes one key at a time.

Handles are opened on first use and once per process: a forked worker that shared its parent's zip handle would
move the parent's file position, and an LMDB may not be opened twice in one process.
"""

from __future__ import annotations

import hashlib
import math
import os
import weakref
import zipfile
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from lddgan.data.images import BrokenImage, decode_image, read_header
from lddgan.errors import UserError

MAX_BYTES = 1 << 30  # an image file above 1 GiB is taken for a zip bomb


class Store(Protocol):
    """Reads what lies under a key. All three methods raise `BrokenImage` where that is no readable image."""

    def read(self, key: Any) -> bytes: ...
    def decode(self, key: Any) -> Image.Image: ...
    def header(self, key: Any) -> tuple[int, int, int]: ...


def digest(store: Store, key: Any) -> str:
    """SHA-256 (hex) of the bytes under `key`; bytes that cannot be read are told apart by their key."""
    try:
        return hashlib.sha256(store.read(key)).hexdigest()
    except BrokenImage:
        return hashlib.sha256(b"unreadable " + repr(key).encode()).hexdigest()


class EncodedStore:
    """A store whose values are image files."""

    def read(self, key: Any) -> bytes:
        raise NotImplementedError

    def decode(self, key: Any) -> Image.Image:
        return decode_image(self.read(key))

    def header(self, key: Any) -> tuple[int, int, int]:
        return read_header(self.read(key))


class FolderStore(EncodedStore):
    """Keys are paths of image files relative to `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, key: str) -> bytes:
        try:
            return (self.root / key).read_bytes()
        except OSError as error:
            raise BrokenImage(error.strerror or str(error)) from error


class ZipStore(EncodedStore):
    """Keys are member names, read in place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_zip": None, "_process": 0}

    def open(self) -> zipfile.ZipFile:
        if self._zip is None or self._process != os.getpid():
            try:
                self._zip, self._process = zipfile.ZipFile(self.path), os.getpid()
            except (OSError, zipfile.BadZipFile) as error:
                raise UserError(f"'{self.path}' is not a readable zip archive ({error}): make it again") from error
        return self._zip

    def read(self, key: str) -> bytes:
        try:
            archive = self.open()
            if archive.getinfo(key).file_size > MAX_BYTES:
                raise BrokenImage("more than 1 GiB, it may be a zip bomb")
            return archive.read(key)
        except (UserError, BrokenImage):
            raise
        except Exception as error:  # a damaged or encrypted member: BadZipFile, zlib.error, RuntimeError, EOFError
            raise BrokenImage(str(error)) from error


_environments: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
_environments_process = os.getpid()


def _open_lmdb(path: Path) -> Any:
    global _environments_process
    import lmdb

    if _environments_process != os.getpid():  # forked: let the parent's go, for LMDBs do not survive it
        for environment in list(_environments.values()):
            environment.close()
        _environments.clear()
        _environments_process = os.getpid()
    place = str(path.resolve())
    environment = _environments.get(place)
    if environment is None:
        try:
            environment = lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False)
        except lmdb.Error as error:
            raise UserError(f"'{path}' is not a readable LMDB ({error}): copy it again") from error
        _environments[place] = environment
    return environment


class LmdbStore:
    """Keys are the LMDB's. Values are image files, or, as in the CelebA-HQ LMDBs, raw RGB bytes of a square."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._environment: Any = None
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_environment": None, "_process": 0}

    def open(self) -> Any:
        if self._environment is None or self._process != os.getpid():
            self._environment, self._process = _open_lmdb(self.path), os.getpid()
        return self._environment

    def keys(self) -> list[bytes]:
        with self.open().begin() as transaction:
            return [bytes(key) for key in transaction.cursor().iternext(values=False)]

    def read(self, key: bytes) -> bytes:
        import lmdb

        try:
            with self.open().begin() as transaction:
                data = transaction.get(key)
        except lmdb.Error as error:
            raise BrokenImage(str(error)) from error
        if data is None:
            raise BrokenImage("no such key")
        return data

    def decode(self, key: bytes) -> Image.Image:
        data = self.read(key)
        side = raw_side(data)
        return Image.frombytes("RGB", (side, side), data) if side else decode_image(data)

    def header(self, key: bytes) -> tuple[int, int, int]:
        data = self.read(key)
        side = raw_side(data)
        return (side, side, 3) if side else read_header(data)


def raw_side(data: bytes) -> int:
    """Side of the square whose raw RGB bytes `data` are; 0 where they are none.

    An encoded image whose length is by chance 3 * side^2 is told by the signature that every format begins with.
    """
    side = math.isqrt(len(data) // 3)
    if len(data) == 0 or 3 * side * side != len(data):
        return 0
    try:
        read_header(data)
    except BrokenImage:
        return side
    return 0


class ArrayStore:
    """Keys are positions in uint8 images `[N, H, W]` or `[N, H, W, C]`; `raw` holds the bytes that are hashed."""

    def __init__(self, images: np.ndarray, raw: np.ndarray | None = None) -> None:
        self.images = images
        self.raw = images if raw is None else raw

    def read(self, key: int) -> bytes:
        return self.raw[key].tobytes()

    def decode(self, key: int) -> Image.Image:
        return Image.fromarray(np.ascontiguousarray(self.images[key]))

    def header(self, key: int) -> tuple[int, int, int]:
        height, width = self.images.shape[1:3]
        return width, height, self.images.shape[3] if self.images.ndim == 4 else 1
