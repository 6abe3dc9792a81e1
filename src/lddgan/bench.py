"""How fast a model draws: the paper's protocol, and how much of the machine it uses."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from tqdm import tqdm

from lddgan.estimate import model_cost
from lddgan.pipeline import Pipeline
from lddgan.runtime.device import describe

WARM_UP = 3
LATENCY_TRIALS = 20


def bench(pipe: Pipeline, batch: int = 100, trials: int = 300) -> dict[str, Any]:
    """Time `trials` batches of `batch` images, from seeds to uint8 pixels, decoder included (paper, Section 5.1.2).

    Returns:
        `nfe`; `decoder`, full or slim; `batch_seconds` (mean, as in the paper's tables), median, and the quartiles;
        `images_per_second` (of the median); `first_image_seconds` (median of one image alone); `warm_up_seconds` (the
        first batch);
        `conv_peak_macs` (multiply-accumulates a second of a large 3x3 convolution here, in the same precision) and
        `peak_fraction`, the share of it that was reached: more than 1 where Winograd's convolutions multiply less.
    """
    warm_up = [timed(lambda: pipe.draw(range(batch)), pipe.device) for _ in range(WARM_UP)]
    times = [
        timed(lambda k=k: pipe.draw(range(k * batch, (k + 1) * batch)), pipe.device)
        for k in tqdm(range(trials), desc="bench", unit="batch", leave=False, delay=1, dynamic_ncols=True)
    ]
    alone = [timed(lambda k=k: pipe.draw([k]), pipe.device) for k in range(LATENCY_TRIALS)]
    quartiles = statistics.quantiles(times, n=4) if trials > 1 else times * 3
    median = statistics.median(times)
    peak = convolution_peak(pipe.device, getattr(torch, pipe.drawn_in))
    macs = model_cost(pipe.config)["slim_sample_macs" if pipe.decoder == "slim" else "sample_macs"]
    return {
        "nfe": pipe.schedule.num_steps, "decoder": pipe.decoder, "batch": batch, "trials": trials,
        "batch_seconds": statistics.mean(times), "batch_seconds_median": median,
        "batch_seconds_quartiles": [quartiles[0], quartiles[2]],
        "images_per_second": batch / median,
        "first_image_seconds": statistics.median(alone), "warm_up_seconds": warm_up[0],
        "sample_macs": macs, "conv_peak_macs": peak, "peak_fraction": macs * batch / median / peak,
        "precision": pipe.drawn_in, "engine": pipe.engine, "hardware": describe(pipe.device),
        "torch": torch.__version__,
    }  # fmt: skip


def convolution_peak(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Multiply-accumulates a second of the fastest of a few large 3x3 convolutions: what is within reach."""
    best = 0.0
    for batch, channels, side in ((32, 128, 32), (64, 256, 16), (16, 64, 64)):
        x = torch.randn(batch, channels, side, side, device=device).to(dtype, memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, 3, 3, device=device).to(dtype, memory_format=torch.channels_last)
        with torch.inference_mode():
            seconds = [timed(lambda x=x, w=weight: F.conv2d(x, w, padding=1), device) for _ in range(8)][2:]
        best = max(best, batch * side**2 * channels**2 * 9 / statistics.median(seconds))
    return best


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call, all work on a GPU done before and after."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
