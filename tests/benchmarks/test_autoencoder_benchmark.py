from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from autoencoder import linear_codec  # noqa: E402


def test_the_linear_codec_is_the_projection_onto_principal_components():
    torch.manual_seed(0)
    images = torch.nn.functional.interpolate(torch.randn(50, 1, 8, 8), size=16, mode="bilinear")
    codec = linear_codec(images, 2, 2)
    patches = torch.nn.functional.unfold(images, 2, stride=2).transpose(1, 2).flatten(0, 1).double()
    variances = torch.linalg.eigvalsh(torch.cov((patches - patches.mean(0)).T))  # ascending
    with torch.no_grad():
        error = (codec(images) - images).square().mean().item()
    count = len(patches)
    assert abs(error / (variances[:2].sum().item() / 4 * (count - 1) / count) - 1) < 1e-4
