"""What a set of images holds, each of them decoded: sizes, channels, classes, broken files and exact duplicates."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from lddgan.data.images import CHANNELS, BrokenImage, square, to_channels
from lddgan.data.prepare import COLOUR, spread
from lddgan.data.sources import open_source, split_indices

SHEET_IMAGES = 64
SHEET_SIDE = 96
LISTED = 10


@dataclass(frozen=True)
class DataReport:
    """Result of `inspect_data`.

    Widths and heights are (least, median, greatest) in pixels over the readable images, (0, 0, 0) where there are
    none. `broken` holds (name, reason); `duplicates` the names of each group of images with equal bytes; `leaked`
    counts the groups with a member in both splits. `contact_sheet` is uint8 `[n, S, S, C]`, up to 64 images spread
    evenly over the set.
    """

    path: str
    count: int
    splits: dict[str, int]
    widths: tuple[int, int, int]
    heights: tuple[int, int, int]
    channels: dict[str, int]
    classes: dict[str, int]
    broken: list[tuple[str, str]]
    duplicates: list[list[str]]
    leaked: int
    contact_sheet: np.ndarray

    def as_json(self) -> dict[str, Any]:
        """Everything but the contact sheet, in types that JSON knows."""
        facts = asdict(self)
        del facts["contact_sheet"]
        facts["broken"] = [{"name": name, "reason": reason} for name, reason in self.broken]
        return facts

    def as_text(self) -> str:
        """The report for people, a line for each fact; long lists are cut to ten."""
        splits = ", ".join(f"{count:,} {name}" for name, count in self.splits.items())
        lines = [f"{self.path}: {self.count:,} images ({splits})"]
        lines.append(f"width       {_range(self.widths)}")
        lines.append(f"height      {_range(self.heights)}")
        lines.append(f"channels    {', '.join(f'{name} {n:,}' for name, n in self.channels.items()) or 'none'}")
        classes = _listed([f"{name} {n:,}" for name, n in self.classes.items()])
        lines.append(f"classes     {f'{len(self.classes)}: {classes}' if classes else 'none'}")
        broken = _listed([f"'{name}' ({reason})" for name, reason in self.broken])
        lines.append(f"broken      {f'{len(self.broken):,}: {broken}' if broken else 'none'}")
        groups = _listed([" = ".join(f"'{name}'" for name in group) for group in self.duplicates])
        leak = f" ({self.leaked:,} in both splits)" if self.leaked else ""
        lines.append(f"duplicates  {f'{_groups(len(self.duplicates))}{leak}: {groups}' if groups else 'none'}")
        return "\n".join(lines)


def inspect_data(path: str | Path) -> DataReport:
    """Read and decode every image at `path` (see `open_source`).

    Raises:
        UserError: see `open_source`. A broken image is reported, not raised.
    """
    source = open_source(path, "all")
    sampled = set(np.linspace(0, len(source) - 1, min(len(source), SHEET_IMAGES)).round().astype(int).tolist())
    sizes: list[tuple[int, int]] = []
    channels: Counter[int] = Counter()
    broken: list[tuple[str, str]] = []
    sheet: list[Image.Image] = []
    for i in tqdm(range(len(source)), desc="inspecting", unit=" images", delay=2, disable=None, leave=False):
        try:
            image = source.decode(i)
        except BrokenImage as error:
            broken.append((source.name(i), str(error)))
            continue
        sizes.append(image.size)
        channels[CHANNELS[image.mode]] += 1
        if i in sampled:
            sheet.append(image if max(image.size) <= SHEET_SIDE else square(image, SHEET_SIDE))
    splits: dict[str, int] = {}
    split_of: dict[int, str] = {}
    for split in ("train", "test"):
        indices = split_indices(source, split)
        splits[split] = len(indices)
        split_of.update(dict.fromkeys(indices, split))
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for i, value in enumerate(source.hashes):
        groups[value].append(i)
    duplicates = [group for group in groups.values() if len(group) > 1]
    labels = Counter(source.labels or [])
    return DataReport(
        path=str(path),
        count=len(source),
        splits=splits,
        widths=spread([width for width, _ in sizes] or [0]),
        heights=spread([height for _, height in sizes] or [0]),
        channels={COLOUR[c]: channels[c] for c in sorted(channels)},
        classes={name: labels[i] for i, name in enumerate(source.classes)},
        broken=broken,
        duplicates=[[source.name(i) for i in group] for group in duplicates],
        leaked=sum(len({split_of[i] for i in group}) > 1 for group in duplicates),
        contact_sheet=_contact_sheet(sheet),
    )


def _contact_sheet(images: Sequence[Image.Image]) -> np.ndarray:
    if not images:
        return np.zeros((0, SHEET_SIDE, SHEET_SIDE, 3), np.uint8)
    channels = max(CHANNELS[image.mode] for image in images)
    side = min(SHEET_SIDE, max(max(image.size) for image in images))
    tiles = [np.asarray(square(to_channels(image, channels), side)) for image in images]
    return np.stack(tiles).reshape(len(tiles), side, side, channels)


def _range(values: tuple[int, int, int]) -> str:
    least, median, greatest = values
    return f"{least} px" if least == greatest else f"{least} to {greatest} px, median {median}"


def _groups(count: int) -> str:
    return "1 group" if count == 1 else f"{count:,} groups"


def _listed(entries: list[str]) -> str:
    more = f" and {len(entries) - LISTED:,} more" if len(entries) > LISTED else ""
    return ", ".join(entries[:LISTED]) + more
