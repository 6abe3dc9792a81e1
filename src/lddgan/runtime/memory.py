"""What this process does with memory that it has freed."""

from __future__ import annotations

import ctypes
import os
import platform

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
_LARGEST_OF_OLD = 32 << 20  # before glibc 2.35 no greater threshold is taken
_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> None:
    """Keep it for the next tensor, where the C library is glibc and the environment does not set its limits.

    By itself it hands large blocks back to the system at once. Every large tensor then comes in fresh pages, each of
    which the system first fills with zeros: a tenth of a training step. The peak grows by up to a tenth.
    """
    set_malloc_limits(1 << 30, (1 << 31) - 1)


def set_malloc_limits(block: int, heap: int) -> None:
    """Tell glibc what is handed back to the system.

    Args:
        block: bytes above which a block is, when it is freed.
        heap: bytes of free memory at the heap's end above which they are.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _SETTINGS):
        return
    libc = ctypes.CDLL(None)
    if not libc.mallopt(_MMAP_THRESHOLD, block):
        libc.mallopt(_MMAP_THRESHOLD, min(block, _LARGEST_OF_OLD))
    libc.mallopt(_TRIM_THRESHOLD, heap)
