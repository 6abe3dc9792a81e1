"""Training sets of x_0. A latent one is a memory-mapped cache, so that stage 2 never touches the encoder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lddgan.data.prepare import ImageSet
from lddgan.runtime.files import atomic_write
from lddgan.spaces.latent import LatentSpace
from lddgan.spaces.space import Space

ENCODE_BATCH = 250


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 `[B, H, W, C]` to float `[B, C, H, W]` in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Float `[B, C, H, W]` in [-1, 1] (clamped) to uint8 `[B, H, W, C]`, rounded."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over names and values of a state dict."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class TrainingSet(Protocol):
    """What stage 2 draws its batches from.

    Attributes:
        hash: of everything that the values hang on.
    """

    hash: str

    def __len__(self) -> int: ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one."""
        ...

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Those at `indices [B]`, `[B, Z, r, r]`; where there are mirror images, `generator` draws which of the two."""
        ...


class OnTheFly:
    """A set in a space whose encoding costs less than reading a cache of it would."""

    def __init__(self, images: ImageSet, space: Space, flips: bool) -> None:
        self.images, self.space, self.flips = images, space, flips
        self.hash = hashlib.sha256(f"{type(space).__name__} {images.hash} {flips}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.batch(torch.zeros(1, dtype=torch.long)).shape[1:]
        return channels, height, width

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        flips = None
        if generator is not None and self.flips:
            flips = torch.randint(2, (len(indices),), generator=generator).bool()
        return self.space.encode(to_unit_range(self.images.batch(indices, flips)))


class Latents:
    """The latents of a set, and of its mirror images where flips are on.

    Attributes:
        array: float32 `[1 or 2, N, Z, r, r]` as the autoencoder gave them; index 1 holds the mirror images.
        mean, std: `[Z]`, measured over all of them.
        hash: of the autoencoder's weights and the images.
    """

    def __init__(self, array: np.ndarray, mean: Tensor, std: Tensor, hash: str) -> None:
        self.array, self.mean, self.std, self.hash = array, mean, std, hash

    def __len__(self) -> int:
        return self.array.shape[1]

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.array.shape[2:]
        return channels, height, width

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Raw latents `[B, Z, r, r]`; where mirror images are there, `generator` draws which of the two."""
        flips = torch.zeros(len(indices), dtype=torch.long)
        if generator is not None and len(self.array) == 2:
            flips = torch.randint(2, (len(indices),), generator=generator)
        return self.at(indices, flips)

    def at(self, indices: Tensor, flips: Tensor) -> Tensor:
        """Raw latents `[B, Z, r, r]`, of the mirror images where `flips` (bool or 0 and 1, `[B]`) says so."""
        return torch.from_numpy(self.array[flips.long().numpy(), indices.numpy()])


@torch.inference_mode()
def cached_latents(folder: Path, space: LatentSpace, images: ImageSet, flips: bool, device: torch.device) -> Latents:
    """The latents of `images`, from `folder` when its cache is of these weights and this data, else encoded anew.

    The cache is `latents.f32` with `latents.json` beside it, written last: a half-written one is never read.
    """
    file, facts_file = folder / "latents.f32", folder / "latents.json"
    key = hashlib.sha256(f"{weights_hash(space.autoencoder)} {images.hash} {flips}".encode()).hexdigest()
    shape = None
    if facts_file.exists():
        facts = json.loads(facts_file.read_text())
        if facts["key"] == key and file.exists() and file.stat().st_size == 4 * int(np.prod(facts["shape"])):
            shape = tuple(facts["shape"])
        else:
            tqdm.write(f"the latents in '{folder}' are stale (other weights or other data): encoding anew")
            facts_file.unlink()
    if shape is None:
        shape = _encode(file, space.autoencoder.encoder, images, flips, device)
        mean, std = _statistics(np.memmap(file, np.float32, "r", shape=shape))
        facts = {"key": key, "shape": shape, "mean": mean.tolist(), "std": std.tolist()}
        with atomic_write(facts_file) as temporary:
            temporary.write_text(json.dumps(facts))
    array = np.memmap(file, np.float32, "r", shape=shape)
    return Latents(array, torch.tensor(facts["mean"]), torch.tensor(facts["std"]), key)


def _encode(file: Path, encoder: nn.Module, images: ImageSet, flips: bool, device: torch.device) -> tuple[int, ...]:
    encoder.eval()
    copies = 2 if flips else 1
    shape: tuple[int, ...] = ()
    with atomic_write(file) as temporary, open(temporary, "wb") as stream:
        bar = tqdm(total=copies * len(images), desc="encode", unit="image", dynamic_ncols=True)
        for copy in range(copies):
            for first in range(0, len(images), ENCODE_BATCH):
                indices = torch.arange(first, min(first + ENCODE_BATCH, len(images)))
                batch = images.batch(indices, torch.full((len(indices),), copy == 1))
                latent = encoder(to_unit_range(batch).to(device)).float().cpu().numpy()
                shape = (copies, len(images), *latent.shape[1:])
                stream.write(latent.tobytes())  # not through a memory map: there a full disk would kill the process
                bar.update(len(indices))
        bar.close()
    return shape


def _statistics(array: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel, in float64, a chunk at a time."""
    channels = array.shape[2]
    total, squares, count = np.zeros(channels), np.zeros(channels), 0
    for copy in array:
        for first in range(0, len(copy), 1000):
            chunk = copy[first : first + 1000].astype(np.float64)
            total += chunk.sum((0, 2, 3))
            squares += (chunk**2).sum((0, 2, 3))
            count += chunk[:, 0].size
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return torch.from_numpy(mean).float(), torch.from_numpy(std).float()
