"""`lddgan bench MODEL`: how fast a model draws, by the paper's protocol: the mean time of a batch of 100 over 300
trials, decoder included."""

from __future__ import annotations

import json

from lddgan.bench import bench
from lddgan.cli.main import Parser
from lddgan.errors import UserError
from lddgan.pipeline import ENGINES, PRECISIONS, Pipeline
from lddgan.runtime.device import DEVICES
from lddgan.spaces.latent import DECODERS

QUICK_TRIALS = 10


def main(arguments: list[str]) -> None:
    parser = Parser(prog="lddgan bench", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="a model or run folder, or the name of a shipped model")
    parser.add_argument("--batch", type=int, default=100, help="images drawn at once (default 100)")
    parser.add_argument("--trials", type=int, default=300, help="batches (default 300)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_TRIALS} batches")
    parser.add_argument("--decoder", choices=DECODERS, help="slim (the default where the model has one) or full")
    parser.add_argument("--engine", default="auto", choices=ENGINES, help="what draws (Pipeline.engine says more)")
    parser.add_argument("--precision", default="auto", choices=PRECISIONS, help="auto: bfloat16 where it is fast")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    trials = QUICK_TRIALS if options.quick else options.trials
    if trials < 1 or options.batch < 1:
        raise UserError(f"cannot time {trials} batches of {options.batch}: give positive numbers")
    pipe = Pipeline.from_pretrained(options.model, options.device, options.decoder, options.engine, options.precision)
    result = {"model": options.model, **bench(pipe, options.batch, trials)}
    if options.json:
        print(json.dumps(result))
        return
    low, high = result["batch_seconds_quartiles"]
    drawn = f"{result['decoder']} decoder" if pipe.space.networks() else f"no decoder, the space is {pipe.config.space}"
    print(
        f"function evaluations    {result['nfe']}, {drawn}\n"
        f"batch of {result['batch']:<15}{result['batch_seconds']:.4f} s mean of {trials}, median "
        f"{result['batch_seconds_median']:.4f} s, quartiles {low:.4f} to {high:.4f} s\n"
        f"throughput              {result['images_per_second']:,.0f} images/s\n"
        f"first image             {result['first_image_seconds'] * 1e3:.1f} ms\n"
        f"first batch (warm-up)   {result['warm_up_seconds']:.4f} s\n"
        f"convolution peak        {result['conv_peak_macs'] / 1e9:,.0f} GMAC/s, of which "
        f"{result['peak_fraction']:.0%} was reached\n"
        f"measured on             {result['hardware']}, {result['precision']}"
    )
