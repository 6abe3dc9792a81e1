"""One graph in the form that another engine runs: ONNX, a torch.export program, OpenVINO, a page for the browser.

Each writer takes a `WholeSampler` and a path, and returns the function that runs what it has written there, loaded
anew: noise and z in, uint8 images out.
"""

from __future__ import annotations

import importlib
import json
import logging
import shutil
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import torch

from lddgan.drawing import WholeSampler
from lddgan.errors import UserError

Run = Callable[[np.ndarray, np.ndarray], np.ndarray]
ASSETS, PAGE = Path(__file__).with_name("assets"), Path(__file__).with_name("page.html")
SHOWN = 64
"""Pixels that an image takes in the page at least."""
SMALL = 256
"""Weights of at least so many numbers are stored in float16, where that is asked for."""


def write_onnx(sampler: WholeSampler, path: Path, half: bool) -> Run:
    """An `.onnx` file of opset 18, any batch size."""
    onnx = _needs("onnx", "export")
    for module in ("onnxruntime", "onnxscript"):
        _needs(module, "export")
    batch = torch.export.Dim("batch", min=1)
    with quiet():
        program = torch.onnx.export(
            sampler, sampler.inputs(2), dynamo=True, opset_version=18, input_names=["noise", "z"],
            output_names=["images"], dynamic_shapes=({0: batch}, {0: batch}), optimize=True, verbose=False,
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    _without_remarks(model)
    _share_equal(model)
    if half:
        _store_half(onnx, model)
    path.write_bytes(model.SerializeToString())
    return load_onnx(path)


def load_onnx(path: Path) -> Run:
    """What ONNX Runtime draws from a file of `write_onnx`, on the CPU."""
    runtime = _needs("onnxruntime", "export")
    try:
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # it has exceptions of its own, which it does not document
        raise UserError(f"ONNX Runtime cannot read '{path}' ({error}): remove it and run again") from None
    return lambda noise, z: session.run(["images"], {"noise": noise, "z": z})[0]


def write_torch(sampler: WholeSampler, path: Path, half: bool) -> Run:
    """A `.pt2` file for `torch.export.load`, which needs no code of this package; weights are float32."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    with quiet():
        program = torch.export.export(sampler, sampler.inputs(2), dynamic_shapes=({0: batch}, {0: batch}))
        torch.export.save(program, str(path))
        module = torch.export.load(str(path)).module()

    @torch.inference_mode()
    def run(noise: np.ndarray, z: np.ndarray) -> np.ndarray:
        return module(torch.from_numpy(noise), torch.from_numpy(z)).numpy()

    return run


def write_openvino(sampler: WholeSampler, path: Path, half: bool) -> Run:
    """A folder with `model.xml` and `model.bin`."""
    openvino = _needs("openvino", "openvino")
    path.mkdir()
    graph = path / "model.onnx"
    write_onnx(sampler, graph, half=False)
    model = openvino.convert_model(str(graph))
    openvino.save_model(model, str(path / "model.xml"), compress_to_fp16=half)
    graph.unlink()
    core = openvino.Core()
    # Left to itself it computes in bfloat16 on some CPUs, which is more than two grey levels off.
    compiled = core.compile_model(str(path / "model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda noise, z: compiled({"noise": noise, "z": z})["images"]


def write_web(sampler: WholeSampler, path: Path, half: bool) -> Run:
    """A folder that draws in a browser, from any static host and without a request to anywhere else.

    `index.html`, `model.onnx` and onnxruntime-web's files (`assets/README.md`).
    """
    path.mkdir()
    run = write_onnx(sampler, path / "model.onnx", half)
    for asset in ASSETS.iterdir():
        if asset.suffix in (".mjs", ".wasm"):
            shutil.copyfile(asset, path / asset.name)
    side = sampler.resolution
    model = {
        "steps": sampler.num_steps, "shape": sampler.shape, "latentDim": sampler.latent_dim,
        "image": [side, side, sampler.channels],
    }  # fmt: skip
    page = Template(PAGE.read_text("utf-8")).safe_substitute(
        title=escape(path.name.removesuffix("-web")), model=json.dumps(model), shown=max(side, SHOWN)
    )
    (path / "index.html").write_text(page, "utf-8")
    return run


def _without_remarks(model: Any) -> None:
    """Drop what the exporter notes down of the code behind every node: half of the file, and paths of this machine."""
    graphs = [model.graph, *model.functions]
    for part in (model, *graphs, *(node for graph in graphs for node in graph.node), *model.graph.value_info,
                 *model.graph.input, *model.graph.output, *model.graph.initializer):  # fmt: skip
        part.doc_string = ""
        del part.metadata_props[:]
    del model.graph.value_info[:]


def _share_equal(model: Any) -> None:
    """Keep equal constants once: transposed weights are otherwise stored anew for every step that uses them."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    names: dict[str, str] = {}
    kept = []
    for weight in model.graph.initializer:
        key = (weight.data_type, tuple(weight.dims), weight.raw_data)
        if weight.raw_data and key in first:
            names[weight.name] = first[key]
        else:
            first[key] = weight.name
            kept.append(weight)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def _store_half(onnx: Any, model: Any) -> None:
    """Store large float32 weights as float16, each with a cast behind it, which engines fold away as they load."""
    casts = []
    for weight in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < SMALL:
            continue
        name = weight.name
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), name + "_half"))
        casts.append(onnx.helper.make_node("Cast", [weight.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts + nodes)


def _needs(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(f"this needs {module}: pip install 'lddgan[{extra}]'") from None


@contextmanager
def quiet():
    """Without the exporters' own remarks, which name nothing that a user could mend."""
    names = ("torch.onnx", "onnxscript", "torch.export", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
