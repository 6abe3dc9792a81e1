from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from row_files import made_up, save_made_up
from safetensors.torch import load_file
from tiny import spaced_config, tiny_config, visible
from torch import nn

from lddgan import recipes
from lddgan.cli import reproduce as command
from lddgan.cli.main import run
from lddgan.config import from_dict
from lddgan.errors import RunStopped, UserError
from lddgan.estimate import model_cost
from lddgan.metrics.features import FeatureNetwork
from lddgan.reports import experiments
from lddgan.reports.experiments import SETS, Set, wanted
from lddgan.reports.rows import load_rows


class Quarters(nn.Module):
    """The means of the four quarters as features."""

    title, dim, resolution, antialias = "quarters", 4, 8, True

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        means = nn.functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), 2).flatten(1)
        return means, means / 10


@pytest.fixture
def tiny(tiny_data, cache, tmp_path, monkeypatch):
    """Recipe of the digits, protocol, features and timing made tiny; the arguments that run them."""
    network = FeatureNetwork("quarters", Quarters(), "0123456789abcdef0123")  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(command, "load_features", lambda *arguments: network)
    monkeypatch.setitem(recipes.RECIPES, "demo", lambda: tiny_config(slim_decoder=None))
    monkeypatch.setitem(SETS["small"], "digits", Set("demo", 30, "train", trials=2))
    monkeypatch.setattr(experiments, "time_stage2", lambda *arguments: (15 * 60 / 10.0, 8))  # 10 steps
    monkeypatch.setattr(
        experiments,
        "bench",
        lambda pipe, trials: {"nfe": 3, "batch": 100, "trials": trials, "batch_seconds": 0.25, "hardware": "a test"},
    )
    places = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    return ["--run", "--data", f"digits={tiny_data}", "--device", "cpu", *places]


def reproduce_json(capsys, *arguments: str) -> dict:
    run(["reproduce", *arguments, "--json"])
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def test_end_to_end(tiny, tmp_path, capsys):
    result = reproduce_json(capsys, "table1", "table6", "fig4", *tiny)
    rows = {row.what.system: row for row in load_rows(tmp_path / "out" / "rows")}
    assert set(rows) == {"autoencoder", "adversarial", "reconstruction", "weighted"} and result["rows"] == 4
    for system in ("adversarial", "reconstruction", "weighted"):
        row = rows[system]
        assert row.config["stage2"]["objective"] == system and row.config["data"] == "digits"
        assert row.training["epochs"] == 2.05 and row.training["steps"] == 9 and row.training["images"] == 39
        assert row.scores["score"] == "FD[quarters]" and row.scores["n_samples"] == 30
        assert row.speed and row.speed["batch_seconds"] == 0.25 and "threads" in row.hardware
    # one autoencoder for all
    assert len(list((tmp_path / "work").glob("*/checkpoints/stage1.pt"))) == 1
    states = [load_file(path) for path in sorted((tmp_path / "work").glob("*/autoencoder.safetensors"))]
    assert len(states) == 4
    for state in states[1:]:
        assert all(torch.equal(state[name], states[0][name]) for name in state)
    steps = json.loads((tmp_path / "out" / "steps.json").read_text())["digits"]
    assert (steps["epochs"], steps["steps"], steps["minutes"], steps["training_images"]) == (2.05, 9, 15, 39)
    lines = {line["Model"]: line for line in result["table6"]["rows"][:6] if line["Dataset"] == "digits"}
    assert (
        lines["AdvLoss"]["ours: Fréchet distance ↓"]
        == f"FD[quarters] {rows['adversarial'].scores['frechet_distance']:.2f}"
    )
    assert lines["AdvLoss + RecLoss + WL"]["paper: FID ↓"] == "" and len(lines) == 3
    assert "PSNR" in str(result["table1"]) and result["table1"]["rows"][1]["ours: autoencoder: PSNR (dB) ↑"]
    assert sum(bool(line["ours: samples"]) for line in result["fig4"]["rows"]) == 5  # three, and two shipped models
    strip = Image.open(tmp_path / "out" / "rows" / f"{rows['weighted'].what.hash}.png")
    assert strip.size == (64, 40) and len(np.unique(np.asarray(strip))) > 1
    committed = "".join(path.read_text() for path in (tmp_path / "out").rglob("*.json"))
    assert str(tmp_path) not in committed and "tiny" in committed  # no path of this machine


