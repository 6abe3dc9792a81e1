"""The embedded set: 1,797 real handwritten digits, 8x8 grey.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits" (test part), UCI Machine Learning
Repository, 1998, https://doi.org/10.24432/C50P49, licence CC BY 4.0
(https://creativecommons.org/licenses/by/4.0/). The values are as published: each pixel counts, from 0 to 16, the
set bits of a 4x4 block of the original 32x32 bitmap. Only the container (one .npz file) is ours.
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np

DIGITS_COUNT = 1797


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 `[1797, 8, 8]` from 0 to 16, as published, and labels uint8 `[1797]` from 0 to 9."""
    with (files("lddgan.data") / "digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return arrays["pixels"], arrays["labels"]


def scale_digits(pixels: np.ndarray) -> np.ndarray:
    """Pixels 0..16 -> uint8 grey 0..255, `round(v * 255 / 16)`; no two values fall together."""
    return np.rint(pixels * (255 / 16)).astype(np.uint8)
