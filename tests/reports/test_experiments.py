from __future__ import annotations

from pathlib import Path

from lddgan.reports import experiments
from lddgan.reports.experiments import Plan, shared_autoencoder


def test_every_latent_system_of_a_set_shares_one_autoencoder_but_for_the_penalty(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "_finish", lambda *_: None)
    plan = Plan("small", "cifar10", "images.zip", 0, tmp_path, Path("out"), None, "cpu")  # pyright: ignore[reportArgumentType]
    folders = {
        system: shared_autoencoder(plan, system)
        for system in (
            "autoencoder",
            "weighted",
            "adversarial",
            "uvit-tiny",
            "uvit-large",
            "autoencoder-kl",
            "weighted-kl",
        )
    }
    assert len(set(folders.values())) == 2
    assert folders["uvit-tiny"] == folders["weighted"] != folders["weighted-kl"] == folders["autoencoder-kl"]