def test_finished_rows_are_not_run_again_even_where_the_runs_are_gone(tiny, tmp_path, capsys, monkeypatch):
    run(["reproduce", "table3", *tiny])
    before = {path: path.read_bytes() for path in (tmp_path / "out" / "rows").iterdir()}
    shutil.rmtree(tmp_path / "work")
    monkeypatch.setattr(experiments, "time_stage2", lambda *arguments: (0.001, 8))  # a faster machine: as many epochs
    run(["reproduce", "table3", "table12", *tiny])
    assert {path: path.read_bytes() for path in (tmp_path / "out" / "rows").iterdir()} == before
    assert not (tmp_path / "work").exists()
    run(["reproduce", "table3", *tiny, "--seed", "1"])
    rows = load_rows(tmp_path / "out" / "rows")
    assert [row.seed for row in rows] == [0, 1] and rows[0].training["epochs"] == rows[1].training["epochs"] == 2.05


def test_a_stopped_call_goes_on(tiny, tmp_path, monkeypatch):
    work = tmp_path / "work"
    real, calls = experiments.start_run, []

    def interrupt(config, folder, **options):
        if config.stages == ("gan",):
            raise KeyboardInterrupt
        real(config, folder, **options)

    def note(config, folder, **options):
        calls.append(config.stages)
        real(config, folder, **options)

    monkeypatch.setattr(experiments, "start_run", interrupt)
    with pytest.raises(RunStopped, match="stopped; the same command goes on from there") as stopped:
        run(["reproduce", "table6", *tiny])
    assert stopped.value.exit_code == 130 and load_rows(tmp_path / "out" / "rows") == []
    stage1 = next(work.glob("*autoencoder*")) / "checkpoints" / "stage1.pt"
    before = stage1.stat().st_mtime_ns
    monkeypatch.setattr(experiments, "start_run", note)
    run(["reproduce", "table6", *tiny])
    assert calls == [("gan",)] * 3 and stage1.stat().st_mtime_ns == before  # the autoencoder is not trained again
    assert len(load_rows(tmp_path / "out" / "rows")) == 3


def test_a_run_that_stops_names_this_command(tiny, monkeypatch):
    def stop(config, folder, **options):
        raise RunStopped("stopped after step 3 of stage 2; go on with: lddgan train --resume x", 143)

    monkeypatch.setattr(experiments, "start_run", stop)
    with pytest.raises(
        RunStopped, match="^stopped after step 3 of stage 2; the same command goes on from there$"
    ) as got:
        run(["reproduce", "table3", *tiny])
    assert got.value.exit_code == 143


def test_without_run_it_builds_from_what_is_there(tmp_path, capsys):
    save_made_up(tmp_path / "rows", made_up("weighted"))
    result = reproduce_json(capsys, "table3", "fig2", "--out", str(tmp_path))
    assert set(result) == {"scale", "rows", "table3", "fig2"} and (result["scale"], result["rows"]) == ("small", 1)
    assert result["table3"]["rows"][0]["ours: Fréchet distance ↓"] == "FD[resnet56] 12.35"
    assert result["table3"]["files"] == [str(tmp_path / "small" / f"table3.{form}") for form in ("md", "csv", "png")]
    names = [name for name in visible(tmp_path) if not name.startswith("rows/")]
    assert names == [f"small/{name}.{form}" for name in ("fig2", "table3") for form in ("csv", "md", "png")]
    run(["reproduce", "table3", "--scale", "paper", "--out", str(tmp_path)])
    assert capsys.readouterr().out.split() == [
        "table3",
        "0",
        "of",
        "24",
        "lines",
        "hold",
        "ours",
        f"{tmp_path}/paper/table3.*",
    ]


