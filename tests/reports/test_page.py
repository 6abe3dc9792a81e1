from __future__ import annotations

import base64
import io
import json
import shutil
from html.parser import HTMLParser
from importlib.metadata import version

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import make_images, tiny_config, visible
from torch import nn

import lddgan.reports.page as module
from lddgan import Pipeline
from lddgan.config import dump_yaml, load_yaml, save_yaml
from lddgan.errors import UserError
from lddgan.metrics.features import FeatureNetwork
from lddgan.reports.grid import image_grid
from lddgan.reports.page import Pixels, nearest_training, write_report
from lddgan.run import load_images

VOID = {"meta", "img"}
SECTIONS = [
    "Config", "Data", "Curves", "Reconstructions", "Samples over time", "Is it copying?", "Metrics", "Cost",
]  # fmt: skip


class Page(HTMLParser):
    """What a page says and shows, section by section (before the first: "")."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.tags, self.open = html, [], []
        self.text, self.images, self.headings = {"": ""}, {"": []}, []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("h1", "h2", "h3"):
            self.headings.append([int(tag[1]), ""])
        if tag == "img":
            self.images[self.section].append(dict(attrs))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "h2":
            self.text[self.section], self.images[self.section] = "", []

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.headings[-1][1] += data
        elif "style" not in self.open:
            self.text[self.section] += data

    @property
    def section(self) -> str:
        names = [text for level, text in self.headings if level == 2]
        return names[-1] if names and "h2" not in self.open else ""

    def pictures(self, section: str) -> list[Image.Image]:
        return [_decode(image["src"]) for image in self.images[section]]


def _decode(uri: str) -> Image.Image:
    kind, data = uri.removeprefix("data:image/").split(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.format == kind.upper()
    return image


def same(picture: Image.Image, expected: Image.Image) -> bool:
    return np.array_equal(np.asarray(picture.convert("RGB")), np.asarray(expected.convert("RGB")))


def report(folder, out, **options) -> Page:
    assert write_report(folder, "cpu", 30, out=out, **options) == out
    return Page(out.read_text("utf-8"))


@pytest.fixture(scope="module")
def page(finished_run, tmp_path_factory) -> Page:
    return report(finished_run, tmp_path_factory.mktemp("page") / "new" / "page.html")


@pytest.fixture
def copied_run(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")


class Means(nn.Module):
    """The means of the quarters of an image as features."""

    title, dim, resolution, antialias = "means of quarters", 4, 8, True

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        means = nn.functional.adaptive_avg_pool2d(images[:, :1], 2).flatten(1) * 255
        return means, means / 10


@pytest.fixture
def means(monkeypatch):
    network = FeatureNetwork("means", Means(), "0123456789abcdef0123")  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(module, "load_features", lambda name, weights, device: network)
    return network


def test_the_page_is_whole_and_stands_alone(page):
    assert [text for level, text in page.headings if level == 2] == SECTIONS
    assert page.headings[0] == [1, "tiny on images"]
    for (above, _), (below, _) in zip(page.headings, page.headings[1:], strict=False):
        assert below <= above + 1
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base", "form"}
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "poster", "style"):
            assert attributes.get(name, "data:image/").startswith("data:image/"), (tag, attributes)
    assert "//" not in "".join(attributes.get("content") or "" for _, attributes in page.tags)
    style = page.html.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style and "prefers-color-scheme: dark" in style
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags


def test_it_can_be_read_without_seeing_it(page):
    for tag, attributes in page.tags:
        if tag == "img":
            assert attributes["alt"].strip() and int(attributes["width"]) and int(attributes["height"])
        if tag == "th":
            assert attributes["scope"] in ("row", "col", "colgroup")
    tables = [tag for tag, _ in page.tags if tag == "table"]
    assert tables and len(tables) == len([tag for tag, _ in page.tags if tag == "caption"])
    assert ("html", {"lang": "en"}) in page.tags


def test_what_it_says_about_the_run(page, finished_run):
    facts = json.loads((finished_run / "run.json").read_text())
    for text in ("tiny", str(finished_run), facts["hardware"], facts["weights"], "39"):
        assert text in page.text[""]
    assert dump_yaml(load_yaml(finished_run / "config.yaml")) in page.text["Config"]
    assert "39 training images, 4 held out." in page.text["Data"]
    for part in ("generator, a step of 3", "decoder", "encoder", "whole sample", "GiB for a batch of 100"):
        assert part in page.text["Cost"]
    assert "There is no metrics.json" in page.text["Metrics"]


def test_its_pictures_are_those_of_the_run(page, finished_run):
    train, _ = load_images(load_yaml(finished_run / "config.yaml"), False)
    (sheet,) = page.pictures("Data")
    assert same(sheet, image_grid(train.images))  # 39, all of them
    (curves,), stored = page.pictures("Curves"), Image.open(finished_run / "curves.png")
    assert curves.size == stored.size if stored.width <= 1400 else curves.width == 1400
    names = ("reconstructions.png", "reconstructions-slim.png")
    assert [same(picture, Image.open(finished_run / name)) for picture, name in
            zip(page.pictures("Reconstructions"), names, strict=True)] == [True] * 2  # fmt: skip
    over_time = page.pictures("Samples over time")
    assert [same(picture, Image.open(finished_run / "samples" / name)) for picture, name in
            zip(over_time, ("0000020.png", "0000039.png"), strict=True)] == [True, True]  # fmt: skip
    assert "step 20" in page.text["Samples over time"] and "step 39, the last" in page.text["Samples over time"]


def test_the_samples_stand_beside_their_nearest_training_images(page, finished_run):
    train, held_out = load_images(load_yaml(finished_run / "config.yaml"), False)
    samples = Pipeline.from_pretrained(finished_run, "cpu")(16)
    both = np.concatenate([train.images, train.images[:, :, ::-1]]).reshape(78, -1).astype(float)  # it trains on flips
    flat = both[:39]
    between = np.linalg.norm(flat[:, None] - flat, axis=2) + np.diag(np.full(39, np.inf))
    yardstick = np.median(between.min(1))
    pictures, alts = page.pictures("Is it copying?"), [image["alt"] for image in page.images["Is it copying?"]]
    assert len(pictures) == 16 * 4
    distances = np.linalg.norm(samples.reshape(16, 1, -1) - both, axis=2) / yardstick
    for i in range(16):
        assert same(pictures[4 * i], image_grid(samples[i : i + 1], padding=0)) and alts[4 * i] == f"sample {i}"
        for place, index in enumerate(distances[i].argsort()[:3]):
            image = both[index].reshape(1, 8, 8, 1).astype(np.uint8)
            assert same(pictures[4 * i + 1 + place], image_grid(image, padding=0))
            assert train.names[index % 39] in alts[4 * i + 1 + place]
            assert alts[4 * i + 1 + place].endswith(", mirrored") == (index >= 39)
            assert f"{distances[i, index]:.2f}" in page.text["Is it copying?"]
    nearest = np.sort(distances.min(1))
    assert f"nearest at {nearest[7]:.2f} and the least at {nearest[0]:.2f}" in page.text["Is it copying?"]
    unseen = np.linalg.norm(held_out.images.reshape(4, 1, -1) - both, axis=2).min(1) / yardstick
    assert f"4 held-out images, which the model never saw, at {np.sort(unseen)[1]:.2f}." in page.text["Is it copying?"]


def _pixels(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).flatten(1)


def test_neighbours_of_a_set_made_by_hand():
    levels = np.array([10, 20, 30, 40, 200])
    train = np.zeros((5, 2, 2, 1), np.uint8)
    train[:, 0, 0, 0] = levels  # 10 apart, the last one far: the median of the nearest is 10
    samples = np.zeros((3, 2, 2, 1), np.uint8)
    samples[0, 0, 0, 0] = 20  # a copy
    samples[1, 0, 0, 0] = 43
    samples[2, 0, 1, 0] = 30  # a copy of a mirror image
    ratios, indices = nearest_training(samples, _pixels, Pixels(train), flips=False)
    assert indices[0, 0] == 1 and sorted(indices[0].tolist()) == [0, 1, 2]
    assert indices[1].tolist() == [3, 2, 1]
    np.testing.assert_allclose(ratios[:2], [[0, 1, 1], [0.3, 1.3, 2.3]], atol=1e-6)
    assert indices[2, 0] == 0 and ratios[2, 0] > 3
    ratios, indices = nearest_training(samples, _pixels, Pixels(train), flips=True)
    assert indices[2].tolist()[0] == 5 + 2 and ratios[2, 0] == pytest.approx(0, abs=1e-6)
    assert indices[1].tolist() == [3, 2, 1]


def test_rows_are_read_in_chunks_alike(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    whole = nearest_training(images[:5], _pixels, Pixels(images), flips=True)
    monkeypatch.setattr(module, "HELD_VALUES", 7 * 48)
    chunked = nearest_training(images[:5], _pixels, Pixels(images), flips=True)
    torch.testing.assert_close(whole, chunked)
    assert chunked[1][:, 0].tolist() == [0, 1, 2, 3, 4] and chunked[0][:, 0].max() < 1e-6


def test_duplicates_leave_no_ratio_and_no_traceback(copied_run, tmp_path):
    for split, count in (("train", 39), ("test", 4)):
        make_images(tmp_path / "images" / split, count)
    for i in range(1, 30):
        shutil.copy(tmp_path / "images" / "train" / "0.png", tmp_path / "images" / "train" / f"{i}.png")
    save_yaml(tiny_config(tmp_path / "images"), copied_run / "config.yaml")
    page = report(copied_run, tmp_path / "page.html")
    assert "more than half of these training images have an exact duplicate" in page.text["Is it copying?"]
    assert "nan" not in page.text["Is it copying?"] and "inf" not in page.text["Is it copying?"]


def test_features_give_scores_and_neighbours(finished_run, tmp_path, means):
    page = report(finished_run, tmp_path / "page.html", features="means")
    text = page.text["Metrics"]
    assert [3, "Measured for this page"] in page.headings and "FD[means]" in text
    assert "class score std" in text and "inception score" not in text.lower()  # that name is for Inception's features
    for field in ("weights sha256", "0123456789abcdef0123", "preprocessing", "protocol detail", "n samples", "30",
                  "samples: generator sha256", "reference: sha256", "k: precision recall", "versions: torch",
                  version("torch"), "seconds", "hardware"):  # fmt: skip
        assert field in text, field
    assert "nearest by means features" in page.text["Is it copying?"]
    pictures = page.pictures("Is it copying?")
    assert len(pictures) == 16 * 7
    train, _ = load_images(load_yaml(finished_run / "config.yaml"), False)
    sample = Pipeline.from_pretrained(finished_run, "cpu")(16)[:1]
    both = np.concatenate([train.images, train.images[:, :, ::-1]])
    mirrored_to = means(np.ascontiguousarray(sample[:, :, ::-1]))[0], means(sample)[0]
    reference = means(train.images)[0]
    distances = torch.cat([torch.cdist(mirrored_to[1], reference), torch.cdist(mirrored_to[0], reference)], 1)[0]
    assert same(pictures[4], image_grid(both[distances.argmin()][None], padding=0))


def test_stored_metrics_are_shown_with_every_field(copied_run, tmp_path):
    metrics = {"score": "FID", "frechet_distance": 12.34567, "kernel_distance": None, "inception_score": 3.0,
               "inception_score_std": 0.25, "coverage_per_class": {"<cats>": 0.5}, "features": "inception",
               "samples": {"model": "x&y", "seed": 7}, "note": [1, 2]}  # fmt: skip
    (copied_run / "metrics.json").write_text(json.dumps(metrics))
    text = report(copied_run, tmp_path / "page.html").text["Metrics"]
    for part in ("FID", "12.3457", "inception score", "3.0000", "0.2500", "coverage per class: <cats>", "0.5000",
                 "samples: model", "x&y", "samples: seed", "7", "[1, 2]"):  # fmt: skip
        assert part in text, part


def test_what_comes_from_files_is_escaped(copied_run, tmp_path):
    evil = "<script>alert('1')</script> & \"q\""
    data = tmp_path / 'a<b>"&'
    for name in ("cats & <dogs>", 'x" onerror="y'):
        make_images(data / "train" / name, 20)
        make_images(data / "test" / name, 2)
    save_yaml(tiny_config(data, recipe=evil), copied_run / "config.yaml")
    (copied_run / "run.json").write_text(json.dumps({evil: evil}))
    (copied_run / "metrics.json").write_text(json.dumps({"features": evil, evil: {evil: evil}, "score": evil}))
    page = report(copied_run, tmp_path / "page.html")
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "b", "dogs"} and not any("onerror" in attributes for _, attributes in page.tags)
    assert page.headings[0][1] == f'{evil} on a<b>"&' and evil in page.text[""] and evil in page.text["Metrics"]
    assert 'cats & <dogs>, x" onerror="y' in page.text["Data"]


def test_a_run_that_has_only_started(finished_run, tmp_path):
    (tmp_path / "run").mkdir()
    shutil.copy(finished_run / "config.yaml", tmp_path / "run")
    page = report(tmp_path / "run", tmp_path / "run" / "report.html")
    assert "the run has not come to its end" in page.text[""]
    assert "There are no curves yet" in page.text["Curves"]
    assert "There are no reconstructions yet" in page.text["Reconstructions"]
    assert "There are no samples yet" in page.text["Samples over time"]
    assert "There is no model yet" in page.text["Is it copying?"]
    assert "There is no metrics.json" in page.text["Metrics"]
    assert len(page.images["Data"]) == 1 and "whole sample" in page.text["Cost"]
    assert visible(tmp_path / "run") == ["config.yaml", "report.html"]


def test_features_without_a_model(copied_run, tmp_path, means):
    shutil.rmtree(copied_run / "model")
    page = report(copied_run, tmp_path / "page.html", features="means")
    assert "samples of best/" in page.text["Is it copying?"]
    shutil.rmtree(copied_run / "best")
    page = report(copied_run, tmp_path / "page.html", features="means")
    assert "There is no model yet" in page.text["Is it copying?"]
    assert "There is no model yet" in page.text["Metrics"] and "frechet" not in page.text["Metrics"].lower()


def test_data_that_has_moved_is_said_in_its_place(copied_run, tmp_path):
    save_yaml(tiny_config(tmp_path / "gone"), copied_run / "config.yaml")
    page = report(copied_run, tmp_path / "page.html")
    for section in ("Data", "Is it copying?"):
        assert "The images cannot be read: " in page.text[section] and str(tmp_path / "gone") in page.text[section]
    assert len(page.images["Samples over time"]) == 2


def test_samples_are_evenly_spread_over_the_steps(copied_run, tmp_path):
    shutil.rmtree(copied_run / "samples")
    for step in (1, 2, 3, 4, 100, 210, 300, 395, 500):
        make_images(tmp_path / str(step), 1)
        (copied_run / "samples").mkdir(exist_ok=True)
        shutil.copy(tmp_path / str(step) / "0.png", copied_run / "samples" / f"{step:07d}.png")
    (copied_run / "samples" / ".0000600.01234567.png").write_bytes(b"half")
    text = report(copied_run, tmp_path / "page.html").text["Samples over time"]
    assert [line.strip() for line in text.split("step ")[1:]] == ["1", "100", "210", "300", "395", "500, the last"]


def test_large_photographs_become_smaller(copied_run, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (1000, 2000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(copied_run / "reconstructions.png")
    picture = report(copied_run, tmp_path / "page.html").pictures("Reconstructions")[0]
    assert (picture.format, picture.size) == ("JPEG", (1400, 700))


@pytest.mark.parametrize("name", ["reconstructions.png", "samples/0000039.png", "run.json", "metrics.json",
                                  "model/generator.safetensors", "config.yaml"])  # fmt: skip
@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\nxxxx", b"[1]"])
def test_a_damaged_file_is_named(copied_run, tmp_path, name, content):
    (copied_run / name).write_bytes(content)
    with pytest.raises(UserError, match=name.split("/")[-1]) as caught:
        write_report(copied_run, "cpu", 30, out=tmp_path / "page.html")
    assert "\n" not in str(caught.value) and not (tmp_path / "page.html").exists()


def test_a_failure_leaves_the_older_page(copied_run, monkeypatch):
    (copied_run / "report.html").write_text("older")
    before = visible(copied_run)

    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", fail)
    with pytest.raises(UserError, match=r"cannot write '.*report\.html' \(No space left on device\)"):
        write_report(copied_run, "cpu", 30)
    monkeypatch.undo()
    assert (copied_run / "report.html").read_text() == "older" and visible(copied_run) == before
