"""What is measured: sets of images that are read in order, a few at a time, and their features in a file.

N images, H height, W width, C channels, d features, k classes.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lddgan.config import identity
from lddgan.data.latents import weights_hash
from lddgan.data.prepare import ImageSet, describe, prepare
from lddgan.data.sources import Split
from lddgan.errors import RunStopped, UserError
from lddgan.metrics.features import FeatureNetwork
from lddgan.pipeline import Pipeline
from lddgan.runtime.files import alone, ensure_folder
from lddgan.runtime.parallel import world

CHUNK = 250
"""Images read, measured and written at once."""
JPEG_QUALITY = 75
Protocol = Literal["png", "jpeg"]
"""`png` measures the samples as they are, as FID is meant; `jpeg` as the published code of DDGAN and its successors
does, which saves its samples as JPEG (Pillow's quality 75, 4:2:0) and reads them back."""


@dataclass(frozen=True)
class Measured:
    """A set of images: how many, how to read those of a range (uint8 `[B, H, W, C]`), and what names them.

    `key` names the pixels for caches; `facts` goes into the record of a result; `labels` index `classes`.
    """

    count: int
    shape: tuple[int, int, int]
    read: Callable[[range], np.ndarray]
    key: str
    facts: dict[str, Any]
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()


def from_model(pipe: Pipeline, name: str, n: int, seed: int) -> Measured:
    """The first `n` samples of `seed`; the weights, the config and the kind of device name them.

    Raises:
        UserError: `n` is not positive.
    """
    if n < 1:
        raise UserError(f"cannot measure {n} samples: give a positive number")
    config = pipe.config
    digest = weights_hash(pipe.generator)
    parts = [weights_hash(pipe.space), digest, str(identity(config)), str(seed), pipe.device.type, pipe.decoder]
    if pipe.drawn_in != "float32":
        parts.append(pipe.drawn_in)
    facts = {
        "model": name, "generator_sha256": digest, "decoder": pipe.decoder, "seed": seed,
        "precision": pipe.drawn_in, "steps": config.diffusion.num_steps,
    }  # fmt: skip
    shape = (config.images.resolution, config.images.resolution, config.images.channels)
    key = hashlib.sha256(" ".join(parts).encode()).hexdigest()[:32]
    return Measured(n, shape, lambda rows: pipe.draw(rows, seed), key, {**facts, "count": n})


def from_path(
    path: str, split: Split, n: int | None = None, resolution: int | None = None, channels: int | None = None
) -> Measured:
    """A set by its path: what `lddgan.data.sources.open_source` takes, or the `.npz` that `lddgan sample` writes.

    Args:
        n: only so many, evenly spread over the set; None takes all.
        resolution: the side that images are cropped and resized to; None takes them as they are.
        channels: 1, 3 or 4 converts the images; None takes them as they are.

    Raises:
        UserError: no such set; fewer than `n` images; images that are not square or of several sizes, when no
            resolution is given; an array that does not hold uint8 images.
    """
    if str(path).endswith(".npz"):
        return _from_npz(Path(path), n)
    if resolution is None:
        facts = describe(path)
        if facts.widths[0] != facts.widths[2] or facts.widths != facts.heights:
            sizes = f"{facts.widths[0]}x{facts.heights[0]} to {facts.widths[2]}x{facts.heights[2]} px"
            raise UserError(f"the images in '{path}' are of several sizes ({sizes}): give --resolution to resize them")
        resolution = facts.widths[0]
    images = prepare(path, split=split, resolution=resolution, channels=channels)
    if n is not None and not 1 <= n <= len(images):
        raise UserError(f"'{path}' holds {len(images)} images, not {n}: ask for at most {len(images)}")
    return from_images(images, path, split, n)


def from_images(images: ImageSet, path: str, split: Split, n: int | None = None) -> Measured:
    """A prepared set, or `n` of its images, evenly spread; `path` and `split` say where it came from."""
    indices = evenly_spread(len(images), n or len(images))
    stored = images.images
    assert isinstance(stored, np.memmap) and stored.filename is not None

    def read(rows: range) -> np.ndarray:
        # Mapped anew for every chunk: pages that were read once do not stay in this process's memory.
        array = np.memmap(stored.filename, np.uint8, "r", shape=stored.shape)  # type: ignore[arg-type]
        return array[indices[rows.start : rows.stop]]

    key = images.hash if n is None or n == len(images) else f"{images.hash}-{n}"
    facts = {"path": Path(path).name, "split": split, "count": len(indices), "sha256": images.hash}
    labels = None if images.labels is None else images.labels[indices]
    return Measured(len(indices), stored.shape[1:], read, key, facts, labels, tuple(images.classes))  # type: ignore[arg-type]


def evenly_spread(count: int, most: int) -> np.ndarray:
    """At most `most` of the indices below `count`, evenly spread, int64."""
    return np.linspace(0, count - 1, min(most, count)).round().astype(np.int64)


def _from_npz(path: Path, n: int | None) -> Measured:
    """The first `n` images of the one array in `path`, read as a stream: the array never lies in memory whole."""
    try:
        archive = zipfile.ZipFile(path)
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        if len(names) != 1:
            raise UserError(f"'{path}' holds {len(names)} arrays: it must hold one, uint8 images [N, H, W, C]")
        member = archive.open(names[0])
        np.lib.format.read_magic(member)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read '{path}' as an .npz of images ({error}): give one of `lddgan sample`") from error
    if len(shape) != 4 or dtype != np.uint8 or fortran or shape[3] not in (1, 3, 4):
        raise UserError(
            f"'{path}' holds {dtype} {list(shape)}, not uint8 images [N, H, W, C]: scale them to 0..255 and save again"
        )
    if n is not None and n > shape[0]:
        raise UserError(f"'{path}' holds {shape[0]} images, not {n}: ask for at most {shape[0]}")
    start, each = member.tell(), int(np.prod(shape[1:]))

    def read(rows: range) -> np.ndarray:
        member.seek(start + rows.start * each)
        data = member.read(len(rows) * each)
        if len(data) < len(rows) * each:
            raise UserError(f"'{path}' ends early: copy it again")
        return np.frombuffer(data, np.uint8).reshape(len(rows), *shape[1:])

    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    count = shape[0] if n is None else n
    facts = {"path": path.name, "count": count, "sha256": digest.hexdigest()}
    return Measured(count, tuple(shape[1:]), read, f"{digest.hexdigest()[:32]}-{count}", facts)  # type: ignore[arg-type]


def through_jpeg(images: np.ndarray) -> np.ndarray:
    """uint8 `[B, H, W, C]`, C = 1 or 3, as they come back from a JPEG of the published protocol."""
    results = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "JPEG", quality=JPEG_QUALITY)
        results.append(np.asarray(Image.open(buffer)).reshape(image.shape))
    return np.stack(results)


