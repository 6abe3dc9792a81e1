from __future__ import annotations

import shutil

import pytest
from tiny import visible

from lddgan.cli.main import run
from lddgan.errors import UserError


def test_the_page_lies_in_the_run_by_default_or_where_it_is_asked_for(finished_run, tmp_path, capsys):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    before = visible(folder)
    run(["report", str(folder), "--device", "cpu"])
    assert capsys.readouterr().out == f"written to '{folder / 'report.html'}'\n"
    assert visible(folder) == sorted([*before, "report.html"])
    out = tmp_path / "new" / "page.html"
    run(["report", str(folder), "--device", "cpu", "--out", str(out)])
    assert out.read_text().startswith("<!doctype html>")


def test_options_arrive(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr("lddgan.cli.report.write_report", lambda *arguments: calls.append(arguments))
    run(["report", "x", "--features", "resnet56", "--features-weights", "w.th", "--n", "30", "--device", "cpu"])
    run(["report", "x", "--features", "vgg16"])
    (folder, device, samples, features, weights, out), defaults = calls
    assert (str(folder), device, samples, features, str(weights), out) == ("x", "cpu", 30, "resnet56", "w.th", None)
    assert defaults[1:5] == ("auto", 2000, "vgg16", None)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "'nowhere' holds no run to report"),
        (["empty"], "'empty' holds no run to report"),
        (["file"], "'file' holds no run to report"),
        ([], "RUN"),
        (["RUN", "--out", "empty"], "'empty': change --out"),
        (["RUN", "--out", "page.png"], "'page.png': change --out"),
        (["RUN", "--out", "file/page.html"], "'file'"),
        (["RUN", "--device", "tpu"], "tpu"),
        (["RUN", "--n", "5"], "go with --features"),
        (["RUN", "--features-weights", "w"], "go with --features"),
        (["RUN", "--features", "resnet57"], "resnet57"),
        (["RUN", "--features", "resnet56", "--n", "0"], "cannot measure 0 samples"),
        (["RUN", "--features", "resnet56", "--features-weights", "missing.th"], "'missing.th'"),
    ],
)
def test_bad_arguments(finished_run, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    before = visible(finished_run)
    with pytest.raises(UserError, match=says) as caught:
        run(["report", *(str(finished_run) if argument == "RUN" else argument for argument in arguments)])
    assert "\n" not in str(caught.value)
    assert visible(tmp_path) == ["file"] and visible(finished_run) == before
