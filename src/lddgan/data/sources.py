"""Sources of images, chosen by what the path is, with their splits and class labels."""

from __future__ import annotations

import os
import re
import unicodedata
import zipfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from lddgan.data.digits import load_digits, scale_digits
from lddgan.data.stores import ArrayStore, FolderStore, LmdbStore, Store, ZipStore, digest
from lddgan.errors import UserError

Split = Literal["train", "test", "all"]

SUFFIXES = frozenset(".png .jpg .jpeg .jpe .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm .jp2 .avif .tga .ico".split())
HELD_OUT_NAMES = ("test", "val", "validation")
HELD_OUT_SHARE = 0.05
NAMED_SETS = ("cifar10", "stl10", "digits")


class Item(NamedTuple):
    """One image: where it lies, its name, its split (None: decided by content hash) and its label."""

    store: Store
    key: Any
    name: str
    split: str | None = None
    label: int | None = None


class Source:
    """Encoded images in a fixed order. `labels` index `classes`; both are absent (None, []) where there are none."""

    def __init__(self, path: str, items: Sequence[Item], classes: list[str]) -> None:
        self.path = path
        self.items = list(items)
        self.classes = classes
        self.labels: list[int] | None = [item.label or 0 for item in self.items] if classes else None

    def __len__(self) -> int:
        return len(self.items)

    def read(self, index: int) -> bytes:
        """The stored bytes (for arrays and raw LMDBs the pixels). Raises `BrokenImage` where they cannot be read."""
        return self.items[index].store.read(self.items[index].key)

    def decode(self, index: int) -> Image.Image:
        """The image, upright, in mode L, RGB or RGBA. Raises `BrokenImage` where it is none."""
        return self.items[index].store.decode(self.items[index].key)

    def header(self, index: int) -> tuple[int, int, int]:
        """Width, height and channels, without decoding the pixels. Raises `BrokenImage`."""
        return self.items[index].store.header(self.items[index].key)

    def name(self, index: int) -> str:
        return self.items[index].name

    @cached_property
    def hashes(self) -> list[str]:
        """SHA-256 (hex) of the stored bytes of every item; equal images have equal hashes."""
        items = tqdm(self.items, desc="reading", unit=" images", delay=2, disable=None, leave=False)
        return [digest(item.store, item.key) for item in items]

    def subset(self, indices: Sequence[int]) -> Source:
        """The items at `indices`, in that order; hashes that are known already go along."""
        part = Source(self.path, [self.items[i] for i in indices], self.classes)
        if "hashes" in self.__dict__:
            part.__dict__["hashes"] = [self.hashes[i] for i in indices]
        return part


def cache_folder() -> Path:
    """`$LDDGAN_CACHE`, or `~/.cache/lddgan`. Downloads, prepared images and encoded latents go there."""
    return Path(os.environ.get("LDDGAN_CACHE") or Path.home() / ".cache" / "lddgan").expanduser()


def open_source(path: str | Path, split: Split = "train") -> Source:
    """Open the images at `path`: a folder, a zip, an LMDB, or `cifar10`, `stl10` or `digits` by name.

    A name wins over a folder of that name; write `./digits` for the folder. Top-level folders `train` and `test`,
    `val` or `validation` are splits (the last three together are the held-out side, images beside the split folders
    are not taken). Where there is no held-out folder, 5 % is held out by content hash, so that equal images fall on
    one side, and where that leaves a small set without any, the smallest hash is. A single folder around everything
    is looked through. Folders directly below (or below the split folder) are classes when every image lies in
    one and there are at least two. The order is the natural order of the names, the same on every machine.

    Raises:
        UserError: no such path, no images, a damaged or hostile archive, an unknown kind of file, a failed
            download, or an empty split.
    """
    if split not in ("train", "test", "all"):
        raise UserError(f"'{split}' is not a split: choose train, test or all")
    path = str(path)
    items, classes = _named_set(path) if path in NAMED_SETS else _stored_set(path)
    return _select(Source(path, items, classes), split)


