from __future__ import annotations

import pytest
import torch

from lddgan.errors import UserError
from lddgan.runtime.device import autocast, describe, resolve_device


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    for name in ("cuda", "mps", "tpu"):
        with pytest.raises(UserError, match=f"the device '{name}' is not available here: choose auto or one of cpu"):
            resolve_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")


def test_precision():
    cpu = torch.device("cpu")
    product = {}
    for precision in ("float32", "bfloat16"):
        with autocast(cpu, precision):
            product[precision] = (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    assert product == {"float32": torch.float32, "bfloat16": torch.bfloat16}


def test_description_names_the_threads():
    assert describe(torch.device("cpu")).endswith(f", {torch.get_num_threads()} threads")
