from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from test_export import latent_pipe, needs, smallest_pipe

import lddgan.drawer
from lddgan.drawing import levels_apart
from lddgan.errors import UserError
from lddgan.export import engine as module


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LDDGAN_CACHE", str(tmp_path))


@needs["onnx"]
def test_it_draws_the_same_images_and_is_exported_once(tmp_path, monkeypatch):
    pipe = smallest_pipe()
    expected = pipe(5, seed=3)
    pipe.engine = "onnx"
    assert pipe.engine == "onnx"
    drawn = pipe(5, seed=3, batch=2)
    assert np.abs(drawn.astype(int) - expected.astype(int)).max() <= 1 and expected.std() > 10
    (file,) = (tmp_path / "engines").iterdir()

    monkeypatch.setattr(module, "write_onnx", None)  # it is not called again
    again = smallest_pipe()
    for mine, theirs in zip(again.generator.parameters(), pipe.generator.parameters(), strict=True):
        mine.data.copy_(theirs.data)
    again.engine = "onnx"
    assert np.array_equal(again(5, seed=3), pipe(5, seed=3))

    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UserError, match=r"cannot read '.*\.onnx' .*: remove it and run again"):
        again.engine = "onnx"
    assert again.engine == "torch" and np.array_equal(again(5, seed=3), expected)


def test_a_graph_that_draws_something_else_is_refused(monkeypatch):
    pipe = smallest_pipe()
    monkeypatch.setattr(module, "write_onnx", lambda sampler, path, half: path.write_bytes(b"graph"))
    black = np.zeros((4, 8, 8, 1), np.uint8)
    monkeypatch.setattr(module, "load_onnx", lambda path: lambda noise, z: black)
    with pytest.raises(UserError, match="grey levels off here, more than 1: leave it out"):
        pipe.engine = "onnx"
    assert pipe.engine == "torch" and pipe(4).std() > 10


def test_another_decoder_is_another_graph(tmp_path, monkeypatch):
    pipe = latent_pipe()
    images = {decoder: draw(pipe, decoder) for decoder in ("slim", "full")}
    written = []

    def write(sampler, path, half):
        written.append(sampler.space.decoder)
        path.write_bytes(sampler.space.decoder.encode())

    monkeypatch.setattr(module, "write_onnx", write)
    monkeypatch.setattr(module, "load_onnx", lambda path: lambda noise, z: images[path.read_text()])
    pipe.decoder = "slim"
    pipe.engine = "onnx"
    pipe.decoder = "full"
    assert written == ["slim", "full"] and len(list((tmp_path / "engines").iterdir())) == 2
    assert pipe.engine == "onnx"


def draw(pipe, decoder: str) -> np.ndarray:
    pipe.decoder = decoder
    return pipe(4)


