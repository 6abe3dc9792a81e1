"""Where the work is done, and in which precision."""

from __future__ import annotations

import contextlib
import platform

import torch

from lddgan.errors import UserError

DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `mps` to a device; auto takes the fastest there is.

    Raises:
        UserError: unknown name, or a device that this machine has not got.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if available[kind]))
    if not available.get(name, False):
        here = ", ".join(kind for kind in available if available[kind])
        raise UserError(f"the device '{name}' is not available here: choose auto or one of {here}")
    return torch.device(name)


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the chip multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """The autocast context of a stage's `precision`. Enter it anew for every phase: it caches cast weights."""
    if precision == "bfloat16" or (precision == "auto" and fast_bfloat16(device)):
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def describe(device: torch.device) -> str:
    """The hardware in words, for results."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        name = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), name)
    return f"{name}, {torch.get_num_threads()} threads"