def _select(source: Source, split: Split) -> Source:
    if split == "all":
        return source
    indices = split_indices(source, split)
    if not indices and len(source) == 1:
        raise UserError(f"'{source.path}' holds one image only, none can be held out: add more images")
    if not indices:
        raise UserError(f"the {split} split of '{source.path}' holds no images: add some, all different")
    return source.subset(indices)


def split_indices(whole: Source, split: Literal["train", "test"]) -> list[int]:
    """Positions of a split in the source of all images: by its folders if one is held out, else by content hash."""
    if any(item.split == "test" for item in whole.items):
        return [i for i, item in enumerate(whole.items) if item.split == split]
    held_out = hold_out(whole.hashes)
    return [i for i, value in enumerate(whole.hashes) if (value in held_out) == (split == "test")]


def hold_out(hashes: Sequence[str]) -> set[str]:
    """The hashes of the held-out side: those in the first 5 % of all possible hashes, else the smallest.

    Whether an image is held out thus hangs on its content alone, not on its name, its place or (in all but small
    sets) on the other images. One distinct image alone is never held out.
    """
    distinct = set(hashes)
    limit = int(HELD_OUT_SHARE * 2**64)
    chosen = {value for value in distinct if int(value[:16], 16) < limit}
    if len(distinct) < 2:
        return set()
    if len(chosen) == len(distinct):  # a few images, all below the limit: one must be left to train on
        chosen.remove(max(chosen))
    return chosen or {min(distinct)}


def _stored_set(path: str) -> tuple[list[Item], list[str]]:
    place = Path(path).expanduser()
    if not place.exists():
        raise UserError(
            f"'{path}' does not exist: give a folder of images, a zip, an LMDB or one of {', '.join(NAMED_SETS)}"
        )
    lmdbs = _find_lmdbs(place)
    if lmdbs:
        return _lmdb_items(path, lmdbs), []
    if place.is_dir():
        store, names = FolderStore(place), _folder_names(place)
    elif place.suffix.lower() == ".zip" or zipfile.is_zipfile(place):
        store = ZipStore(place)
        names = _zip_names(store, path)
    elif place.suffix.lower() in SUFFIXES:
        raise UserError(f"'{path}' is a single image: give the folder that holds it")
    else:
        raise UserError(f"'{path}' is a file of unknown kind: give a folder of images, a zip or an LMDB")
    items, classes = _lay_out(store, names)
    if not items:
        raise UserError(f"'{path}' holds no images: give a folder or zip with PNG, JPEG or other image files in it")
    return items, classes


def natural_key(name: str) -> list[Any]:
    """Sort key under which `2.png` comes before `10.png`, folder by folder, whatever the machine's locale."""
    parts = []
    for part in unicodedata.normalize("NFC", name).split("/"):
        # Numbers compare by length first: no int(), whose number of digits Python limits.
        pieces = re.split(r"([0-9]+)", part)
        parts.append([(len(p.lstrip("0")), p.lstrip("0")) if i % 2 else (0, p) for i, p in enumerate(pieces)])
    return [parts, name]


def is_image_name(name: str) -> bool:
    """Has the suffix of an image format, and neither it nor a folder above it is hidden or Mac metadata."""
    parts = PurePosixPath(name).parts
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and PurePosixPath(name).suffix.lower() in SUFFIXES


def _folder_names(root: Path) -> list[str]:
    def stop(error: OSError) -> None:
        raise UserError(f"the folder '{error.filename}' cannot be read ({error.strerror}): change its permissions")

    names, seen = [], set()
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=stop):
        real = os.path.realpath(folder)
        if real in seen:  # a link back up would never end
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()
        relative = Path(folder).relative_to(root)
        names += [(relative / file).as_posix() for file in files if is_image_name((relative / file).as_posix())]
    return names


def _zip_names(store: ZipStore, path: str) -> list[str]:
    names = store.open().namelist()
    for name in names:
        parts = name.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or re.match(r"[A-Za-z]:", name):
            raise UserError(f"'{path}' has the member '{name}', which points outside the archive: make the zip again")
    return [name for name in dict.fromkeys(names) if is_image_name(name)]


