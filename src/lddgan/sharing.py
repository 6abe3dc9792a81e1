"""Models on the Hugging Face hub: fetched by name, pushed with a card that is written from the run."""

from __future__ import annotations

import importlib
import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from lddgan.config import Config
from lddgan.errors import UserError, first_line
from lddgan.estimate import model_cost
from lddgan.reports.grid import save_grid
from lddgan.runtime.files import atomic_write

if TYPE_CHECKING:
    from lddgan.pipeline import Pipeline

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
FILES = ["config.json", "*.safetensors"]
"""All that a model is; nothing else is fetched, so nothing that could run."""
SAMPLES, SAMPLE_SEED = 64, 0
SYSTEMS = {"latent": "LDDGAN", "pixels": "DDGAN", "wavelet": "WDDGAN"}


def fetch(name: str) -> Path:
    """The local folder with the model `owner/model` of the hub.

    Raises:
        UserError: huggingface_hub is not installed, or there is no such model in reach.
    """
    hub = _hub()
    try:
        return Path(hub.snapshot_download(name, allow_patterns=FILES))
    except Exception as error:  # the client's own, and whatever its transport raises
        raise UserError(
            f"there is no folder '{name}', and as a model of the hub it cannot be fetched ({first_line(error)}): check "
            "the path, or the name and the connection"
        ) from None


def push(pipe: Pipeline, name: str, *, private: bool, licence: str, half: bool) -> str:
    """Upload the model, a picture of its samples and its card as `owner/model`; returns the address.

    Raises:
        UserError: huggingface_hub is not installed, the name is none, or the hub refuses.
    """
    if not HUB_NAME.fullmatch(name):
        raise UserError(f"'{name}' is no name on the hub: give owner/model")
    hub = _hub()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pipe.save_pretrained(folder, torch.float16 if half else torch.float32)
        save_grid(pipe(SAMPLES, SAMPLE_SEED), folder / "samples.png")
        with atomic_write(folder / "README.md") as file:
            file.write_text(model_card(name, pipe.config, licence, pipe.origin))
        try:
            client = hub.HfApi()
            address = client.create_repo(name, private=private, exist_ok=True)
            client.upload_folder(repo_id=name, folder_path=str(folder), commit_message="Upload of an lddgan model")
        except Exception as error:
            raise UserError(
                f"the model could not be pushed as '{name}' ({first_line(error)}): log in with hf auth login, or "
                "check the name"
            ) from None
    return str(address)


def model_card(name: str, config: Config, licence: str, origin: Path | None) -> str:
    """The README of a model on the hub: how it was trained, on what, and what it scores, as far as `origin` tells.

    Args:
        origin: the run or model folder it comes from; `run.json` and `metrics.json` in it are read where they are.
    """
    facts, metrics = _facts(origin, "run.json"), _facts(origin, "metrics.json")
    front: dict[str, Any] = {
        "license": licence, "library_name": "lddgan", "pipeline_tag": "unconditional-image-generation",
        "tags": ["lddgan", "diffusion", "gan", SYSTEMS[config.space].lower()],
    }  # fmt: skip
    if metrics.get("score") and metrics.get("frechet_distance") is not None:
        front["model-index"] = [_index(name, config, metrics)]
    cost, side = model_cost(config), config.images.resolution
    drawn = cost.get("slim_decoder_params", cost["decoder_params"])
    trained = [
        ("system", f"{SYSTEMS[config.space]}, {config.diffusion.num_steps} steps"),
        ("images", f"{side}x{side}, {config.images.channels} channels"),
        ("recipe", f"`{config.recipe}`, seed {config.seed}, {config.stage2.epochs} epochs of stage 2"),
        ("data", f"{_data_name(config.data)}" + _count(facts.get("training_images"))),
        ("hardware", facts.get("hardware")),
        ("parameters", f"{(cost['generator_params'] + drawn) / 1e6:.2f} M, the decoder that draws included"),
        ("MACs of an image", f"{cost.get('slim_sample_macs', cost['sample_macs']) / 1e9:.2f} G"),
    ]
    lines = [
        "---", yaml.safe_dump(front, sort_keys=False).strip(), "---", "", f"# {name.split('/')[-1]}", "",
        f"A few-step diffusion GAN ({SYSTEMS[config.space]}) that draws images of {side}x{side} pixels, trained with "
        "[lddgan](https://pypi.org/project/lddgan).", "", "![samples](samples.png)", "",
        f"Images 0 to {SAMPLES - 1} of seed {SAMPLE_SEED}, none picked.", "", "```python",
        "from lddgan import Pipeline", "", f'pipe = Pipeline.from_pretrained("{name}")',
        "images = pipe(16, seed=0)  # uint8 [16, H, W, C]", "```", "", "## Training", "", "| | |", "|---|---|",
        *(f"| {key} | {value} |" for key, value in trained if value), "", "## Scores", "", *_scores(metrics), "",
        f"Licence of the weights: {licence}.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _scores(metrics: dict[str, Any]) -> list[str]:
    if "score" not in metrics:
        return ["None were taken: `lddgan evaluate MODEL --data PATH --out RUN/metrics.json` does."]
    values = [("frechet_distance", metrics["score"]), *((key, key) for key in ("precision", "recall", "density",
                                                                            "coverage"))]  # fmt: skip
    rows = [f"| {label} | {metrics[key]:.4g} |" for key, label in values if metrics.get(key) is not None]
    split = metrics.get("reference", {}).get("split") or "given"
    protocol = (
        f"{metrics.get('n_samples')} samples against {metrics.get('n_reference')} images of the {split} split, "
        f"features of {metrics.get('feature_network', metrics.get('features'))}, protocol {metrics.get('protocol')}."
    )
    return ["| score | |", "|---|---|", *rows, "", protocol + " A score in other than Inception's features is no FID."]


def _index(name: str, config: Config, metrics: dict[str, Any]) -> dict[str, Any]:
    data = _data_name(config.data)
    result = {
        "task": {"type": "unconditional-image-generation"},
        "dataset": {"name": data, "type": re.sub(r"[^\w-]+", "-", data.lower())},
        "metrics": [{"name": metrics["score"], "type": "frechet-distance", "value": metrics["frechet_distance"]}],
    }
    return {"name": name.split("/")[-1], "results": [result]}


def _data_name(data: str) -> str:
    """The name of a set without the folders that it lies in on this machine."""
    return Path(data).stem or "images of one's own"


def _count(images: int | None) -> str:
    return f", {images:,} images" if images else ""


def _facts(origin: Path | None, name: str) -> dict[str, Any]:
    """What a file of the model, or of the run whose `model` it is, says; nothing where none is there and whole."""
    if origin is None:
        return {}
    is_of_run = (origin.parent / "config.yaml").exists()
    for folder in (origin, origin.parent) if is_of_run else (origin,):
        try:
            content = json.loads((folder / name).read_text())
            return content if isinstance(content, dict) else {}
        except (OSError, ValueError):
            continue
    return {}


def _hub() -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise UserError("models on the hub need huggingface_hub: pip install 'lddgan[hub]'") from None