def test_all_is_all(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "build_table", lambda name, rows, scale: made_sheet())
    monkeypatch.setattr(command, "build_figure", lambda name, *rest: (made_sheet(), []))
    result = reproduce_json(capsys, "all", "table3", "--out", str(tmp_path))
    names = [*(f"table{i}" for i in range(1, 13)), *(f"fig{i}" for i in range(2, 8)), "family"]
    assert set(result) - {"scale", "rows"} == set(names)


def made_sheet():
    from lddgan.reports.sheets import Sheet

    return Sheet("t", "c", ["a", "ours: remark"], [["1", ""]], [1])


def test_what_is_run_for_what():
    assert wanted(["table2", "table8", "fig2"], "small") == []
    predecessors, vits = ["ddgan", "wddgan"], ["uvit-tiny", "uvit-mid", "uvit-large"]
    cifar10 = [("cifar10", system) for system in ("weighted", *predecessors)]
    assert wanted(["table3"], "small") == [*cifar10, ("digits", "weighted")]
    assert wanted(["table3", "fig3"], "paper") == cifar10
    assert wanted(["table12"], "paper") == [("cifar10", system) for system in ("weighted", *vits)]
    assert wanted(["family"], "small")[:4] == [*cifar10, ("cifar10", "uvit-tiny")]
    assert wanted(["table6"], "paper")[:3] == [
        ("cifar10", "adversarial"),
        ("cifar10", "reconstruction"),
        ("cifar10", "weighted"),
    ]
    systems = ["autoencoder", "autoencoder-kl", "weighted", "weighted-kl"]
    assert wanted(["table7"], "small") == [(name, system) for name in ("cifar10", "digits") for system in systems]
    church = [("lsun-church256", system) for system in ("weighted", *predecessors)]
    assert wanted(["table5", "fig7"], "paper") == church
    assert wanted(["table4", "table5", "fig5", "fig6"], "small") == []


def test_epochs_are_rounded_down_to_hundredths(tiny, tmp_path, monkeypatch):
    plan = experiments.Plan("small", "digits", "digits", 0, tmp_path, tmp_path, None, "cpu")  # type: ignore[arg-type]
    for seconds, epochs in ((1.0, 184.61), (0.1, 1846.15), (700.0, 0.26), (1e6, 0.01)):  # 900 s, 39 / 8 steps an epoch
        monkeypatch.setattr(experiments, "time_stage2", lambda *arguments, s=seconds: (s, 8))
        (tmp_path / "steps.json").unlink(missing_ok=True)
        assert experiments.fixed_epochs(plan, "weighted", 39) == epochs
    (tmp_path / "steps.json").write_text("{")
    with pytest.raises(UserError, match=r"steps\.json' is damaged"):
        experiments.fixed_epochs(plan, "weighted", 39)


def test_rows_compare_the_papers_objectives_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "time_stage2", lambda *arguments: (1.0, 64))
    plan = experiments.Plan("small", "cifar10", "x.zip", 0, tmp_path, tmp_path, None, "cpu")  # type: ignore[arg-type]
    assert recipes.recipe("cifar10-small").stage2.spread > 0
    for system in ("adversarial", "reconstruction", "weighted", "weighted-kl", "uvit-tiny", "ddgan"):
        config = experiments.system_config(plan, system, 50_000)
        assert (config.stage2.spread, config.sample_gain, config.data) == (0, 1, "x.zip"), system


