"""The exported page, where the extra export, playwright and a Chromium are at hand."""

from __future__ import annotations

import functools
import hashlib
import http.server
import importlib.util
import shutil
import threading

import numpy as np
import pytest
import torch
from test_export import smallest_pipe
from tiny import visible

from lddgan.drawing import levels_apart
from lddgan.export.formats import ASSETS
from lddgan.export.model import export_model
from lddgan.export.sampler import export_sampler

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs = [
    pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=name)
    for name in ("onnx", "onnxscript", "onnxruntime", "playwright")
]


def test_the_assets_are_those_that_are_pinned():
    lines = (ASSETS / "sha256.txt").read_text().splitlines()
    assert {line.split()[1] for line in lines} == {
        path.name for path in ASSETS.iterdir() if path.suffix in (".mjs", ".wasm")
    }
    for line in lines:
        digest, name = line.split()
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == digest, name


@pytest.fixture
def hosted(tmp_path):
    """A static host of the exported page; yields its address, the sampler, and what was asked for."""
    pipe, asked = smallest_pipe(), []
    done = export_model(pipe, "web", tmp_path / "tiny-web", half=True)
    names = visible(tmp_path / "tiny-web")
    assert {"index.html", "model.onnx", "ort.wasm.min.mjs", "ort-wasm-simd-threaded.wasm"} < set(names)
    assert done.levels <= 1

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments) -> None:
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(done.path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", export_sampler(pipe, half=True), asked
    server.shutdown()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium")
@functools.reduce(lambda a, b: lambda test: a(b(test)), [mark for mark in needs])
def test_it_draws_what_python_draws_and_asks_for_nothing_from_outside(hosted):
    from playwright.sync_api import sync_playwright

    address, sampler, _ = hosted
    noise, z = sampler.inputs(3, seed=5)
    outside = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: None if request.url.startswith((address, "data:", "blob:"))
                else outside.append(request.url))  # fmt: skip
        page.goto(address)
        page.wait_for_selector("#draw:enabled", timeout=60_000)
        pixels = page.evaluate(
            "async ([noise, z]) => Array.from(await lddgan.run(Float32Array.from(noise), Float32Array.from(z), 3))",
            [noise.flatten().tolist(), z.flatten().tolist()],
        )
        normals = page.evaluate("Array.from(lddgan.normals(3, 4, 20001))")
        again = page.evaluate("Array.from(lddgan.normals(3, 5, 20001))")
        page.fill("#count", "20")
        page.click("#draw")
        page.get_by_text("20 images, ").wait_for(timeout=60_000)
        assert page.locator("canvas").count() == 20
        assert "ms each" in page.inner_text("#said")
        browser.close()
    with torch.inference_mode():
        expected = sampler(noise, z).numpy()
    assert levels_apart(np.array(pixels, np.uint8).reshape(expected.shape), expected) <= 2
    assert outside == []
    for values in (np.array(normals), np.array(again)):
        assert abs(values.mean()) < 0.03 and abs(values.std() - 1) < 0.03 and abs((values**4).mean() - 3) < 0.2
    assert abs(np.corrcoef(normals, again)[0, 1]) < 0.03
