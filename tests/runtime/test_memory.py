from __future__ import annotations

import platform
import resource

import pytest
import torch

from lddgan.runtime.memory import keep_freed_memory


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
