from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from row_files import made_up, save_made_up

from lddgan.config import identity
from lddgan.errors import UserError
from lddgan.recipes import cifar10_small
from lddgan.reports.rows import What, load_row, load_rows, settings


def test_round_trip(tmp_path):
    row = made_up("weighted")
    save_made_up(tmp_path / "rows", row)
    assert load_rows(tmp_path / "rows") == [row]
    assert load_row(tmp_path / "rows" / f"{row.what.hash}.json") == row
    strip = np.asarray(Image.open(tmp_path / "rows" / f"{row.what.hash}.png"))
    assert strip.shape == (5 * 32, 8 * 32, 3) and (strip == 60).all()
    assert sorted(path.suffix for path in (tmp_path / "rows").iterdir()) == [".json", ".png"]


def test_no_folder_holds_no_rows(tmp_path):
    assert load_rows(tmp_path / "nowhere") == []


def test_the_hash_of_a_row_stays():
    """Rows are committed and found again by it. If this changes without reason, every finished row is lost."""
    what = What(
        scale="small", set="cifar10", system="weighted", config={"stage2.epochs": "2"}, data_sha256="d" * 64,
        protocol={"features": "resnet56", "samples": 10_000}, version=1,
    )  # fmt: skip
    assert what.hash == "72008d44e6737603"


def test_the_hash_hangs_on_what_decides_the_numbers_alone():
    what = made_up("weighted").what
    changes = {
        "scale": "paper", "set": "digits", "system": "adversarial", "config": what.config | {"seed": "1"},
        "data_sha256": "e" * 64, "protocol": what.protocol | {"samples": 5000}, "version": 99,
    }  # fmt: skip
    assert set(changes) == {field.name for field in dataclasses.fields(what)}
    hashes = {dataclasses.replace(what, **{name: value}).hash for name, value in changes.items()} | {what.hash}
    assert len(hashes) == len(changes) + 1
    assert made_up("weighted", recall=0.9).what.hash == what.hash  # not on the outcome


def test_settings_leave_out_defaults_and_the_place_of_the_data():
    config = cifar10_small()
    config = dataclasses.replace(config, stage2=dataclasses.replace(config.stage2, objective="weighted"))
    values = settings(config, "weighted")
    assert (
        "stage2.objective" not in values and "seed" not in values and "autoencoder.attention_resolutions" not in values
    )
    assert "data" not in values and "checkpoint_seconds" not in values
    assert values["stage2.epochs"] == str(config.stage2.epochs) and values["autoencoder.linear_shortcut"] == "True"
    assert values.items() <= identity(config).items()
    other = dataclasses.replace(config, seed=5, stage2=dataclasses.replace(config.stage2, delta=3.0))
    assert settings(other, "weighted").items() - values.items() == {("seed", "5"), ("stage2.delta", "3.0")}


def test_stage_2_does_not_bear_on_an_autoencoder():
    config = cifar10_small()
    other = dataclasses.replace(config, stage2=dataclasses.replace(config.stage2, epochs=99))
    assert settings(config, "autoencoder") == settings(other, "autoencoder")
    assert settings(config, "weighted") != settings(other, "weighted")


@pytest.mark.parametrize("damage", ["cut", "empty", "binary", "other"])
def test_a_damaged_row_is_named(tmp_path, damage):
    row = made_up("weighted")
    save_made_up(tmp_path, row)
    file = tmp_path / f"{row.what.hash}.json"
    text = file.read_text()
    if damage == "other":  # whole, but another row's content
        values = json.loads(text)
        values["what"]["protocol"]["samples"] = 50_000
        text = json.dumps(values)
    file.write_bytes({"cut": text[:200].encode(), "empty": b"", "binary": b"\xff\x00"}.get(damage, text.encode()))
    with pytest.raises(UserError, match=rf"the row '.*{file.name}' is damaged") as caught:
        load_rows(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_row_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="there is no row"):
        load_row(tmp_path / "0.json")