def test_the_papers_scale_trains_the_recipes_as_they_are(tmp_path):
    plan = experiments.Plan("paper", "cifar10", "cifar10", 0, tmp_path, tmp_path, None, "cpu")  # type: ignore[arg-type]
    config = experiments.system_config(plan, "weighted", 50_000)
    assert config == recipes.cifar10() and plan.kind.samples == 50_000
    adversarial = experiments.system_config(plan, "adversarial", 50_000)
    assert adversarial.stage2 == dataclasses.replace(config.stage2, objective="adversarial")
    assert visible(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tabel3"], "no 'tabel3' in the paper to reproduce: did you mean 'table3'"),
        (["table13"], "no 'table13'"),
        (["fig1"], "no 'fig1'"),
        ([], "NAME"),
        (["table3", "--scale", "large"], "large"),
        (["table3", "--features", "vgg"], "vgg"),
        (["table3", "--data", "digits"], "say what to run: add --run"),
        (["table3", "--seed", "-1", "--run"], "--seed -1"),
        (["table3", "--run", "--data", "stl=x"], "SET one of cifar10, digits"),
        (["table3", "--run", "--data", "digits", "digits=x"], "names digits twice"),
        (["table3", "--run", "--scale", "paper", "--data", "celebahq256"], "give celebahq256=PATH"),
    ],
)
def test_bad_arguments(tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=says) as caught:
        run(["reproduce", *arguments])
    assert "\n" not in str(caught.value) and visible(tmp_path) == []


def test_a_damaged_row_stops_before_anything_is_written(tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "0123.json").write_text("{}")
    with pytest.raises(UserError, match=r"0123\.json' is damaged"):
        run(["reproduce", "table3", "--out", str(tmp_path)])
    assert visible(tmp_path) == ["rows/0123.json"]


def test_where_the_images_are():
    assert command.parse_data(["cifar10"], "small") == {"cifar10": "cifar10"}
    assert command.parse_data(["copy.zip", "digits"], "small") == {"cifar10": "copy.zip", "digits": "digits"}
    assert command.parse_data(["celebahq256=a=b"], "paper") == {"celebahq256": "a=b"}


def test_a_kl_penalty_has_an_autoencoder_of_its_own(tiny, tmp_path, capsys):
    reproduce_json(capsys, "table7", *tiny)
    rows = {row.what.system: row for row in load_rows(tmp_path / "out" / "rows")}
    assert set(rows) == {"autoencoder", "autoencoder-kl", "weighted", "weighted-kl"}
    kinds = {system: row.config["autoencoder"]["kind"] for system, row in rows.items()}
    assert kinds == {"autoencoder": "free", "autoencoder-kl": "kl", "weighted": "free", "weighted-kl": "kl"}
    assert rows["weighted-kl"].config["stage2"]["objective"] == "weighted"
    assert len(list((tmp_path / "work").glob("*/checkpoints/stage1.pt"))) == 2


def test_the_family_trains_for_as_long_without_an_autoencoder_where_it_has_none(tiny, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "tiny-wavelets", lambda: spaced_config("wavelet", tiny_data))
    monkeypatch.setitem(SETS["small"], "cifar10", Set("demo", 30, trials=2, family={"wddgan": "tiny-wavelets"}))
    monkeypatch.setattr(
        experiments, "time_stage2", lambda config, *rest: (15 * 60 / (10.0 + 5 * (config.autoencoder is None)), 8)
    )
    arguments = [argument.replace("digits=", "cifar10=") for argument in tiny]
    run(["reproduce", "table3", *arguments])
    rows = {row.what.system: row for row in load_rows(tmp_path / "out" / "rows")}
    assert set(rows) == {"weighted", "wddgan"}
    assert (rows["weighted"].training["steps"], rows["wddgan"].training["steps"]) == (9, 14)
    assert rows["wddgan"].config["space"] == "wavelet" and rows["wddgan"].config["autoencoder"] is None
    assert rows["wddgan"].config["stage2"]["objective"] == "weighted"  # that of its recipe
    assert set(json.loads((tmp_path / "out" / "steps.json").read_text())) == {"cifar10", "cifar10, wddgan"}
    line = next(line for line in (tmp_path / "out/small/table3.csv").read_text().splitlines() if "WDGAN" in line)
    cost = model_cost(from_dict(rows["wddgan"].config, "row"))
    assert f"FD[quarters] {rows['wddgan'].scores['frechet_distance']:.2f}" in line
    assert f"{cost['generator_params'] / 1e6:.2f}" in line and f"{cost['sample_macs'] / 1e9:.3f}G" in line
