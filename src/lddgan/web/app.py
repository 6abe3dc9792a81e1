"""`lddgan serve`: a page that draws while one looks, morphs, varies and fills in; and the same as an HTTP API."""

from __future__ import annotations

import atexit
import functools
import importlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before it is imported: it asks an outside address otherwise

from lddgan.errors import UserError
from lddgan.pipeline import Pipeline
from lddgan.web import actions

ONE = 256
"""Width of a single image in the page, in pixels."""
KEPT = 3600
"""Seconds that a file stays to be downloaded."""
QUEUE = 32
"""Calls that may wait; one is worked on at a time, because each takes all cores."""
# Whatever a page or a browser extension may try: it loads from this server alone.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "worker-src 'self' blob:"
)
FONTS = ["system-ui", "sans-serif"]


def build_app(pipe: Pipeline, name: str) -> Any:
    """The page of a model, a `gradio.Blocks`. Its calls `/draw`, `/morph`, `/vary` and `/fill` are the HTTP API.

    Raises:
        UserError: gradio is not installed.
    """
    gr = _gradio()
    side, channels = pipe.config.images.resolution, pipe.config.images.channels
    folder = Path(tempfile.mkdtemp(prefix="lddgan-serve-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)

    def place(name: str) -> Path:
        for old in folder.iterdir():
            if time.time() - old.stat().st_mtime > KEPT:
                shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(dir=folder)) / name

    def sentence(error: UserError) -> Exception:
        return gr.Error(str(error), print_exception=False)

    def spoken(call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, whose bad inputs are sentences on the page."""

        @functools.wraps(call)
        def speaking(*arguments: Any) -> Any:
            try:
                return call(*arguments)
            except UserError as error:
                raise sentence(error) from None

        return speaking

    usual = pipe.decoder

    def draw(seed: float, count: float, decoder: str) -> Iterator[tuple[str, str, Any]]:
        sheets: list[np.ndarray] = []
        try:
            pipe.decoder = decoder or usual
            for sheet in actions.draw(pipe, seed, count):  # type: ignore[arg-type]
                sheets.append(sheet.images)
                yield actions.sheet_html(sheet.images, f"samples of seed {seed}"), sheet.figures, gr.skip()
        except UserError as error:
            raise sentence(error) from None
        finally:
            pipe.decoder = usual  # it is one pipeline for all visitors
        html, file = result_of(np.concatenate(sheets), f"samples of seed {seed}", f"{name}-seed{int(seed)}")
        yield html, sheet.figures, file

    def result_of(images: np.ndarray, what: str, file_name: str = "") -> tuple[str, str]:
        file = actions.write_zip(images, place(f"{(file_name or what).replace(' ', '-')}.zip"))
        return actions.sheet_html(images, what), str(file)

    def painting_of(image: np.ndarray, what: str) -> tuple[Any, str, np.ndarray]:
        """For the page's state, to look at, and to paint on."""
        return image.tolist(), actions.sheet_html(image[None], what, ONE), actions.enlarge(image)

    def image_of(state: Any) -> np.ndarray:
        image = np.asarray(state, dtype=np.uint8) if state else np.zeros(0, np.uint8)
        if image.shape != (side, side, channels):
            raise UserError("there is no image yet: upload one or draw one")
        return image

    @spoken
    def morph(seed_a: float, seed_b: float, frames: float) -> tuple[str, list[str]]:
        images = actions.morph(pipe, seed_a, seed_b, frames)  # type: ignore[arg-type]
        stills = [actions.sheet_html(image[None], "a frame of the morph", ONE) for image in images]
        return str(actions.write_gif(images, place("morph.gif"))), stills

    @spoken
    def upload(path: str | None) -> Any:
        return painting_of(actions.read_upload(pipe, path), "your image")

    @spoken
    def drawn(seed: float) -> Any:
        image = next(actions.draw(pipe, seed, 1)).images[0]  # type: ignore[arg-type]
        return painting_of(image, f"image 0 of seed {seed}")

    @spoken
    def vary(image: Any, strength: float, seed: float, count: float) -> tuple[str, str]:
        """`image` is a file, or the state of the page."""
        given = actions.read_upload(pipe, image) if isinstance(image, str) else image_of(image)
        return result_of(actions.vary(pipe, given, strength, seed, count), "variations")  # type: ignore[arg-type]

    @spoken
    def fill_painted(editor: Any, state: Any, seed: float, count: float) -> tuple[str, str]:
        mask = actions.painted([np.asarray(layer) for layer in (editor or {}).get("layers", [])], side)
        return result_of(actions.fill(pipe, image_of(state), mask, seed, count), "filled in")  # type: ignore[arg-type]

    @spoken
    def fill_files(image: str, mask: str, seed: float, count: float) -> tuple[str, str]:
        given, covered = actions.read_upload(pipe, image), actions.read_mask(pipe, mask, image)
        return result_of(actions.fill(pipe, given, covered, seed, count), "filled in")  # type: ignore[arg-type]

    alone = {"concurrency_id": "pipeline", "concurrency_limit": 1}  # of all calls together
    with gr.Blocks(title=f"lddgan: {name}", analytics_enabled=False, delete_cache=(KEPT // 6, KEPT)) as app:
        gr.Markdown(f"# {name}\n{side}x{side} pixels, {pipe.config.diffusion.num_steps} steps, on {pipe.device}")
        with gr.Tab("Draw"):
            with gr.Row():
                seed = gr.Number(0, label="seed", precision=0)
                count = gr.Number(256, label="images", precision=0)
                decoder = gr.Radio(list(pipe.space.decoders), value=pipe.decoder, label="decoder")
            go = gr.Button("Draw", variant="primary", elem_id="draw")
            figures = gr.Textbox(label="speed", elem_id="figures", interactive=False)
            sheet = gr.HTML(elem_id="drawn")
            file = gr.File(label="all as a zip", elem_id="drawn-file")
            go.click(
                draw, [seed, count, decoder], [sheet, figures, file], api_name="draw", show_progress="hidden", **alone
            )
        with gr.Tab("Morph"):
            with gr.Row():
                seed_a, seed_b = (
                    gr.Number(0, label="from seed", precision=0),
                    gr.Number(1, label="to seed", precision=0),
                )
                frames = gr.Number(16, label="frames", precision=0)
            go = gr.Button("Morph", variant="primary", elem_id="morph")
            stills = gr.State([])
            at = gr.Slider(0, 15, step=1, label="frame", elem_id="frame")
            still = gr.HTML(elem_id="still")
            loop = gr.Image(label="the loop, a GIF", type="filepath", elem_id="loop", interactive=False, format="gif")
            go.click(morph, [seed_a, seed_b, frames], [loop, stills], api_name="morph", **alone).success(
                lambda stills: (stills[0], gr.update(maximum=len(stills) - 1, value=0)), stills, [still, at],
                api_visibility="private",
            )  # fmt: skip
            at.change(
                lambda at, stills: stills[min(int(at), len(stills) - 1)] if stills else "", [at, stills], still,
                api_visibility="private",
            )  # fmt: skip
        with gr.Tab("Vary and fill in"):
            image = gr.State(None)
            with gr.Row():
                uploaded = gr.File(label="an image", file_types=["image"], type="filepath", elem_id="upload")
                with gr.Column():
                    from_seed = gr.Number(0, label="or image 0 of seed", precision=0)
                    take = gr.Button("Draw this one", elem_id="take")
                shown = gr.HTML(elem_id="shown")
            with gr.Row():
                strength = gr.Slider(0, 1, 0.5, label="strength: 0 keeps it, 1 draws another", elem_id="strength")
                new_seed = gr.Number(0, label="seed", precision=0)
                ways = gr.Number(8, label="images", precision=0)
            with gr.Row():
                go_vary = gr.Button("Vary", variant="primary", elem_id="vary")
                go_fill = gr.Button("Fill in what is painted", variant="primary", elem_id="fill")
            editor = gr.ImageEditor(
                label="paint over what shall be filled in", sources=(), type="numpy", image_mode="RGBA",
                elem_id="paint", brush=gr.Brush(colors=["#ff0080"], color_mode="fixed"), layers=False, transforms=(),
            )  # fmt: skip
            result = gr.HTML(elem_id="changed")
            changed_file = gr.File(label="all as a zip", elem_id="changed-file")
            private = {"api_visibility": "private", **alone}
            uploaded.upload(upload, uploaded, [image, shown, editor], **private)
            take.click(drawn, from_seed, [image, shown, editor], **private)
            go_vary.click(
                vary, [image, strength, new_seed, ways], [result, changed_file], api_name="vary_shown", **private
            )  # fmt: skip
            go_fill.click(fill_painted, [editor, image, new_seed, ways], [result, changed_file], **private)
        # What has other inputs in the page than in the API.
        picture, covered = gr.File(visible=False, type="filepath"), gr.File(visible=False, type="filepath")
        hidden = gr.Button(visible=False)
        hidden.click(vary, [picture, strength, new_seed, ways], [result, changed_file], api_name="vary", **alone)
        hidden = gr.Button(visible=False)
        hidden.click(fill_files, [picture, covered, new_seed, ways], [result, changed_file], api_name="fill", **alone)
    app.queue(max_size=QUEUE, default_concurrency_limit=1)
    return app


def launch(app: Any, host: str, port: int, *, block: bool = True) -> str:
    """Serve `app` and return its address; with `block` until it is stopped.

    Raises:
        UserError: the address cannot be had (the port is in use, or below 1024).
    """
    gr = _gradio()
    middleware = importlib.import_module("starlette.middleware")

    class OnlyFromHere:
        """Adds `POLICY` to every answer."""

        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def with_policy(message: Any) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
                await send(message)

            await self.app(scope, receive, with_policy)

    try:
        _, address, _ = app.launch(
            server_name=host, server_port=port, quiet=True, show_error=True, prevent_thread_lock=True, share=False,
            max_file_size=actions.MAX_UPLOAD, ssr_mode=False, footer_links=["api"],
            theme=gr.themes.Default(font=FONTS, font_mono=["monospace"]),
            app_kwargs={"middleware": [middleware.Middleware(OnlyFromHere)]},
        )  # fmt: skip
    except OSError:  # its own message names options that this program has not
        raise UserError(f"the port {port} of {host} is in use or cannot be had: choose another --port") from None
    if block:
        print(f"serving on {address}, stop with Ctrl-C", flush=True)
        app.block_thread()
    return address


def _gradio() -> Any:
    try:
        gradio = importlib.import_module("gradio")
        processing = importlib.import_module("gradio.processing_utils")
    except ImportError:
        raise UserError("the page needs gradio: pip install 'lddgan[web]'") from None

    def refuse(url: str, *rest: Any, **more: Any) -> Any:
        raise gradio.Error("give an image of your own, not an address: nothing is fetched", print_exception=False)

    # A call may name an address in place of a file, and gradio would fetch that.
    for name in ("ssrf_protected_download", "async_ssrf_protected_download", "async_ssrf_protected_get"):
        setattr(processing, name, refuse)
    return gradio
