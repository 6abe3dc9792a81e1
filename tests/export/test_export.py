from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import lively_model, spaced_config, tiny_config, visible

from lddgan import Pipeline
from lddgan.cli.main import run
from lddgan.config import with_fields
from lddgan.drawing import levels_apart
from lddgan.errors import UserError
from lddgan.export import model as module
from lddgan.export.model import export_model
from lddgan.export.sampler import export_sampler
from lddgan.models import build_generator, build_space, save_model


def latent_pipe(**changes) -> Pipeline:
    config = tiny_config(**changes)
    return Pipeline(config, *lively_model(config), device="cpu")


def spaced_pipe(name: str, **fields) -> Pipeline:
    config = with_fields(spaced_config(name, "digits"), fields)
    generator = build_generator(config)
    with torch.no_grad():
        generator.conv_out.weight.normal_(std=0.3)
    return Pipeline(config, build_space(config), generator, device="cpu")


def smallest_pipe() -> Pipeline:
    """Of few nodes, for exporters take long over each."""
    return spaced_pipe("pixels", **{"generator.multipliers": (1,), "diffusion.num_steps": 2})


needs = {
    "onnx": pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))), reason="the extra export"
    ),
    "openvino": pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="the extra openvino"),
}


@pytest.mark.parametrize("name", ["latent", "slim", "pixels", "wavelet", "vit"])
def test_the_whole_sampler_draws_what_the_pipeline_draws(name):
    pipe = latent_pipe() if name in ("latent", "slim") else spaced_pipe(name)
    if name == "latent":
        pipe.decoder = "full"
    sampler = export_sampler(pipe)
    for count in (1, 5):
        noise, z = sampler.inputs(count, seed=3)
        assert noise.shape == (count, 3, *pipe.config.space_shape) and z.shape == (count, 3, 4)
        assert levels_apart(sampler(noise, z).numpy(), pipe(count, seed=3)) <= 1
    assert np.unique(pipe(5, seed=3)).size > 20


def test_half_rounds_the_weights_of_a_copy():
    pipe = latent_pipe(slim_decoder=None)
    before = pipe(2)
    rounded = export_sampler(pipe, half=True).generator.state_dict()
    for name, value in pipe.generator.state_dict().items():
        assert torch.equal(rounded[name], value.half().float())
    assert (pipe(2) == before).all()


@pytest.mark.parametrize("half", [False, True])
def test_a_torch_program_loads_without_this_package(tmp_path, half):
    done = export_model(smallest_pipe(), "torch", tmp_path / "deep" / "model.pt2", half=half)
    assert done.levels <= 1 and visible(tmp_path) == ["deep/model.pt2"]
    assert done.megabytes == pytest.approx((tmp_path / "deep" / "model.pt2").stat().st_size / 1e6)
    assert done.python_ms > 0 and done.engine_ms > 0
    program = torch.export.load(str(done.path)).module()
    sampler = export_sampler(smallest_pipe(), half)
    noise, z = sampler.inputs(7, seed=9)
    assert levels_apart(program(noise, z).numpy(), sampler(noise, z).numpy()) <= 1


@needs["onnx"]
def test_onnx_takes_any_batch_and_half_the_room(tmp_path):
    import onnx
    import onnxruntime

    pipe, sizes = smallest_pipe(), []
    for half in (False, True):
        path = tmp_path / f"{half}.onnx"
        assert export_model(pipe, "onnx", path, half=half).levels <= 1
        sizes.append(path.stat().st_size)
        session = onnxruntime.InferenceSession(str(path))
        assert [(part.name, part.shape[1:]) for part in session.get_inputs()] == [
            ("noise", [2, 1, 8, 8]), ("z", [2, 4])
        ]  # fmt: skip
        sampler = export_sampler(pipe, half)
        noise, z = sampler.inputs(9, seed=4)
        (images,) = session.run(None, {"noise": noise.numpy(), "z": z.numpy()})
        assert levels_apart(images, sampler(noise, z).numpy()) <= 1
        names = [weight.name for weight in onnx.load(str(path)).graph.initializer]
        assert len(names) == len(set(names))
        contents = [
            (weight.data_type, tuple(weight.dims), weight.raw_data)
            for weight in onnx.load(str(path)).graph.initializer if weight.raw_data
        ]  # fmt: skip
        assert len(contents) == len(set(contents))
        assert b".py" not in path.read_bytes() and b"lddgan" not in path.read_bytes()  # nothing of this machine
    assert sizes[1] < sizes[0]


@needs["openvino"]
@needs["onnx"]
def test_openvino(tmp_path):
    done = export_model(smallest_pipe(), "openvino", tmp_path / "model", half=True)
    assert done.levels <= 2 and visible(tmp_path) == ["model/model.bin", "model/model.xml"]


def test_a_failed_check_leaves_nothing(tmp_path, monkeypatch):
    def wrong(sampler, path, half):
        path.write_text("anything")
        return lambda noise, z: sampler(torch.from_numpy(noise), torch.from_numpy(z)).numpy() ^ 8

    monkeypatch.setitem(module.FORMATS, "torch", (wrong, ".pt2"))
    with pytest.raises(UserError, match="the torch export draws images that are 8 grey levels off, more than 2"):
        export_model(latent_pipe(), "torch", tmp_path / "model.pt2")
    assert visible(tmp_path) == []


def test_what_rounding_costs_is_told_and_too_much_refused(tmp_path):
    pipe = smallest_pipe()
    with torch.no_grad():
        pipe.generator.conv_in.weight[0, 0, 0, 0] = 1e6  # beyond float16
    with pytest.raises(UserError, match="grey levels off, more than 2: it was removed; try another format, or float32"):
        export_model(pipe, "torch", tmp_path / "model.pt2", half=True)
    assert visible(tmp_path) == []


def test_the_command(tmp_path, capsys, monkeypatch):
    def same(sampler, path, half):
        path.write_bytes(b"x" * 2_000_000)
        return lambda noise, z: sampler(torch.from_numpy(noise), torch.from_numpy(z)).numpy()

    monkeypatch.setitem(module.FORMATS, "onnx", (same, ".onnx"))
    monkeypatch.chdir(tmp_path)
    config = tiny_config(slim_decoder=None)
    save_model("models/mine", config, *lively_model(config))
    run(["export", "models/mine", "--to", "onnx"])
    said = capsys.readouterr().out
    assert said.startswith("'mine.onnx', 2.0 MB: at most ") and "times as fast" in said
    with pytest.raises(UserError, match="'mine.onnx' is there already"):
        run(["export", "models/mine", "--to", "onnx"])
    with pytest.raises(UserError, match="has no slim decoder"):
        run(["export", "models/mine", "--to", "onnx", "--out", "other.onnx", "--decoder", "slim"])
    assert not Path("other.onnx").exists()


def test_an_engine_that_is_not_there_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for form, extra in (("openvino", "openvino"), ("onnx", "export")):
        with pytest.raises(UserError, match=rf"pip install 'lddgan\[{extra}\]'"):
            export_model(latent_pipe(slim_decoder=None), form, tmp_path / "model")
    assert visible(tmp_path) == []
