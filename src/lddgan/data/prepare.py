"""Decode a set once into a memory-mapped uint8 file; afterwards training only reads pixels."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from lddgan.data.images import CHANNELS, MODES, BrokenImage, square, to_channels
from lddgan.data.sources import Source, Split, cache_folder, open_source
from lddgan.errors import UserError
from lddgan.runtime.files import atomic_write

VERSION = 1  # raise it when the same files would give other pixels
MIN_SIDE = 8
MAX_ENLARGEMENT = 4
SURVEY_SAMPLE = 2000
COLOUR = {1: "grey", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class ImageSet:
    """Decoded images `[N, R, R, C]` uint8, memory-mapped read-only, in the order of the source.

    `labels` is int64 `[N]`, indexing `classes`, or None. `hash` names the pixels: it hangs on the content of the
    files, the resolution, the channels and the version of the preprocessing. `skipped` names the images left out.
    """

    images: np.ndarray
    labels: np.ndarray | None
    classes: list[str]
    names: list[str]
    hash: str
    skipped: list[str]

    def __len__(self) -> int:
        return len(self.images)

    def batch(
        self, indices: Sequence[int] | np.ndarray | torch.Tensor, flips: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Images at `indices` as uint8 `[B, R, R, C]`; those where `flips` (bool `[B]`) is set are mirrored."""
        images = torch.from_numpy(self.images[np.asarray(indices, dtype=np.int64)])
        if flips is not None:
            images = torch.where(flips.view(-1, 1, 1, 1), images.flip(2), images)
        return images


@dataclass(frozen=True)
class DataFacts:
    """What a set looks like: widths and heights as (least, median, greatest) in pixels, `channels` None if mixed."""

    count: int
    channels: int | None
    widths: tuple[int, int, int]
    heights: tuple[int, int, int]
    classes: list[str]


def prepare(
    path: str | Path,
    *,
    split: Split = "train",
    resolution: int,
    channels: int | None = None,
    skip_broken: bool = False,
    cache: Path | None = None,
) -> ImageSet:
    """Decode, centre-crop and resize every image of a split (`images.square`), or reuse what an earlier call stored.

    Args:
        path: what `open_source` takes.
        resolution: side in pixels, at least 1.
        channels: 1, 3 or 4 converts every image; None takes what the data has, which must then be one kind.
        skip_broken: leave unreadable and too small images out instead of stopping at the first.
        cache: folder for the stored pixels, `cache_folder()` by default.

    Raises:
        UserError: see `open_source`; an unreadable image; a side under 8 px or under a quarter of `resolution`;
            mixed channels; a cache that cannot be written.
    """
    if resolution < 1:
        raise UserError(f"the resolution {resolution} is not positive: choose for example 32")
    if channels is not None and channels not in MODES:
        raise UserError(f"{channels} channels are not possible: choose 1 (grey), 3 (RGB) or 4 (RGBA)")
    source = open_source(path, split)
    key = hashlib.sha256(f"{VERSION} {resolution} {channels} {' '.join(source.hashes)}".encode()).hexdigest()[:32]
    folder = Path(cache) if cache is not None else cache_folder()
    pixels, facts = folder / "images" / f"{key}.u8", folder / "images" / f"{key}.json"
    stored = _read_whole(pixels, facts)
    if stored is None or (stored["skipped"] and not skip_broken):
        stored = _decode_all(source, resolution, channels, skip_broken, pixels, facts)
    # Names and labels come from the source at hand: the same pixels may lie under other names than when stored.
    left_out = set(stored["skipped"])
    kept = source.subset([i for i in range(len(source)) if i not in left_out]) if left_out else source
    return ImageSet(
        images=np.memmap(pixels, np.uint8, "r", shape=tuple(stored["shape"])),
        labels=None if kept.labels is None else np.asarray(kept.labels, dtype=np.int64),
        classes=kept.classes,
        names=[item.name for item in kept.items],
        hash=key,
        skipped=[source.name(i) for i in sorted(left_out)],
    )