def _lay_out(store: Store, names: list[str]) -> tuple[list[Item], list[str]]:
    """Tell splits and classes from the folders in `names`."""
    names = sorted(names, key=natural_key)
    paths = [name.split("/") for name in names]
    depth = 0  # folders around everything, such as a zip's own name
    while paths and len({path[depth] if len(path) > depth + 1 else None for path in paths}) == 1:
        if len(paths[0]) <= depth + 1 or paths[0][depth].lower() == "train":
            break
        depth += 1
    tops = {path[depth].lower() for path in paths if len(path) > depth + 1}
    has_splits = "train" in tops
    rows: list[tuple[str, str | None, str | None]] = []  # name, split, class
    for name, path in zip(names, paths, strict=True):
        folders, split = path[depth:-1], None
        if has_splits:
            top = folders[0].lower() if folders else ""
            if top not in ("train", *HELD_OUT_NAMES):
                continue
            split = "train" if top == "train" else "test"
            folders = folders[1:]
        rows.append((name, split, folders[0] if folders else None))
    kinds = {row[2] for row in rows}
    classes = [] if None in kinds or len(kinds) < 2 else sorted((str(kind) for kind in kinds), key=natural_key)
    number = {name: i for i, name in enumerate(classes)}
    items = [Item(store, name, _printable(name), split, number.get(kind or "")) for name, split, kind in rows]
    return items, classes


def _printable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _find_lmdbs(place: Path) -> list[tuple[str | None, Path]]:
    """LMDBs at `place` with their splits: itself, or `train.lmdb` and `validation.lmdb` inside."""
    if place.is_dir():
        if (place / "data.mdb").is_file():
            return [(None, place)]
        names = {"train": "train", "test": "validation"}
        inside = [(split, place / f"{name}.lmdb") for split, name in names.items()]
        return [(split, path) for split, path in inside if path.exists()]
    is_lmdb = place.suffix.lower() in (".lmdb", ".mdb")
    return [(None, place)] if is_lmdb else []


def _lmdb_items(path: str, lmdbs: list[tuple[str | None, Path]]) -> list[Item]:
    items = []
    for split, place in lmdbs:
        store = LmdbStore(place)
        rows = [(key.decode("utf-8", "backslashreplace"), key) for key in store.keys()]
        prefix = f"{place.name}/" if split else ""
        rows.sort(key=lambda row: natural_key(row[0]))
        items += [Item(store, key, prefix + name, split) for name, key in rows]
    if not items:
        raise UserError(f"the LMDB '{path}' is empty: copy it again")
    return items


def _named_set(name: str) -> tuple[list[Item], list[str]]:
    if name == "digits":
        pixels, labels = load_digits()
        store = ArrayStore(scale_digits(pixels), raw=pixels)
        rows = enumerate(labels)
        return [Item(store, i, f"digits/{i:04d}", None, int(label)) for i, label in rows], [str(d) for d in range(10)]
    from torchvision import datasets

    root = str(cache_folder() / name)
    if name == "cifar10":
        parts = {split: _download(name, datasets.CIFAR10, root, train=split == "train") for split in ("train", "test")}
        items = []
        for split, part in parts.items():
            store = ArrayStore(part.data)
            items += [Item(store, i, f"{split}/{i:05d}", split, int(y)) for i, y in enumerate(part.targets)]
        return items, list(parts["train"].classes)
    items = []
    for split, theirs in {"train": "train+unlabeled", "test": "test"}.items():  # unlabelled images train as well
        store = ArrayStore(np.transpose(_download(name, datasets.STL10, root, split=theirs).data, (0, 2, 3, 1)))
        items += [Item(store, i, f"{split}/{i:06d}", split) for i in range(len(store.images))]
    return items, []


def _download(name: str, dataset: Callable[..., Any], root: str, **options: Any) -> Any:
    try:
        return dataset(root=root, download=True, **options)
    except Exception as error:  # torchvision raises OSError, RuntimeError, URLError or HTTPError
        raise UserError(
            f"'{name}' could not be downloaded ({error}): connect to the internet, put the archive that torchvision "
            f"expects into '{root}', or give a folder or zip of the images"
        ) from error
