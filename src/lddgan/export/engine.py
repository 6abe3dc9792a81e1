"""Other engines than eager torch, each made once, read from the cache folder from then on, and compared at every load.

`onnx` is ONNX Runtime, `compiled` a program of torch's own compiler (AOTInductor) for one batch size; both on the CPU.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lddgan.data.latents import to_uint8, weights_hash
from lddgan.data.sources import cache_folder
from lddgan.drawing import WholeSampler, levels_apart
from lddgan.errors import UserError, first_line
from lddgan.export.formats import load_onnx, quiet, write_onnx
from lddgan.runtime.device import describe
from lddgan.runtime.files import alone, atomic_write, ensure_folder

Draw = Callable[[Tensor, Tensor], Tensor]
"""Noise and z of a `WholeSampler` in, its images out."""
LEVELS = 1
"""Grey levels that an engine may be off in float32."""
MEAN_LEVELS = 1.0
"""Grey levels that it may be off on average in bfloat16, where every other order of sums is another rounding."""
CHECKED = 4
"""Images that are compared at every load."""


def load_onnx_engine(sampler: WholeSampler, reference: Draw) -> Draw:
    """ONNX Runtime with what `sampler` draws with, any batch size.

    Args:
        reference: eager torch; the engine has to draw the same.

    Raises:
        UserError: the extra `export` is not installed, or the engine draws other images.
    """
    path = _path(sampler, ".onnx")
    if not path.exists():
        print("the model is exported for ONNX Runtime, once; this takes minutes", file=sys.stderr)
        with atomic_write(path) as temporary:
            write_onnx(sampler, temporary, half=False)
    run = load_onnx(path)

    def draw(noise: Tensor, z: Tensor) -> Tensor:
        return torch.from_numpy(run(noise.numpy(), z.numpy()))

    _compare(draw, reference, sampler.inputs(CHECKED), "ONNX Runtime", bfloat16=False)
    return draw


def compiled_path(sampler: WholeSampler, batch: int) -> Path:
    """The folder in which the programs for `batch` images lie, or would."""
    return _path(sampler, f"-{batch}")


def has_compiler() -> bool:
    """Whether there is a C++ compiler for torch to call."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def load_compiled(sampler: WholeSampler, batch: int, reference: Draw) -> Draw:
    """`sampler` compiled for `batch` images; it is compiled where that does not lie in the cache yet.

    Args:
        reference: as above.

    Raises:
        UserError: there is no C++ compiler, it fails, or the program draws other images.
    """
    folder = compiled_path(sampler, batch)
    if not folder.exists():
        if not has_compiler():
            raise UserError("torch compiles with a C++ compiler and finds none here: install g++, or take engine torch")
        print(
            f"the model is compiled for batches of {batch}, once; this takes a minute or more (it is kept in "
            f"'{folder.parent}')", file=sys.stderr,
        )  # fmt: skip
        try:
            with alone(ensure_folder(folder.parent) / folder.name):
                if not folder.exists():  # another program may have made it meanwhile
                    _compile(sampler, batch, folder)
        except Exception as error:  # of the compiler, which documents none of its own
            raise UserError(
                f"torch could not compile the model here ({first_line(error)}): take engine torch"
            ) from None
    try:
        step, decode = (torch._inductor.aoti_load_package(str(folder / name)) for name in PROGRAMS)
    except Exception as error:
        raise UserError(f"'{folder}' cannot be read ({first_line(error)}): remove it and run again") from None

    def draw(noise: Tensor, z: Tensor) -> Tensor:
        x = noise[:, 0].contiguous()
        for k, t in enumerate(reversed(range(sampler.num_steps))):
            added = noise[:, k + 1] if t > 0 else noise[:, 0]  # the last step adds none of it
            x = step(x, sampler.times[t : t + 1], z[:, k].contiguous(), added.contiguous())
        return decode(x)

    bfloat16 = any(weight.dtype == torch.bfloat16 for weight in sampler.parameters())
    _compare(draw, reference, sampler.inputs(batch), "the compiled program", bfloat16)
    return draw


PROGRAMS = ("step.pt2", "decode.pt2")
LOADING = "import sys, torch\nfor path in sys.argv[1:]: torch._inductor.aoti_load_package(path)"
"""What another process does first: torch 2.11 for CUDA dies of it where it sees no GPU, and nothing catches that."""


class _Step(nn.Module):
    """One step of Algorithm 1, for any t: T of them in a row would take T times as long to compile."""

    coefficients: Tensor

    def __init__(self, sampler: WholeSampler) -> None:
        super().__init__()
        self.generator = sampler.generator
        self.register_buffer("coefficients", torch.tensor(sampler.steps))

    def forward(self, x: Tensor, t: Tensor, z: Tensor, noise: Tensor) -> Tensor:
        of_x_0, of_x, std = self.coefficients[t][0].unbind()
        return (of_x_0 * self.generator(x, t, z) + of_x * x + std * noise).contiguous()


class _Decode(nn.Module):
    def __init__(self, sampler: WholeSampler) -> None:
        super().__init__()
        self.space = sampler.space

    def forward(self, x_0: Tensor) -> Tensor:
        return to_uint8(self.space.decode(x_0))


def _compile(sampler: WholeSampler, batch: int, folder: Path) -> None:
    """Write both programs into a new `folder`. They take contiguous tensors of just these sizes."""
    noise, z = sampler.inputs(batch)
    x = noise[:, 0].contiguous()
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary, torch.no_grad(), quiet():
        for name, module, given in (
            ("step.pt2", _Step(sampler), (x, sampler.times[:1], z[:, 0].contiguous(), x.clone())),
            ("decode.pt2", _Decode(sampler), (x,)),
        ):
            program = torch.export.export(module, given)
            torch._inductor.aoti_compile_and_package(
                program, package_path=f"{temporary}/{name}", inductor_configs={"freezing": True}
            )
        loader = subprocess.run([sys.executable, "-c", LOADING, *(f"{temporary}/{name}" for name in PROGRAMS)],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        if loader.returncode:
            raise RuntimeError(f"loading what it has compiled ends a program with code {loader.returncode}")
        Path(temporary).rename(folder)
        Path(temporary).mkdir()  # the context removes it


@torch.inference_mode()
def _compare(draw: Draw, reference: Draw, inputs: tuple[Tensor, Tensor], name: str, bfloat16: bool) -> None:
    ours, theirs = draw(*inputs), reference(*inputs)
    off: float = levels_apart(ours.numpy(), theirs.numpy())
    allowed: float = LEVELS
    if bfloat16 and off < 255:
        off, allowed = (ours.float() - theirs.float()).abs().mean().item(), MEAN_LEVELS
    if off > allowed:
        raise UserError(
            f"{name} draws images that are {off:.3g} grey levels off here, more than {allowed}: leave it out"
        )


def _path(sampler: WholeSampler, ending: str) -> Path:
    """By all that a program hangs on: weights, steps, decoder, the chip, and who wrote it."""
    facts: list[Any] = [weights_hash(sampler), sampler.steps, sampler.space.decoder, sampler.shape, sampler.resolution]
    facts += [torch.__version__, importlib.metadata.version("lddgan")]
    facts += [torch.backends.cpu.get_cpu_capability(), describe(torch.device("cpu"))]
    return cache_folder() / "engines" / f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}{ending}"
