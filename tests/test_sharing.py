from __future__ import annotations

import json
import shutil
import sys
import types
from pathlib import Path

import pytest
import yaml
from tiny import lively_model, spaced_config, tiny_config, visible

from lddgan import Pipeline
from lddgan.config import save_yaml
from lddgan.errors import UserError
from lddgan.models import save_model
from lddgan.sharing import model_card

METRICS = {
    "score": "FD[resnet56]", "frechet_distance": 11.09, "precision": 0.892, "recall": 0.127, "density": None,
    "n_samples": 10_000, "n_reference": 50_000, "reference": {"split": "train"}, "features": "resnet56",
    "feature_network": "ResNet-56", "protocol": "png",
}  # fmt: skip


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for the hub's client: repositories are folders."""
    store = tmp_path / "hub"

    class HfApi:
        def create_repo(self, name, private, exist_ok):
            assert exist_ok
            (store / name).mkdir(parents=True, exist_ok=True)
            (store / "private").write_text(str(private))
            return f"https://hub.example/{name}"

        def upload_folder(self, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, store / repo_id, dirs_exist_ok=True)

    def snapshot_download(name, allow_patterns):
        if not (store / name).is_dir():
            raise RuntimeError("404: no such repository\nwith details")
        target = tmp_path / "snapshots" / name
        for path in (store / name).iterdir():
            if any(path.match(pattern) for pattern in allow_patterns):
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target / path.name)
        return str(target)

    client = types.SimpleNamespace(HfApi=HfApi, snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    return store


@pytest.fixture
def run(tmp_path) -> Path:
    """A run folder with a model, as far as a card needs it."""
    config = tiny_config("/home/somebody/secret place/faces.zip", slim_decoder=None)
    save_model(tmp_path / "run" / "model", config, *lively_model(config))
    facts = {"hardware": "a test, 2 threads", "training_images": 12_345}
    save_yaml(config, tmp_path / "run" / "config.yaml")
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts))
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(METRICS))
    return tmp_path / "run"


def test_pushed_and_fetched_it_draws_the_same(hub, run):
    pipe = Pipeline.from_pretrained(run, "cpu")
    assert pipe.push_to_hub("me/faces", half=False) == "https://hub.example/me/faces"
    assert visible(hub / "me" / "faces") == [
        "README.md", "autoencoder.safetensors", "config.json", "generator.safetensors", "samples.png"
    ]  # fmt: skip
    assert (hub / "private").read_text() == "False"
    (hub / "me" / "faces" / "evil.py").write_text("raise SystemExit")
    again = Pipeline.from_pretrained("me/faces", "cpu")
    assert (again(3, seed=2) == pipe(3, seed=2)).all()
    assert again.origin is not None and not (again.origin / "evil.py").exists()
    whole = (hub / "me" / "faces" / "generator.safetensors").stat().st_size
    pipe.push_to_hub("me/faces", private=True)
    assert (hub / "me" / "faces" / "generator.safetensors").stat().st_size < 0.7 * whole
    assert (hub / "private").read_text() == "True"


def test_a_card_says_what_the_run_says_and_nothing_of_this_machine(run):
    config = Pipeline.from_pretrained(run, "cpu").config
    card = model_card("me/faces", config, "cc-by-4.0", run)
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "cc-by-4.0" and front["library_name"] == "lddgan" and "lddgan" in front["tags"]
    (result,) = front["model-index"][0]["results"]
    assert result["metrics"] == [{"name": "FD[resnet56]", "type": "frechet-distance", "value": 11.09}]
    for part in (
        "LDDGAN, 3 steps", "`tiny`, seed 0, 8 epochs", "faces, 12,345 images", "a test, 2 threads",
        "| FD[resnet56] | 11.09 |", "| recall | 0.127 |", "10000 samples against 50000 images of the train split",
        'Pipeline.from_pretrained("me/faces")', "![samples](samples.png)",
    ):  # fmt: skip
        assert part in card, part
    assert "density" not in card and "somebody" not in card and "secret" not in card


def test_a_card_takes_nothing_from_files_that_lie_about(run, tmp_path, monkeypatch):
    pipe = Pipeline.from_pretrained(run / "model", "cpu")
    assert "12,345 images" in model_card("me/faces", pipe.config, "apache-2.0", pipe.origin)  # of the run it is of
    monkeypatch.chdir(run)  # where a run.json and a metrics.json lie
    shipped = Pipeline.from_pretrained("demo", "cpu")
    card = model_card("me/digits", shipped.config, "apache-2.0", shipped.origin)
    assert "12,345" not in card and "11.09" not in card
    (run / "config.yaml").unlink()  # not a run any more
    assert "11.09" not in model_card("me/faces", pipe.config, "apache-2.0", pipe.origin)


def test_a_card_without_a_run(tmp_path):
    config = spaced_config("wavelet", "digits")
    card = model_card("me/bands", config, "apache-2.0", None)
    assert "WDDGAN, 3 steps" in card and "None were taken" in card and "hardware" not in card
    assert "model-index" not in yaml.safe_load(card.split("---")[1])
    (tmp_path / "metrics.json").write_text("{ half")
    assert model_card("me/bands", config, "apache-2.0", tmp_path) == card


def test_what_cannot_be_reached_is_a_sentence(hub, run, monkeypatch):
    with pytest.raises(
        UserError,
        match=r"no folder 'me/none', and as a model of the hub it cannot be fetched \(404: no such repository\)",
    ):
        Pipeline.from_pretrained("me/none", "cpu")
    pipe = Pipeline.from_pretrained(run, "cpu")
    for name in ("faces", "me/fa ces", "a/b/c"):
        with pytest.raises(UserError, match="is no name on the hub: give owner/model"):
            pipe.push_to_hub(name)
    with pytest.raises(UserError, match="there is no model 'faces'"):  # no name of the hub: it is not asked
        Pipeline.from_pretrained("faces", "cpu")

    def refuse(*arguments, **options):
        raise PermissionError("401 Unauthorized\nand more")

    monkeypatch.setattr(sys.modules["huggingface_hub"].HfApi, "create_repo", refuse)
    with pytest.raises(UserError, match=r"could not be pushed as 'me/faces' \(401 Unauthorized\): log in"):
        pipe.push_to_hub("me/faces")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"need huggingface_hub: pip install 'lddgan\[hub\]'"):
        Pipeline.from_pretrained("me/faces", "cpu")
