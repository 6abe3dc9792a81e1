"""`lddgan evaluate MODEL --data PATH`: how near are a model's samples, or any set of images, to a reference set?

FID is the score in Inception features alone; in others it is called by the network, such as FD[resnet56]. Scores are
comparable when all that stands beside them in `metrics.json` is the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from lddgan.cli.main import Parser
from lddgan.errors import UserError
from lddgan.metrics.evaluate import Reference, evaluate
from lddgan.metrics.features import NETWORKS, FeatureNetwork, load_features
from lddgan.metrics.measured import Measured, from_model, from_path
from lddgan.pipeline import PRECISIONS, Pipeline
from lddgan.runtime.device import DEVICES, resolve_device
from lddgan.runtime.files import atomic_write, ensure_folder
from lddgan.runtime.parallel import joined
from lddgan.spaces.latent import DECODERS

SAMPLES = 50_000


def main(arguments: list[str]) -> None:
    parser = Parser(prog="lddgan evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a model or run folder, or the name of a shipped model")
    parser.add_argument("--samples", metavar="PATH", help="a set of images, or an .npz of them, instead of a model")
    parser.add_argument("--data", metavar="PATH", help="the reference images (default: the model's training data)")
    parser.add_argument("--reference", type=Path, metavar="STATS", help="statistics (.npz, .npy) instead of --data")
    parser.add_argument("--export-reference", type=Path, metavar="STATS.npz", help="write the reference's statistics")
    parser.add_argument("--features", default="inception", choices=NETWORKS, help="feature network (default inception)")
    parser.add_argument("--features-weights", type=Path, metavar="PATH", help="its weights, instead of a download")
    parser.add_argument("--protocol", default="png", choices=("png", "jpeg"), help="jpeg: as the published code saves")
    parser.add_argument("--n", type=int, help=f"samples (default {SAMPLES:,} of a model, all images of --samples)")
    parser.add_argument("--n-reference", type=int, help="reference images (default all), evenly spread")
    parser.add_argument("--split", default="train", choices=("train", "test", "all"), help="of --data (default train)")
    parser.add_argument("--samples-split", default="all", choices=("train", "test", "all"), help="of --samples")
    parser.add_argument("--resolution", type=int, help="crop and resize images of --samples and --data to this side")
    parser.add_argument("--channels", type=int, choices=(1, 3, 4), help="convert images of --samples and --data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("metrics.json"), help="default metrics.json")
    parser.add_argument("--decoder", choices=DECODERS, help="slim (the default where the model has one) or full")
    parser.add_argument("--precision", default="auto", choices=PRECISIONS, help="of a MODEL's samples")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args(arguments)

    if (options.model is None) == (options.samples is None):
        raise UserError("lddgan evaluate: give either a MODEL or --samples PATH")
    if options.data and options.reference:
        raise UserError("lddgan evaluate: give either --data or --reference, not both")
    if options.out.suffix != ".json":
        raise UserError(f"the scores go into a .json file, not '{options.out}': change --out")
    with joined(resolve_device(options.device)) as everyone:
        if not everyone.first:  # what is downloaded or decoded for the first time is so once, by the first
            everyone.wait()
        samples, reference, network = _images(options)
        if everyone.first:
            everyone.wait()
        metrics = evaluate(samples, reference, network, options.protocol, options.export_reference)
    if not everyone.first:
        return
    with atomic_write(options.out) as temporary:
        temporary.write_text(json.dumps(metrics, indent=2) + "\n")
    print(json.dumps(metrics) if options.json else as_table(metrics))
    print(f"written to '{options.out}'", file=sys.stderr)


def _images(options: argparse.Namespace) -> tuple[Measured, Reference, FeatureNetwork]:
    """Samples, what they are compared with, and the feature network."""
    ensure_folder(options.out.parent)
    network = load_features(options.features, options.features_weights, resolve_device(options.device))
    resolution, channels, data = options.resolution, options.channels, options.data
    if options.model:
        if resolution or channels:
            raise UserError("a model has its own resolution and channels: give them with --samples only")
        pipe = Pipeline.from_pretrained(
            options.model, options.device, options.decoder, precision=options.precision
        )  # fmt: skip
        samples = from_model(pipe, options.model, SAMPLES if options.n is None else options.n, options.seed)
        resolution, _, channels = samples.shape
        data = data or pipe.config.data
    else:
        samples = from_path(options.samples, options.samples_split, options.n, resolution, channels)
    if options.reference:
        reference = Reference(statistics=options.reference)
    elif data:
        reference = Reference(from_path(data, options.split, options.n_reference, resolution, channels))
    else:
        raise UserError("lddgan evaluate: give the reference images with --data PATH")
    return samples, reference, network


def as_table(metrics: dict[str, Any]) -> str:
    """The scores with the protocol below them; `-` where a score could not be had."""
    label = "" if metrics["features"] == "inception" else f"[{metrics['features']}]"

    def row(name: str, value: float | None, deviation: float | None = None) -> str:
        text = "-" if value is None else f"{value:.4f}" + ("" if deviation is None else f" +- {deviation:.4f}")
        return f"{name:<28}{text}"

    lines = [
        row(metrics["score"], metrics["frechet_distance"]),
        row(f"KID{label}" if not label else f"KD{label}", metrics["kernel_distance"], metrics["kernel_distance_std"]),
        row(f"Inception score{label}" if not label else f"class score{label}",
            metrics["inception_score"], metrics["inception_score_std"]),
        *(row(name, metrics[name]) for name in ("precision", "recall", "density", "coverage")),
    ]  # fmt: skip
    for name, value in (metrics["coverage_per_class"] or {}).items():
        lines.append(row(f"  coverage of {name}", value))
    reference = metrics["reference"]
    lines += [
        "",
        f"features   {metrics['feature_network']} (weights {metrics['weights_sha256'][:12]})",
        f"images     {metrics['preprocessing']}",
        f"protocol   {metrics['protocol']}: {metrics['protocol_detail']}",
        f"samples    {metrics['n_samples']:,} of {metrics['samples'].get('model') or metrics['samples'].get('path')}",
        f"reference  {metrics['n_reference'] or 'unknown number':,} of {reference['path']}"
        if isinstance(metrics["n_reference"], int) else f"reference  {reference['path']}",
        f"measured   in {metrics['seconds']:.0f} s on {metrics['hardware']}",
    ]  # fmt: skip
    return "\n".join(lines)