def test_an_engine_or_precision_that_is_not_there():
    pipe = smallest_pipe()
    with pytest.raises(UserError, match="no engine 'tensorrt': choose one of auto, torch, compiled, onnx"):
        pipe.engine = "tensorrt"
    with pytest.raises(UserError, match="no precision 'float8': choose one of auto, float32, bfloat16"):
        pipe.precision = "float8"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A cache that holds the smallest model compiled for batches of 4, and what eager torch draws."""
    if not module.has_compiler():
        pytest.skip("no C++ compiler")
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LDDGAN_CACHE", str(cache))
        pipe = smallest_pipe()
        expected = pipe(7, seed=3)
        pipe.engine = "compiled"
        drawn = pipe(7, seed=3, batch=4)
    return cache, pipe, expected, drawn


def test_a_compiled_program_draws_the_same_and_pads_the_rest_of_a_set(compiled):
    cache, pipe, expected, drawn = compiled
    assert levels_apart(drawn, expected) <= 1 and expected.std() > 10
    (folder,) = (cache / "engines").iterdir()  # one program: the three that are left over go into it too
    assert folder.name.endswith("-4") and sorted(file.name for file in folder.iterdir()) == ["decode.pt2", "step.pt2"]


def test_a_program_that_nobody_can_load_is_not_kept(tmp_path, monkeypatch):
    pipe = smallest_pipe()
    monkeypatch.setattr(module, "has_compiler", lambda: True)
    monkeypatch.setattr(torch.export, "export", lambda module, given: None)
    monkeypatch.setattr(
        torch._inductor, "aoti_compile_and_package", lambda _, package_path, **__: open(package_path, "wb").close()
    )
    monkeypatch.setattr(module, "LOADING", "import os; os.abort()")
    pipe.engine = "compiled"
    with pytest.raises(UserError, match="could not compile .*ends a program with code -6.*: take engine torch"):
        pipe(4)
    assert not list((tmp_path / "engines").glob("*-4"))


def test_it_is_taken_again_without_being_asked_for_and_never_for_other_weights(compiled, monkeypatch):
    cache, pipe, expected, _ = compiled
    monkeypatch.setenv("LDDGAN_CACHE", str(cache))
    monkeypatch.setattr(module, "_compile", None)  # it is not called again
    again = smallest_pipe()
    for mine, theirs in zip(again.generator.parameters(), pipe.generator.parameters(), strict=True):
        mine.data.copy_(theirs.data)
    assert levels_apart(again(7, seed=3, batch=4), expected) <= 1 and list(again._drawer.compiled) == [4]

    other = smallest_pipe()
    next(other.generator.parameters()).data.mul_(1.5)
    other(4, batch=4)
    assert not other._drawer.compiled


def test_damaged_or_wrong_programs_are_a_sentence(compiled, tmp_path, monkeypatch, capsys):
    cache, pipe, _, _ = compiled
    sampler = pipe._make_drawer().sampler
    monkeypatch.setenv("LDDGAN_CACHE", str(cache))
    black = lambda noise, z: torch.zeros(4, 8, 8, 1, dtype=torch.uint8)  # noqa: E731
    with pytest.raises(UserError, match="the compiled program draws images that are .* levels off here, more than 1"):
        module.load_compiled(sampler, 4, black)
    shutil.copytree(cache, tmp_path / "copy")
    monkeypatch.setenv("LDDGAN_CACHE", str(tmp_path / "copy"))
    (module.compiled_path(sampler, 4) / "step.pt2").write_bytes(b"PK")
    with pytest.raises(UserError, match="-4' cannot be read .*: remove it and run again"):
        module.load_compiled(sampler, 4, sampler)
    pipe.engine = "auto"
    assert levels_apart(pipe(4, seed=3), compiled[2][:4]) <= 1  # one line on stderr, and it goes on
    assert "drawing goes on without compiling" in capsys.readouterr().err


def test_without_a_compiler_auto_goes_on_and_compiled_says_so(monkeypatch, capsys):
    monkeypatch.setattr(module, "has_compiler", lambda: False)
    monkeypatch.setattr(lddgan.drawer, "COMPILE_SECONDS", 0.0)  # so it pays
    pipe = smallest_pipe()
    expected = pipe(8, batch=8)
    assert levels_apart(pipe(8, batch=2), expected) <= 1
    assert capsys.readouterr().err.count("drawing goes on without compiling: torch compiles with a C++ compiler") == 1
    pipe.engine = "compiled"
    with pytest.raises(UserError, match="finds none here: install g.., or take engine torch"):
        pipe(2)


def test_auto_compiles_between_two_batches_where_it_pays(monkeypatch):
    pipe, compiled = smallest_pipe(), []

    def load(sampler, batch, reference):
        compiled.append(batch)
        return reference

    monkeypatch.setattr(module, "load_compiled", load)
    pipe(8, batch=2)
    assert compiled == []  # it would save a few milliseconds
    monkeypatch.setattr(lddgan.drawer, "COMPILE_SECONDS", 0.0)
    pipe(8, batch=2)
    assert compiled == [2]


def test_bfloat16_stays_within_a_grey_level_on_average():
    pipe = latent_pipe()
    for decoder in ("slim", "full"):
        pipe.decoder, pipe.precision = decoder, "float32"
        expected = pipe(16).astype(int)
        pipe.precision = "bfloat16"
        drawn = pipe(16)
        assert pipe.drawn_in == "bfloat16" and expected.std() > 10
        assert 0 < np.abs(drawn - expected).mean() < 1
        assert all(weight.dtype == torch.float32 for weight in pipe.generator.parameters())  # those that are saved
