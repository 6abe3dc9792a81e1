"""One self-contained page about a run: what went in, how it trained, what comes out, what it costs.

N training images, S samples, H height, W width, C channels, d pixels or features, K neighbours.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lddgan.config import Config, dump_yaml, load_yaml
from lddgan.data.prepare import ImageSet
from lddgan.data.sources import cache_folder
from lddgan.errors import UserError
from lddgan.estimate import model_cost, sample_memory
from lddgan.metrics.evaluate import Reference, evaluate
from lddgan.metrics.features import FeatureNetwork, load_features
from lddgan.metrics.manifold import nearest, nearest_distances
from lddgan.metrics.measured import Rows as FeatureRows
from lddgan.metrics.measured import evenly_spread, features_of, from_images, from_model
from lddgan.pipeline import Pipeline
from lddgan.reports.grid import image_grid
from lddgan.run import load_images
from lddgan.runtime.device import resolve_device
from lddgan.runtime.files import atomic_write, ensure_folder

TEMPLATE = Path(__file__).with_name("page.html")
SHEET, STEPS_SHOWN = 64, 5
SEED, SAMPLES_SHOWN, K = 0, 16, 3
YARDSTICK_IMAGES, HELD_OUT_IMAGES = 2000, 100
LARGEST_PNG = 2**19
"""Bytes; larger pictures become JPEGs, or a page about photographs would take tens of megabytes."""
HELD_VALUES = 2**24
"""Pixels of training images held at once, as float64, while neighbours are sought."""
SCORES = (
    "frechet_distance", "kernel_distance", "inception_score", "precision", "recall", "density", "coverage",
    "coverage_per_class",
)  # fmt: skip
"""The fields of `metrics.json` that are no part of the protocol, each perhaps with a deviation, `_std`."""


def write_report(
    folder: Path,
    device: str,
    samples: int,
    features: str | None = None,
    weights: Path | None = None,
    out: Path | None = None,
) -> Path:
    """Write the page about the run in `folder`, whole or not at all, and return its path.

    What the run has not got (yet), or data that has moved, is said in its place; a damaged file of the run stops.

    Args:
        device: what the model draws on.
        samples: how many samples are measured in the network `features`, whose weights may come from a file.
        out: the page; `folder/report.html` by default.

    Raises:
        UserError: no run there; a place that cannot be written; an unknown device or network; a damaged file; too few
            samples to measure.
        RunStopped: interrupted while measuring.
    """
    if not (folder / "config.yaml").exists():
        raise UserError(f"'{folder}' holds no run to report (no config.yaml): give a folder that lddgan train wrote")
    config, out = load_yaml(folder / "config.yaml"), out or folder / "report.html"
    if out.is_dir() or out.suffix != ".html":
        raise UserError(f"the page goes into an .html file, not '{out}': change --out")
    torch_device = resolve_device(device)
    ensure_folder(out.parent)
    network = load_features(features, weights, torch_device) if features else None
    model = next((folder / name for name in ("model", "best") if (folder / name / "config.json").exists()), None)
    pipe = Pipeline.from_pretrained(model, device) if model else None
    try:
        images, trouble = load_images(config, skip_broken=True), ""
    except UserError as error:
        images, trouble = None, f"The images cannot be read: {error}."
    trouble = trouble or ("" if pipe else "There is no model yet: stage 2 has not come to its first evaluation.")

    missing, scored = _missing(trouble), ""
    if network:  # first: what is wrong with the request shows before the long work
        scored = missing
        if pipe and images:
            measured = from_model(pipe, str(model), samples, SEED)
            scored = _metrics(evaluate(measured, Reference(from_images(images[0], config.data, "train")), network))
    page = Template(TEMPLATE.read_text("utf-8")).substitute(
        title=escape(f"{config.recipe} on {Path(config.data).name}"),
        run=_run(folder, config),
        config=escape(dump_yaml(config)),
        data=_data(*images) if images else missing,
        curves=_file(
            folder / "curves.png", "Losses and scores over the steps of all stages",
            "There are no curves yet: no stage has come to its first report.",
        ),
        reconstructions=_reconstructions(folder, config),
        samples=_over_time(folder / "samples"),
        copying=_copying(pipe, images, network, model.name) if pipe and images and model else missing,
        metrics=_all_metrics(folder / "metrics.json", scored),
        cost=_cost(config),
    )  # fmt: skip
    try:
        with atomic_write(out) as temporary:
            temporary.write_text(page, "utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"cannot write '{out}' ({error.strerror or error}): choose another --out") from error
    return out


def _reconstructions(folder: Path, config: Config) -> str:
    """What comes back from the space: of one without networks all does."""
    if config.autoencoder is None:
        return _paragraph(f"The space is {config.space}: it has no autoencoder, an image comes back as it is.")
    full = _file(
        folder / "reconstructions.png", "Held-out images, each with what the autoencoder makes of it to its right",
        "There are no reconstructions yet: stage 1 has not come to its first report.",
    )  # fmt: skip
    if config.slim_decoder is None:
        return full
    return full + _file(
        folder / "reconstructions-slim.png", "The same by the slim decoder",
        "The slim decoder has not come to a report yet.",
    )  # fmt: skip


class Pixels:
    """Images `[N, H, W, C]` as rows `[N, d]`, read slice by slice: a training set need not fit into memory."""

    def __init__(self, images: np.ndarray) -> None:
        self._images = images
        self.shape = (len(images), math.prod(images.shape[1:]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Tensor:
        return torch.from_numpy(np.array(self._images[rows])).flatten(1)

    def take(self, indices: np.ndarray) -> Tensor:
        """The rows at `indices`, `[len(indices), d]`."""
        return torch.from_numpy(self._images[indices]).flatten(1)


def nearest_training(
    images: np.ndarray, embed: Callable[[np.ndarray], Tensor], train: Pixels | FeatureRows, flips: bool
) -> tuple[Tensor, Tensor]:
    """The K training images nearest to each of `images`, nearest first.

    Args:
        images: uint8 `[S, H, W, C]`.
        embed: gives their rows `[S, d]`.
        train: `[N, d]`, embedded likewise.
        flips: the model trained on mirror images too, so a copy of one is a copy.

    Returns:
        Ratios, float64 `[S, K]`: the distance over the median distance from a training image to its nearest other one
        (of at most 2,000, evenly spread), so that 0 is a copy; infinite or NaN where that median is 0. And indices,
        int64 `[S, K]`: i, or N + i for the mirror image of training image i.
    """
    chunk = max(1, min(1024, HELD_VALUES // train.shape[1]))
    found = [nearest(embed(images), train, K, chunk)]
    if flips:  # mirroring the sample instead of all training images: for pixels the distances are the same
        distances, indices = nearest(embed(np.ascontiguousarray(images[:, :, ::-1])), train, K, chunk)
        found.append((distances, indices + len(train)))
    distances, order = torch.cat([d for d, _ in found], 1).topk(K, dim=1, largest=False)
    some = train.take(evenly_spread(len(train), YARDSTICK_IMAGES))
    yardstick = nearest_distances(some, some, chunk=chunk).median()
    return distances / yardstick, torch.cat([i for _, i in found], 1).gather(1, order)


def _run(folder: Path, config: Config) -> str:
    facts = {"recipe": config.recipe, "data": config.data, "run": str(folder), "seed": config.seed}
    run = _read_json(folder / "run.json")
    if run is None:
        facts["hardware"] = "not known: the run has not come to its end"
    return _facts({**facts, **(run or {}), "page made": date.today().isoformat()}, "The run")


def _data(train: ImageSet, held_out: ImageSet) -> str:
    indices = evenly_spread(len(train), SHEET)
    text = f"{len(train):,} training images, {len(held_out):,} held out"
    if train.classes:
        text += f"; {len(train.classes)} classes: {', '.join(train.classes[:20])}"
        text += " and others" if len(train.classes) > 20 else ""
    sheet = image_grid(train.images[indices])
    return _paragraph(f"{text}.") + _figure(sheet, f"{len(indices)} training images, evenly spread")


def _over_time(folder: Path) -> str:
    steps = {int(path.stem): path for path in folder.glob("*.png") if path.stem.isdigit()}
    if not steps:
        return _missing("There are no samples yet: stage 2 has not come to its first report.")
    last = max(steps)
    targets = np.linspace(min(steps), last, STEPS_SHOWN + 1)
    shown = {min(steps, key=lambda step: abs(step - target)) for target in targets} - {last}

    def figure(step: int, caption: str, widest: int) -> str:
        return _figure(_open(steps[step]), caption, f"Samples after {step:,} steps of stage 2", widest)

    strip = "".join(figure(step, f"step {step:,}", 700) for step in sorted(shown))
    return f'<div class="strip">{strip}</div>' + figure(last, f"step {last:,}, the last", 1400)


def _copying(pipe: Pipeline, images: tuple[ImageSet, ImageSet], network: FeatureNetwork | None, name: str) -> str:
    """A table of samples with their nearest training images, and how near they are beside held-out images."""
    train, held_out = images
    samples, flips = pipe(SAMPLES_SHOWN, SEED), pipe.config.images.flips
    compared = np.concatenate([samples, held_out.images[evenly_spread(len(held_out), HELD_OUT_IMAGES)]])
    rows = Pixels(train.images)
    found = {"pixels": nearest_training(compared, lambda some: torch.from_numpy(some).flatten(1), rows, flips)}
    if network:
        rows, _ = features_of(network, from_images(train, pipe.config.data, "train"), cache_folder() / "features")
        found[f"{network.name} features"] = nearest_training(compared, lambda some: network(some)[0], rows, flips)

    text = [
        f"{SAMPLES_SHOWN} samples of {name}/ (seed {SEED}), each with its {K} nearest of {len(train):,} training images"
        f"{' and their mirror images' if flips else ''}.",
        "Below each stands its distance over the median distance from a training image to its nearest other one (of "
        f"{min(len(train), YARDSTICK_IMAGES):,}): a copy has 0.",
    ]
    for measure, (ratios, _) in found.items():
        of_samples, of_held_out = ratios[:SAMPLES_SHOWN, 0], ratios[SAMPLES_SHOWN:, 0]
        text.append(
            f"By {measure}, the median sample has its nearest at {_ratio(of_samples.median())} and the least at "
            f"{_ratio(of_samples.min())}; the median of {len(of_held_out)} held-out images, which the model never "
            f"saw, at {_ratio(of_held_out.median())}."
        )
        if not ratios.isfinite().all():
            text.append("There is no ratio: more than half of these training images have an exact duplicate.")
    heads = "".join(f'<th scope="colgroup" colspan="{K}">nearest by {escape(measure)}</th>' for measure in found)
    places = "".join(f'<th scope="col">{place + 1}</th>' for _ in found for place in range(K))
    lines = []
    for i, sample in enumerate(samples):
        line = f'<tr><th scope="row">{_thumbnail(sample, f"sample {i}")}{i}</th>'
        for ratios, indices in found.values():
            for ratio, index in zip(ratios[i], indices[i].tolist(), strict=True):
                mirrored, index = divmod(index, len(train))
                image = train.images[index][:, ::-1] if mirrored else train.images[index]
                alt = f"training image {train.names[index]}{', mirrored' if mirrored else ''}"
                line += f"<td>{_thumbnail(image, alt)}{_ratio(ratio)}</td>"
        lines.append(f"{line}</tr>")
    return _paragraph(" ".join(text)) + _scrolling(
        f'<table class="near">\n<caption>Samples and their nearest training images</caption>\n<thead><tr>'
        f'<th scope="col" rowspan="2">sample</th>{heads}</tr>\n<tr>{places}</tr></thead>\n'
        f"<tbody>{''.join(lines)}</tbody>\n</table>"
    )


def _ratio(value: Tensor) -> str:
    return f"{value:.2f}" if value.isfinite() else "-"


def _all_metrics(file: Path, scored: str) -> str:
    stored = _read_json(file)
    parts = [] if stored is None else [f"<h3>{file.name}</h3>", _metrics(stored)]
    parts += ["<h3>Measured for this page</h3>", scored] if scored else []
    return "".join(parts) or _missing(
        f"There is no {file.name}: write it with lddgan evaluate {file.parent} --out {file}, or give --features NAME."
    )


def _metrics(metrics: dict[str, Any]) -> str:
    """The scores, then every other field: what must be the same for another number to be comparable."""
    names = {"frechet_distance": str(metrics.get("score", "Frechet distance"))}
    if metrics.get("features") != "inception":
        # Like FID, the Inception score is one in Inception's features alone.
        names |= {"inception_score": "class score", "inception_score_std": "class score std"}
    scores, protocol = {}, {}
    for name, value in _flat(metrics).items():
        if name.split(": ")[0].removesuffix("_std") in SCORES:
            scores[names.get(name, name)] = f"{value:.4f}" if isinstance(value, float) else value
        else:
            protocol[name] = value
    return _facts(scores, "Scores") + _facts(protocol, "Protocol")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}: ") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _cost(config: Config) -> str:
    cost = model_cost(config)
    parts = {
        f"generator, a step of {config.diffusion.num_steps}": ("generator_params", "generator_macs_per_step"),
        "decoder": ("decoder_params", "decoder_macs"),
        "encoder, not used to draw": ("encoder_params", "encoder_macs"),
    }
    counts = {part: tuple(cost[name] for name in names) for part, names in parts.items() if cost[names[0]]}
    counts["whole sample"] = (cost["generator_params"] + cost["decoder_params"], cost["sample_macs"])
    if "slim_decoder_params" in cost:
        slim = cost["slim_decoder_params"]
        counts["slim decoder"] = (slim, cost["slim_decoder_macs"])
        counts["whole sample with it"] = (cost["generator_params"] + slim, cost["slim_sample_macs"])
    rows = [(part, f"{params / 1e6:,.2f} M", f"{macs / 1e9:,.3f} G") for part, (params, macs) in counts.items()]
    memory = " and ".join(f"{sample_memory(config, n) / 2**30:.3f} GiB for a batch of {n}" for n in (1, 100))
    return _table("Cost of an image", rows, ("", "parameters", "multiply-accumulates")) + _paragraph(
        f"Memory: {memory} (weights and activations alive at once in float32, without what kernels take on top)."
    )


def _read_json(file: Path) -> dict[str, Any] | None:
    """What `file` holds, or None where there is none. Raises UserError."""
    try:
        values = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"'{file}' cannot be read as JSON ({error}): remove it or write it again") from error
    if not isinstance(values, dict):
        raise UserError(f"'{file}' holds no JSON object: remove it or write it again")
    return values


def _open(file: Path) -> Image.Image:
    try:
        with Image.open(file) as image:
            return image.convert("RGB" if image.mode != "L" else "L")
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises a SyntaxError for a broken PNG
        raise UserError(f"'{file}' is not a readable image ({error}): remove it") from error


def _file(file: Path, caption: str, missing: str) -> str:
    return _figure(_open(file), caption) if file.exists() else _missing(missing)


def _figure(image: Image.Image, caption: str, alt: str = "", widest: int = 1400) -> str:
    return f"<figure>{_image(image, alt or caption, widest)}<figcaption>{escape(caption)}</figcaption></figure>\n"


def _thumbnail(image: np.ndarray, alt: str) -> str:
    return _image(image_grid(image[None], padding=0), alt, 128)


def _image(image: Image.Image, alt: str, widest: int) -> str:
    """An `<img>` that holds its picture, made smaller where it is wider than `widest` px."""
    if image.width > widest:
        image = image.resize((widest, round(image.height * widest / image.width)), Image.Resampling.LANCZOS)
    kind, buffer = "png", io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    if buffer.tell() > LARGEST_PNG:
        kind, buffer = "jpeg", io.BytesIO()
        image.save(buffer, "JPEG", quality=90)
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f'width="{image.width}" height="{image.height}"'
    return f'<img src="data:image/{kind};base64,{data}" alt="{escape(alt)}" {size}>'


def _facts(facts: dict[str, Any], caption: str) -> str:
    return _table(caption, [(name.replace("_", " "), "-" if v is None else str(v)) for name, v in facts.items()])


def _table(caption: str, rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Text in a table; the first of each row is its heading."""
    heads = "".join(f'<th scope="col">{escape(name)}</th>' if name else "<td></td>" for name in head)
    lines = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    top = f"<thead><tr>{heads}</tr></thead>\n" if head else ""
    return _scrolling(f"<table>\n<caption>{escape(caption)}</caption>\n{top}<tbody>{lines}</tbody>\n</table>")


def _scrolling(table: str) -> str:
    """On a phone a wide table scrolls within the page, by keyboard too."""
    return f'<div class="wide" tabindex="0">{table}</div>\n'


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>\n"


def _missing(text: str) -> str:
    return f'<p class="missing">{escape(text)}</p>\n'
