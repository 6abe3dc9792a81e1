"""Statistics of a reference set in a file, as the field shares them: mean `mu` and covariance `sigma`."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from lddgan.errors import UserError
from lddgan.metrics.frechet import GaussianStatistics
from lddgan.runtime.files import atomic_write


def save_statistics(path: Path, statistics: GaussianStatistics, network: str, weights_hash: str) -> None:
    """Write an `.npz` with `mu [d]` and `sigma [d, d]`, and beside them `count`, `network` and `weights_sha256`.

    Raises:
        UserError: the place cannot be written, or the name does not end in .npz.
    """
    if path.suffix != ".npz":
        raise UserError(f"statistics go into an .npz file, not '{path}': change the name")
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(
            file, mu=statistics.mean.numpy(), sigma=statistics.covariance.numpy(), count=statistics.count,
            network=network, weights_sha256=weights_hash,
        )  # fmt: skip


def load_statistics(path: Path, network: str, dim: int) -> tuple[GaussianStatistics, dict[str, Any]]:
    """Read statistics: an `.npz` of this program or of others, or the `.npy` that DDGAN published (a pickled dict).

    The `.npy` is read by an unpickler that makes arrays and nothing else: code in it never runs.

    Returns:
        The statistics and what is known of them (`count` None where the file does not say).

    Raises:
        UserError: a file that is missing, damaged, holds code or NaN, or belongs to another network.
    """
    try:
        content = _read_npy(path) if path.suffix == ".npy" else _read_npz(path)
        mu, sigma = np.asarray(content["mu"], np.float64), np.asarray(content["sigma"], np.float64)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        AttributeError,
        BadZipFile,
        pickle.UnpicklingError,
    ) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot read statistics from '{path}' ({reason}): give an .npz or .npy with mu and sigma"
        ) from error
    theirs = str(content.get("network", network))
    if theirs != network:
        raise UserError(f"'{path}' holds statistics of {theirs}, not of {network}: give --features {theirs}")
    if mu.shape != (dim,) or sigma.shape != (dim, dim):
        raise UserError(
            f"'{path}' holds statistics of {mu.size} features and {network} has {dim}: they are of another network"
        )
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise UserError(f"'{path}' holds NaN or infinite values: make the statistics anew")
    count = int(content["count"]) if "count" in content else None
    facts = {"path": path.name, "count": count}
    if "weights_sha256" in content:
        facts["weights_sha256"] = str(content["weights_sha256"])
    return GaussianStatistics.of(torch.from_numpy(mu), torch.from_numpy(sigma), count), facts


def _read_npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _read_npy(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        array = _ArrayUnpickler(file).load()
    content = array.item() if isinstance(array, np.ndarray) else array
    if not isinstance(content, dict):
        raise ValueError("it holds no mu and sigma")
    return content


class _ArrayUnpickler(pickle.Unpickler):
    """Makes NumPy arrays, dtypes and scalars, and refuses every other name."""

    ALLOWED = {
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
    } | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not data")
        return super().find_class(module, name)
