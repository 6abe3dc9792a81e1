from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from lddgan.errors import UserError
from lddgan.metrics.frechet import frechet_distance, gaussian_statistics
from lddgan.metrics.statistics_files import load_statistics, save_statistics


@pytest.fixture
def statistics():
    return gaussian_statistics(torch.randn(50, 4, generator=torch.Generator().manual_seed(0)))


def test_statistics_come_back_and_are_at_distance_zero(statistics, tmp_path):
    save_statistics(tmp_path / "s.npz", statistics, "resnet56", "abc")
    back, facts = load_statistics(tmp_path / "s.npz", "resnet56", 4)
    assert facts == {"path": "s.npz", "count": 50, "weights_sha256": "abc"}
    assert back.count == 50
    torch.testing.assert_close(back.covariance, statistics.covariance)
    assert frechet_distance(back, statistics) < 1e-12


def test_files_of_others_are_read(statistics, tmp_path):
    mu, sigma = statistics.mean.numpy(), statistics.covariance.numpy()
    np.savez(tmp_path / "field.npz", mu=mu, sigma=sigma)
    np.save(tmp_path / "published.npy", {"mu": mu, "sigma": sigma})  # pyright: ignore[reportArgumentType]
    for name in ("field.npz", "published.npy"):
        back, facts = load_statistics(tmp_path / name, "inception", 4)
        assert facts == {"path": name, "count": None}
        assert frechet_distance(back, statistics) < 1e-12


def test_code_in_an_npy_never_runs(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    np.save(tmp_path / "evil.npy", {"mu": Evil(), "sigma": 0})  # pyright: ignore[reportArgumentType]
    with open(tmp_path / "global.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(Evil(), file)
    for name in ("evil.npy", "global.npy"):
        with pytest.raises(UserError, match="not data"):
            load_statistics(tmp_path / name, "inception", 4)
    assert not (tmp_path / "ran").exists()


def test_wrong_files_are_named(statistics, tmp_path):
    save_statistics(tmp_path / "s.npz", statistics, "resnet56", "abc")
    bad = statistics.mean.numpy().copy()
    bad[0] = np.nan
    np.savez(tmp_path / "nan.npz", mu=bad, sigma=np.eye(4))
    np.savez(tmp_path / "other.npz", a=np.eye(4))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "s.npz").read_bytes()[:100])
    for name, network, dim, message in (
        ("s.npz", "inception", 4, "statistics of resnet56, not of inception"),
        ("nan.npz", "inception", 4, "NaN"),
        ("nan.npz", "inception", 2048, "statistics of 4 features and inception has 2048"),
        ("other.npz", "inception", 4, "cannot read statistics"),
        ("cut.npz", "inception", 4, "cannot read statistics"),
        ("absent.npz", "inception", 4, "cannot read statistics"),
    ):
        with pytest.raises(UserError, match=message):
            load_statistics(tmp_path / name, network, dim)
    with pytest.raises(UserError, match="an .npz file"):
        save_statistics(tmp_path / "s.json", statistics, "resnet56", "abc")
