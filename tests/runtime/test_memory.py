from __future__ import annotations

import ctypes
import platform
import resource

import pytest
import torch

from lddgan.runtime import memory
from lddgan.runtime.memory import keep_freed_memory


class OldLibc:
    """It takes no threshold above 32 MB."""

    def __init__(self) -> None:
        self.set: dict[int, int] = {}

    def mallopt(self, limit: int, value: int) -> int:
        taken = limit != memory._MMAP_THRESHOLD or value <= 32 << 20
        if taken:
            self.set[limit] = value
        return taken


def pages_of_a_tensor() -> int:
    """How many pages the system gave for a tensor of 64 MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told so")
def test_a_tensor_comes_in_the_pages_of_the_one_before():
    keep_freed_memory()
    for _ in range(4):  # where they come from settles
        pages_of_a_tensor()
    assert pages_of_a_tensor() < 1000  # of 16,384


def test_an_old_library_is_told_what_it_takes_and_the_environment_goes_first(monkeypatch):
    """With the limit of the heap alone it would hand back every block above 128 kB."""
    libc = OldLibc()
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.31"))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: libc)
    for name in memory._SETTINGS:
        monkeypatch.delenv(name, raising=False)
    keep_freed_memory()
    assert libc.set == {memory._MMAP_THRESHOLD: 32 << 20, memory._TRIM_THRESHOLD: (1 << 31) - 1}
    libc.set.clear()
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    keep_freed_memory()
    assert not libc.set