class Rows:
    """Columns `first` to `last` of float32 rows in a file, read slice by slice, so that memory stays flat."""

    def __init__(self, path: Path, count: int, width: int, first: int, last: int) -> None:
        self.path, self._width, self._first, self._last = path, width, first, last
        self.shape = (count, last - first)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Tensor:
        start, stop, _ = rows.indices(len(self))
        count = max(0, stop - start) * self._width
        values = np.fromfile(self.path, np.float32, count, offset=4 * self._width * start)
        return torch.from_numpy(values.reshape(-1, self._width)[:, self._first : self._last])

    def take(self, indices: np.ndarray) -> Tensor:
        """The rows at `indices`, `[len(indices), d]`."""
        array = np.memmap(self.path, np.float32, "r", shape=(len(self), self._width))
        return torch.from_numpy(array[indices, self._first : self._last])


def features_of(
    network: FeatureNetwork, images: Measured, folder: Path, protocol: Protocol = "png"
) -> tuple[Rows, Rows]:
    """Features `[N, d]` and logits `[N, k]` of `images`, in a file in `folder`; what lies there already is not redone.

    Raises:
        UserError: images that the network does not take; the folder cannot be written.
        RunStopped: interrupted; the same call goes on where this one was.
    """
    width = network.dim + network.classes
    name = f"{images.key}-{images.count}-{protocol}-{network.name}-{network.weights_hash[:16]}.f32"
    path, everyone = ensure_folder(folder) / name, world()
    # The first of several processes looks and locks for all of them: another program may be at the same file.
    with alone(path) if everyone.first and not path.exists() else nullcontext():
        everyone.wait()
        if everyone.greatest(everyone.first and not path.exists()):
            _extract(network, images, path.with_suffix(".part"), protocol, width)
            if everyone.first:
                os.replace(path.with_suffix(".part"), path)
            everyone.wait()
    pieces = (0, network.dim), (network.dim, width)
    features, logits = (Rows(path, images.count, width, *piece) for piece in pieces)
    return features, logits


def _extract(network: FeatureNetwork, images: Measured, partial: Path, protocol: Protocol, width: int) -> None:
    """Several processes take a share of every chunk; the first writes."""
    everyone = world()
    there = partial.stat().st_size // (4 * width) if everyone.first and partial.exists() else 0
    done = everyone.greatest(there)
    bar = tqdm(
        total=images.count, initial=done, desc=f"features[{network.name}]", unit="image", leave=False,
        dynamic_ncols=True, delay=1, disable=not everyone.first,
    )  # fmt: skip
    with closing(bar), open(partial if everyone.first else os.devnull, "ab") as file:
        if everyone.first:
            file.truncate(done * 4 * width)  # a kill may have cut the last row
        try:
            for start in range(done, images.count, CHUNK):
                count = min(CHUNK, images.count - start)
                own = everyone.share(count)
                rows = torch.empty(0, width)
                if own:
                    batch = images.read(range(start + own.start, start + own.stop))
                    batch = through_jpeg(batch) if protocol == "jpeg" else batch
                    rows = torch.cat(network(batch), 1)
                file.write(everyone.gathered(rows, count).numpy().tobytes())
                file.flush()
                bar.update(count)
        except KeyboardInterrupt:
            raise RunStopped(
                f"stopped after {bar.n} of {images.count} images: the same command goes on from there", 130
            ) from None
        except OSError as error:
            raise RunStopped(f"could not write '{partial}' ({error.strerror}): free space and run it again") from error
