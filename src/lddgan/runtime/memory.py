"""What this process does with memory that it has freed."""

from __future__ import annotations

import ctypes
import platform

ALL = (1 << 30, (1 << 31) - 1)
BY_DEFAULT = (32 << 20, 64 << 20)
"""Where glibc's own limits, which grow with the blocks that are freed, come to rest."""
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1


def keep_freed_memory(block: int = ALL[0], heap: int = ALL[1]) -> None:
    """Keep freed memory for the next tensor, where the C library is glibc.

    By itself it hands large blocks back to the system at once. Every large tensor then comes in fresh pages, each of
    which the system first fills with zeros: a tenth of a training step. The peak is what it was.

    Args:
        block: bytes of the largest block that is kept.
        heap: bytes that are kept at the end of the heap.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, block)
        libc.mallopt(_TRIM_THRESHOLD, heap)
