"""Complete experiments: plain functions that return a `Config`.

The paper's recipes follow its Tables 1, 8, 9 and 10; what those leave out (R1 weight, Weighted Learning's delta,
the autoencoders' widths) is as in the published runs, and so are the predecessors' recipes.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from lddgan.config import Config
from lddgan.errors import UserError
from lddgan.recipes.at256 import (
    celebahq256,
    celebahq256_ddgan,
    celebahq256_wddgan,
    lsun_church256,
    lsun_church256_ddgan,
    lsun_church256_wddgan,
)
from lddgan.recipes.cifar10 import (
    cifar10,
    cifar10_ddgan,
    cifar10_ddgan_small,
    cifar10_small,
    cifar10_uvit_large,
    cifar10_uvit_large_small,
    cifar10_uvit_mid,
    cifar10_uvit_mid_small,
    cifar10_uvit_tiny,
    cifar10_uvit_tiny_small,
    cifar10_wddgan,
    cifar10_wddgan_small,
)
from lddgan.recipes.own import demo, folder

__all__ = ["RECIPES", "folder", "recipe"]

RECIPES: dict[str, Callable[[], Config]] = {
    "demo": demo,
    "cifar10-small": cifar10_small,
    "cifar10-ddgan-small": cifar10_ddgan_small,
    "cifar10-wddgan-small": cifar10_wddgan_small,
    "cifar10-uvit-tiny-small": cifar10_uvit_tiny_small,
    "cifar10-uvit-mid-small": cifar10_uvit_mid_small,
    "cifar10-uvit-large-small": cifar10_uvit_large_small,
    "cifar10": cifar10,
    "cifar10-ddgan": cifar10_ddgan,
    "cifar10-wddgan": cifar10_wddgan,
    "cifar10-uvit-tiny": cifar10_uvit_tiny,
    "cifar10-uvit-mid": cifar10_uvit_mid,
    "cifar10-uvit-large": cifar10_uvit_large,
    "celebahq256": celebahq256,
    "celebahq256-ddgan": celebahq256_ddgan,
    "celebahq256-wddgan": celebahq256_wddgan,
    "lsun-church256": lsun_church256,
    "lsun-church256-ddgan": lsun_church256_ddgan,
    "lsun-church256-wddgan": lsun_church256_wddgan,
}


def recipe(name: str) -> Config:
    """The recipe called `name` (all but `folder`, which has to see the data first).

    Raises:
        UserError: there is none; names the closest one.
    """
    if name not in RECIPES:
        names = [*RECIPES, "folder"]
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f"did you mean '{close[0]}'?" if close else f"choose one of {', '.join(names)}"
        raise UserError(f"there is no recipe '{name}': {hint}")
    return RECIPES[name]()
