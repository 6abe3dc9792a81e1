"""The page in a browser, where gradio, playwright and a Chromium are at hand (`pip install gradio playwright`)."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import time

import numpy as np
import pytest
from PIL import Image
from tiny import lively_model, tiny_config

from lddgan import Pipeline
from lddgan.cli.main import run
from lddgan.errors import UserError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_gradio = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="the extra web")
needs_browser = pytest.mark.skipif(
    importlib.util.find_spec("playwright") is None or CHROMIUM is None, reason="playwright and Chromium"
)
WAIT = 60_000


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def served():
    """The address of a page with a tiny model, and its pipeline."""
    from lddgan.web.app import build_app, launch

    config = tiny_config()
    pipe = Pipeline(config, *lively_model(config), device="cpu")
    app = build_app(pipe, "tiny")
    yield launch(app, "127.0.0.1", free_port(), block=False), pipe
    app.close()


@pytest.fixture(scope="module")
def client(served):
    from gradio_client import Client

    return Client(served[0], verbose=False)


@needs_gradio
def test_the_api_draws_what_the_pipeline_draws(served, client, tmp_path):
    from gradio_client import handle_file

    _, pipe = served
    names = set(client.view_api(return_format="dict", print_info=False)["named_endpoints"])
    assert names == {"/draw", "/morph", "/vary", "/fill"}
    job = client.submit(3, 40, "full", api_name="/draw")
    html, figures, archive = job.result(timeout=60)
    assert 'data-images="40"' in html and figures.startswith("40 images, ")
    assert pipe.decoder == "slim"  # for the next visitor
    pipe.decoder = "full"
    assert archive.endswith("tiny-seed3.zip") and len(job.outputs()) >= 3  # it came in sheets
    shutil.unpack_archive(archive, tmp_path / "drawn")
    assert (np.asarray(Image.open(tmp_path / "drawn" / "00039.png")) == pipe(40, seed=3)[39, ..., 0]).all()

    Image.fromarray(pipe(1, seed=2)[0, ..., 0]).save(tmp_path / "x.png")
    Image.fromarray(np.repeat(np.uint8([0, 255]), 32).reshape(8, 8)).save(tmp_path / "mask.png")
    image, mask = handle_file(tmp_path / "x.png"), handle_file(tmp_path / "mask.png")
    _, archive = client.predict(image, 0, 1, 2, api_name="/vary")
    shutil.unpack_archive(archive, tmp_path / "varied")
    expected = pipe.decode(pipe.encode(pipe(1, seed=2)))[0, ..., 0]
    assert (np.asarray(Image.open(tmp_path / "varied" / "00001.png")) == expected).all()
    _, archive = client.predict(image, mask, 1, 1, api_name="/fill")
    shutil.unpack_archive(archive, tmp_path / "filled")
    filled = np.asarray(Image.open(tmp_path / "filled" / "00000.png"))
    assert (filled[:4] == pipe(1, seed=2)[0, :4, :, 0]).all() and not (filled[4:] == pipe(1, seed=2)[0, 4:, :, 0]).all()
    assert Image.open(client.predict(0, 1, 4, api_name="/morph")).n_frames == 6
    pipe.decoder = "slim"


@needs_gradio
def test_bad_calls_get_a_sentence(served, client, tmp_path):
    from gradio_client import handle_file

    (tmp_path / "text.png").write_text("no image")
    for arguments, name, says in (
        ((0, 5000, "full"), "/draw", "the count 5000 is not a whole number from 1 to 2048"),
        ((-1, 5, "full"), "/draw", "the seed -1"),
        ((0, 1, 1000), "/morph", "the number of frames 1000"),
        ((None, 1, 8), "/morph", "the first seed is empty"),
        (
            ({"path": "http://192.0.2.1/x.png", "meta": {"_type": "gradio.FileData"}}, 0.5, 0, 1),
            "/vary",
            "not an address",
        ),
        ((handle_file(tmp_path / "text.png"), 0.5, 0, 1), "/vary", "'text.png' is not a readable image"),
    ):
        with pytest.raises(Exception, match=says):
            client.predict(*arguments, api_name=name)


@needs_gradio
def test_calls_wait_for_each_other(served, client, monkeypatch):
    _, pipe = served
    inside, most, draw = [], [], pipe.draw

    def slowly(*arguments):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.3)
        inside.pop()
        return draw(*arguments)

    monkeypatch.setattr(pipe, "draw", slowly)
    monkeypatch.setattr(pipe, "interpolate", lambda *rest: slowly(range(4), 0))
    jobs = [client.submit(0, 16, "full", api_name="/draw"), client.submit(0, 1, 4, api_name="/morph")]
    for job in jobs:
        job.result(timeout=60)
    assert len(most) == 2 and max(most) == 1


@needs_gradio
def test_a_port_in_use_is_a_sentence(served, tmp_path):
    port = served[0].rstrip("/").rsplit(":", 1)[1]
    with pytest.raises(UserError, match=f"the port {port} of 127.0.0.1 is in use .*choose another --port"):
        run(["serve", "demo", "--port", port, "--device", "cpu"])
    with pytest.raises(UserError, match="--port 70000 is not between"):
        run(["serve", "demo", "--port", "70000"])


@needs_gradio
@needs_browser
def test_the_page_draws_morphs_varies_and_fills_in_and_asks_for_nothing_from_outside(served, tmp_path):
    from playwright.sync_api import sync_playwright

    address, _ = served
    outside, errors = [], []

    def note(request) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            outside.append(request.url)

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", note)
        page.on("pageerror", lambda error: errors.append(str(error)))
        answer = page.goto(address)
        assert answer and "default-src 'self'" in answer.headers["content-security-policy"]
        page.click("#draw", timeout=WAIT)
        page.wait_for_selector('#drawn img[data-images="256"]', timeout=WAIT)
        page.wait_for_selector("#drawn-file a", timeout=WAIT)
        with page.expect_download() as download:
            page.click("#drawn-file a >> nth=0")
        assert download.value.suggested_filename == "tiny-seed0.zip"
        page.get_by_role("tab", name="Morph").click()
        page.click("#morph")
        page.wait_for_selector("#still img", timeout=WAIT)
        page.wait_for_selector("#loop img", timeout=WAIT)
        page.get_by_role("tab", name="Vary and fill in").click()
        page.click("#vary")
        page.get_by_text("there is no image yet: upload one or draw one").wait_for(timeout=WAIT)
        page.click("#take")
        page.wait_for_selector("#shown img", timeout=WAIT)
        page.click("#vary")
        page.wait_for_selector('#changed img[alt="variations"]', timeout=WAIT)
        canvas = page.locator("#paint canvas").first
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        assert box
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x - 60, y)
        page.mouse.down()
        for i in range(30):
            page.mouse.move(x - 60 + 4 * i, y + 40 * (i % 2))
        page.mouse.up()
        page.wait_for_timeout(1500)  # the editor sends what was painted a moment later
        page.click("#fill")
        page.wait_for_selector('#changed img[alt="filled in"]', timeout=WAIT)
        browser.close()
    assert outside == [] and errors == []


def test_without_gradio_it_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"the page needs gradio: pip install 'lddgan\[web\]'"):
        run(["serve", "demo", "--device", "cpu"])