def _read_whole(pixels: Path, facts: Path) -> dict | None:
    """The stored facts, if the pixels beside them have the size that the facts tell."""
    try:
        stored = json.loads(facts.read_text("utf-8"))
        return stored if pixels.stat().st_size == int(np.prod(stored["shape"])) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _decode_all(
    source: Source, resolution: int, channels: int | None, skip_broken: bool, pixels: Path, facts: Path
) -> dict:
    skipped: list[int] = []
    first: dict[int, str] = {}  # channels -> the first image that has them
    with _writable(pixels.parent), atomic_write(pixels) as temporary:
        with open(temporary, "wb") as file:
            for i in tqdm(range(len(source)), desc="preparing", unit=" images", delay=2, disable=None, leave=False):
                try:
                    image = source.decode(i)
                    _check_size(image.size, resolution)
                except BrokenImage as error:
                    if not skip_broken:
                        raise UserError(_broken_message(source, i, error)) from error
                    skipped.append(i)
                    continue
                if channels is None:
                    first.setdefault(CHANNELS[image.mode], source.name(i))
                    _check_one_kind(source.path, first)
                else:
                    image = to_channels(image, channels)
                file.write(square(image, resolution).tobytes())
        count = len(source) - len(skipped)
        if count == 0:
            raise UserError(f"'{source.path}' holds no readable image of {len(source)}: check the files")
    shape = [count, resolution, resolution, channels or next(iter(first))]
    stored = {
        "shape": shape,
        "skipped": skipped,
        "path": source.path,
        "names": [item.name for item in source.items],
        "labels": source.labels,
        "classes": source.classes,
    }
    with _writable(facts.parent), atomic_write(facts) as temporary:
        temporary.write_text(json.dumps(stored), "utf-8")
    return stored


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write to the cache '{folder}' ({reason}): free space or set LDDGAN_CACHE") from error


def _check_size(size: tuple[int, int], resolution: int) -> None:
    width, height = size
    if min(size) < MIN_SIDE or min(size) * MAX_ENLARGEMENT < resolution:
        raise BrokenImage(f"too small, {width}x{height} px for a resolution of {resolution}")


def _broken_message(source: Source, index: int, error: BrokenImage) -> str:
    what = "is" if str(error).startswith("too small") else "is not a readable image"
    reason = str(error) if what == "is" else f"({error})"
    return f"'{source.name(index)}' in '{source.path}' {what} {reason}: remove it or pass --skip-broken"


def _check_one_kind(path: str, first: dict[int, str]) -> None:
    if len(first) > 1:
        examples = " and ".join(f"'{name}' is {COLOUR[channels]}" for channels, name in first.items())
        raise UserError(
            f"the images in '{path}' have mixed channels ({examples}): --images.channels {max(first)} converts them"
        )


def describe(path: str | Path) -> DataFacts:
    """Facts of a whole set (all splits) from the headers of at most 2,000 images spread evenly over it.

    Raises:
        UserError: see `open_source`; no sampled image is readable.
    """
    source = open_source(path, "all")
    indices = np.linspace(0, len(source) - 1, min(len(source), SURVEY_SAMPLE)).round().astype(int)
    headers = []
    for i in indices:
        try:
            headers.append(source.header(int(i)))
        except BrokenImage:
            continue  # `prepare` stops at it with its name, or leaves it out
    if not headers:
        raise UserError(f"'{path}' holds no readable image: check the files")
    widths, heights, channels = zip(*headers, strict=True)
    one_kind = channels[0] if len(set(channels)) == 1 else None
    return DataFacts(len(source), one_kind, spread(widths), spread(heights), source.classes)


def spread(values: Sequence[int]) -> tuple[int, int, int]:
    """Least, (lower) median and greatest."""
    return min(values), statistics.median_low(values), max(values)
