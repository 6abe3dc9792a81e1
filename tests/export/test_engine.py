from __future__ import annotations

import numpy as np
import pytest
from test_export import latent_pipe, needs, smallest_pipe

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
    assert again.engine == "torch"


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


def test_an_engine_that_is_not_there():
    pipe = smallest_pipe()
    with pytest.raises(UserError, match="no engine 'tensorrt': choose one of torch, onnx"):
        pipe.engine = "tensorrt"
