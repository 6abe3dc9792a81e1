"""Tensors under other names: out of a checkpoint file, into a module of ours and back; a sentence where they don't fit.

A *key map* gives our name for every name of the file. Errors call the file `what`: "generator", "autoencoder", ...
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lddgan.errors import UserError

Network = TypeVar("Network", bound=nn.Module)
PICKLES, SAFETENSORS = (".ckpt", ".pt", ".pth"), ".safetensors"


def build(make: Callable[[], Network], what: str) -> Network:
    """`make()`; the sizes come from the file, so that a ValueError is the file's fault."""
    try:
        return make()
    except ValueError as error:
        raise UserError(f"The {what} file has sizes that cannot be built: {error}") from error


def load(model: Network, state: Mapping[str, Tensor], key_map: Mapping[str, str], what: str) -> Network:
    """`model` with the weights `state`, in float32 and evaluation mode.

    Raises:
        UserError: entries of `key_map` are missing, there are others, or one has another shape than the model's.
    """
    missing = sorted(key_map.keys() - state.keys())
    if missing:
        raise UserError(f"The {what} file is incomplete: {missing[0]} is missing ({len(missing)} missing in all).")
    extra = sorted(state.keys() - key_map.keys())
    if extra:
        raise UserError(f"The {what} file has entries that do not belong to it: {extra[0]} ({len(extra)} in all).")
    own = model.state_dict()
    loaded = {}
    for released, name in key_map.items():
        tensor = state[released].T if _is_transposed(released) else state[released]
        if tensor.shape != own[name].shape:
            raise UserError(
                f"The {what} file's {released} has the shape {list(state[released].shape)}, which does not fit the "
                "rest of the file; it is damaged or of another kind."
            )
        loaded[name] = tensor.float()
    model.load_state_dict(loaded)
    return model.eval()


def export(model: nn.Module, key_map: Mapping[str, str]) -> dict[str, Tensor]:
    """Copies of the model's tensors under the names of the file."""
    own = model.state_dict()
    return {
        released: (own[name].T if _is_transposed(released) else own[name])
        .detach()
        .clone(memory_format=torch.contiguous_format)
        for released, name in key_map.items()
    }


def tensor_names(modules: Mapping[str, str], model: nn.Module) -> dict[str, str]:
    """The key map of parameters that follows from one of modules; NCSN++ calls those of its per-pixel linears W, b."""
    names = {}
    for released, part in modules.items():
        is_nin = ".NIN_" in released
        for tensor, _ in model.get_submodule(part).named_parameters():
            names[f"{released}.{'Wb'[tensor == 'bias'] if is_nin else tensor}"] = f"{part}.{tensor}"
    return names


def get(state: Mapping[str, Tensor], name: str) -> Tensor:
    """The entry `name`, or a sentence."""
    if name not in state:
        raise UserError(f"The file is incomplete: {name} is missing.")
    return state[name]


def without_prefix(state: Mapping[str, Tensor], prefix: str = "module.") -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def without_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without those that a stored Lightning checkpoint and a parallel module put before names."""
    return without_prefix(without_prefix(state, "state_dict."))


def continued(error: UserError) -> str:
    """What an error says, as a part of another sentence."""
    reason = str(error).rstrip(".")
    return reason[0].lower() + reason[1:]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file by name, without the prefixes `state_dict.` and `module.`.

    A `.ckpt`, `.pt` or `.pth` (a dictionary of tensors, or one with a `state_dict`, as Lightning writes) is read with
    `weights_only`, so that nothing in it is run; a `.safetensors` holds nothing else.

    Raises:
        UserError: there is no such file; it is damaged, or holds anything but tensors.
    """
    return tensors_in(read_checkpoint(path), path)


def tensors_in(content: Any, path: Path) -> dict[str, Tensor]:
    """The same of the content of a file that was read."""
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state:
        raise UserError(f"'{path}' holds no weights (tensors by name): give another checkpoint")
    other = next(
        (name for name, value in state.items() if not (isinstance(name, str) and isinstance(value, Tensor))), None
    )
    if other is not None:
        raise UserError(
            f"'{path}' holds {other!r}, which is no tensor, beside its weights: give a file with a state_dict or with "
            "tensors only"
        )
    return without_prefixes(state)


def read_checkpoint(path: Path) -> Any:
    """What a checkpoint file holds: containers of tensors, numbers and words, read without running any of it.

    The arguments of a training (an `argparse.Namespace`) may be among them; making one runs nothing.

    Raises:
        UserError: there is no such file; it is damaged, or holds anything else.
    """
    if path.suffix not in (*PICKLES, SAFETENSORS):
        raise UserError(f"'{path}' is no checkpoint file: give a {', '.join(PICKLES)} or {SAFETENSORS} file")
    if not path.is_file():
        raise UserError(f"there is no checkpoint file '{path}': check the path")
    try:
        if path.suffix == SAFETENSORS:
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise UserError(f"'{path}' is no safetensors file or is damaged ({error}): copy it again") from None
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to say
        foreign = re.search(r"GLOBAL (\S+)|(TorchScript)", str(error))
        if foreign is None:
            raise UserError(f"'{path}' is no PyTorch checkpoint or is damaged: copy it again") from None
        raise UserError(
            f"'{path}' holds more than tensors ({foreign[1] or foreign[2]}), and loading that could run code: where "
            f"you trust it, write its weights alone with torch.save(torch.load({str(path)!r}, weights_only=False)"
            "['state_dict'], 'weights.pt') and give that file"
        ) from None


def _is_transposed(released: str) -> bool:
    return released.endswith(".W")  # attention weights are stored [in, out]
