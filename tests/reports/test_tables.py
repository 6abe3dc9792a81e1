from __future__ import annotations

import csv
import io

import pytest
from PIL import Image
from row_files import made_up, with_seed

from lddgan.estimate import model_cost
from lddgan.recipes import celebahq256, cifar10, lsun_church256
from lddgan.reports.published import TABLES, paper_table
from lddgan.reports.sheets import Sheet
from lddgan.reports.tables import build_table
from lddgan.reports.values import discriminator_layers, recipe_field


def lines(sheet: Sheet) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(sheet.csv())))


@pytest.mark.parametrize(
    ("table", "labels", "values"),
    [
        ("table1", ["LSUN Church", "8", "32x32x3"], ["1.14"]),
        ("table2", ["CIFAR-10 (32)", "DDGAN"], ["48.43M", "7.05G", "0.31G"]),
        ("table2", ["CELEBA-HQ (256)", "Ours"], ["45.39M", "7.15G", "0.27G"]),
        ("table3", ["Ours"], ["2.98", "0.58", "4", "0.08"]),
        ("table3", ["LSGM [51]"], ["2.10", "0.61", "147", "44.5"]),
        ("table3", ["Glow [62]"], ["48.9", None, "1", None]),
        ("table3", ["VAEBM [65]"], ["12.2", "0.53", "16", "8.79"]),
        ("table4", ["WDGAN [29]"], ["5.94", "0.37", "0.60"]),
        ("table5", ["StyleGAN2 [61]"], ["3.86", "0.36", None]),
        ("table6", ["CELEBA HQ", "AdvLoss + RecLoss"], ["5.23", "0.36"]),
        ("table7", ["CELEBA-HQ", "KL penalty"], ["0.56", "625", "5.88", "0.37"]),
        ("table8", ["Channel multiplier per scale"], ["(1,2,2)", "(1,2,2,2)", "(1,2,2,2)"]),
        ("table9", ["block 4"], ["ResBlock down, 512"]),
        ("table10", ["Learning rate of D"], ["1.25e-4", "1e-4", "1e-4"]),
        ("table11", ["ViT based, Mid"], ["43.32", "0.21"]),
        ("table12", ["ViT based, Large"], ["2.97", "0.59", "4", "0.13"]),
    ],
)
def test_numbers_of_the_paper(table, labels, values):
    assert values in [row.values for row in paper_table(table).rows if row.labels == labels]


def test_every_table_is_there_and_blank_without_a_row_of_ours():
    counts = {name: len(paper_table(name).rows) for name in TABLES}
    assert counts == {"table1": 3, "table2": 13, "table3": 24, "table4": 8, "table5": 8, "table6": 6, "table7": 6,
                      "table8": 7, "table9": 9, "table10": 8, "table11": 8, "table12": 4}  # fmt: skip
    for name in ("table1", "table3", "table4", "table5", "table6", "table7", "table12"):
        for scale in ("small", "paper"):
            sheet = build_table(name, [], scale)
            assert sheet.filled == 0 and scale in sheet.title
            for line in lines(sheet):
                assert line["ours: remark"], line  # a blank says why
                assert not any(value for key, value in line.items() if key.startswith("ours: ") and "remark" not in key)


def test_why_it_is_blank():
    remarks = {line["Model"]: line["ours: remark"] for line in lines(build_table("table3", [], "small"))}
    assert remarks["Ours"] == "not run yet" and remarks["DDGAN [28]"] == "not run yet"
    assert remarks["Glow [62]"] == "cited by the paper"
    assert lines(build_table("table4", [], "small"))[0]["ours: remark"] == "256 px: not at the small scale"
    assert lines(build_table("table4", [], "paper"))[0]["ours: remark"] == "not run yet"
    assert lines(build_table("table7", [], "paper"))[0]["ours: remark"] == "not run yet"


def test_a_row_stands_beside_the_papers_with_the_name_of_its_score_and_its_story():
    rows = [made_up("weighted"), made_up("adversarial", frechet_distance=20.0), made_up("weighted", scale="paper")]
    sheet = build_table("table6", rows, "small")
    table = lines(sheet)
    assert [line["ours: Fréchet distance ↓"] for line in table] == ["FD[resnet56] 20.00", "", "FD[resnet56] 12.35"] + [
        ""
    ] * 3
    assert table[2]["paper: FID ↓"] == "3.03" and table[2]["ours: Recall ↑"] == "0.300"
    for word in ("seed 0", "10,000 images", "50,000 of the train split", "a test, 2 threads", "1,562 steps",
                 "14.2 minutes", rows[0].what.hash[:8], "cifar10-small", "last weights"):  # fmt: skip
        assert word in table[2]["ours: remark"], word
    assert sheet.filled == 2
    assert any("never with an FID" in note for note in sheet.notes)


def test_the_mean_over_seeds_stands_first_and_every_seed_below():
    rows = [with_seed(made_up("weighted", frechet_distance=score), seed) for seed, score in enumerate((1.0, 2.0, 6.0))]
    rows.append(made_up("adversarial", frechet_distance=20.0))
    table = lines(build_table("table6", rows, "small"))
    ours = [line for line in table if line["ours: Fréchet distance ↓"].startswith("FD")]
    assert [line["ours: Fréchet distance ↓"].split()[1] for line in ours] == ["20.00", "3.00", "1.00", "2.00", "6.00"]
    assert [line["paper: FID ↓"] for line in ours] == ["3.15", "3.03", "", "", ""]
    assert "mean of 3 seeds (distance ± 2.65)" in ours[1]["ours: remark"] and "seeds" not in ours[0]["ours: remark"]
    assert all(f"seed {seed}" in ours[2 + seed]["ours: remark"] for seed in range(3))


def test_digits_stand_in_for_cifar10_on_a_line_of_their_own():
    table = lines(build_table("table3", [made_up("weighted", "digits"), made_up("weighted")], "small"))
    assert [line["Model"] for line in table[:3]] == ["Ours", "Ours (digits)", "WDGAN [29]"]
    assert [line["paper: FID ↓"] for line in table[:2]] == ["2.98", ""]
    assert table[0]["ours: remark"].startswith("cifar10, row") and table[1]["ours: remark"].startswith("digits, row")
    assert table[0]["ours: Time (s) ↓"] == "0.5" and table[0]["ours: NFE ↓"] == "4"
    alone = lines(build_table("table6", [made_up("weighted", "digits")], "small"))
    assert [line["Dataset"] for line in alone[2:4]] == ["CIFAR10", "digits"]
    assert [line["paper: FID ↓"] for line in alone[2:4]] == ["3.03", ""]  # digits never stand beside the number
    assert [line["ours: Recall ↑"] for line in alone[2:4]] == ["", "0.300"]
    assert alone[2]["ours: remark"] == "not run yet" and alone[3]["Model"] == "AdvLoss + RecLoss + WL"
    autoencoder = lines(build_table("table1", [made_up("autoencoder", "digits")], "small"))[1]
    assert (autoencoder["Dataset"], autoencoder["Scale factor f"]) == ("digits", "")


def test_autoencoders():
    rows = [made_up("autoencoder", frechet_distance=1.5), made_up("weighted")]
    table = lines(build_table("table1", rows, "small"))
    assert table[0]["paper: FID ↓"] == "1.32"
    assert table[0]["ours: autoencoder: Fréchet distance ↓"] == "FD[resnet56] 1.50"
    assert table[0]["ours: autoencoder: PSNR (dB) ↑"] == "27.50"
    assert table[0]["ours: autoencoder: Output size"] == "8x8x12"
    free = lines(build_table("table7", rows, "small"))[1]
    assert (free["paper: Epochs"], free["ours: autoencoder: Epochs"]) == ("300", "2")
    assert free["ours: autoencoder: Fréchet distance ↓"] == "FD[resnet56] 1.50"
    assert free["ours: Fréchet distance ↓"] == "FD[resnet56] 12.35"
    kl = [made_up("autoencoder-kl", frechet_distance=2.5), made_up("weighted-kl", frechet_distance=13.0)]
    both = lines(build_table("table7", rows + kl, "small"))
    assert [line["ours: autoencoder: Fréchet distance ↓"] for line in both[:2]] == [
        "FD[resnet56] 2.50",
        "FD[resnet56] 1.50",
    ]
    assert both[0]["ours: Fréchet distance ↓"] == "FD[resnet56] 13.00"
    other = [made_up("autoencoder", score="FID"), rows[1]]  # scored in other features: not set beside
    assert lines(build_table("table7", other, "small"))[1]["ours: autoencoder: Fréchet distance ↓"] == ""


def test_table_2_counts_our_recipes():
    table = lines(build_table("table2", [], "small"))
    ours = {line["ours: remark"]: line for line in table if line["ours: Params"]}
    sets = ("cifar10", "celebahq256", "lsun-church256")
    predecessors = [f"{name}-{system}" for name in sets for system in ("ddgan", "wddgan")]
    small = ["cifar10-small", "cifar10-ddgan-small", "cifar10-wddgan-small", "demo"]
    assert set(ours) == {f"recipe {name}" for name in (*sets, *predecessors, *small)}
    cost, line = model_cost(cifar10()), ours["recipe cifar10"]
    assert line["paper: Params"] == "41.97M" and line["ours: Params"] == "41.95M"
    assert float(line["ours: MACs of a generator step"][:-1]) == pytest.approx(1.665, abs=0.01)
    assert float(line["ours: MACs of the decoder"][:-1]) == pytest.approx(cost["decoder_macs"] / 1e9, abs=0.005)
    assert float(line["ours: MACs of a sample"][:-1]) == pytest.approx(cost["sample_macs"] / 1e9, abs=0.005)
    weights = 4 * (cost["generator_params"] + cost["decoder_params"]) / 1e9
    assert weights < float(line["ours: Memory, counted (GB)"]) < 1.1 * weights
    for line in table:  # the predecessors' sizes are the paper's, to its last digit but one
        if line["Model"] in ("DDGAN", "WDDGAN"):
            assert float(line["ours: Params"][:-1]) == pytest.approx(float(line["paper: Params"][:-1]), abs=0.011)
            flops, ours_flops = line["paper: FLOPs"], line["ours: MACs of a generator step"]
            assert float(ours_flops[:-1]) == pytest.approx(float(flops[:-1]), rel=0.006)
            assert line["ours: MACs of the decoder"] == "0.000G"


@pytest.mark.parametrize("name", ["table8", "table10"])
def test_tables_8_and_10_are_the_recipes(name):
    table = paper_table(name)
    for printed in table.rows:
        for column, value in zip(table.columns, printed.values, strict=True):
            if printed.field:
                assert recipe_field(printed.field, str(column.recipe)) == value, (printed.labels, column.name)
    assert not any("differs" in line["ours: remark"] for line in lines(build_table(name, [], "small")))


def test_tables_8_to_10_follow_a_recipe_that_changes(monkeypatch):
    import dataclasses

    from lddgan import recipes

    other = cifar10()
    other = dataclasses.replace(
        other,
        generator=dataclasses.replace(other.generator, latent_dim=50),
        stage2=dataclasses.replace(other.stage2, ema_decay=0.5),
    )
    monkeypatch.setitem(recipes.RECIPES, "cifar10", lambda: other)
    changed = {line["Setting"]: line for line in lines(build_table("table8", [], "small"))}["Latent Dimension"]
    assert (changed["paper: CIFAR10"], changed["ours: cifar10"]) == ("25", "50")
    assert changed["ours: remark"] == "differs: CIFAR10"
    changed = {line["Setting"]: line for line in lines(build_table("table10", [], "small"))}["EMA"]
    assert (changed["ours: cifar10"], changed["ours: remark"]) == ("0.5", "differs: CIFAR10")


def test_table_9_is_read_off_the_networks():
    table = {line["Layer"]: line for line in lines(build_table("table9", [], "small"))}
    for line in table.values():
        if line["paper: Discriminator"] != "-":
            assert line["ours: celebahq256"] == line["paper: Discriminator"]
    assert table["block 4"]["ours: cifar10"] == ""  # three blocks
    assert len(discriminator_layers(cifar10())) == 8
    assert discriminator_layers(celebahq256()) == discriminator_layers(lsun_church256())


@pytest.mark.parametrize(
    ("field", "recipe", "text"),
    [
        ("generator.attention_resolutions", "cifar10", "None"),
        ("generator.attention_resolutions", "celebahq256", "16"),
        ("stage2.learning_rate_discriminator", "cifar10", "1.25e-4"),
        ("stage2.ema_decay", "cifar10", "0.9999"),
        ("stage2.r1_gamma", "cifar10", "0.02"),
    ],
)
def test_fields_as_the_paper_prints_them(field, recipe, text):
    assert recipe_field(field, recipe) == text


def test_the_three_forms(tmp_path):
    sheet = build_table("table6", [made_up("weighted")], "small")
    files = sheet.save(tmp_path / "new" / "table6")
    assert [file.name for file in files] == ["table6.md", "table6.csv", "table6.png"]
    markdown = files[0].read_text().splitlines()
    assert markdown[0] == "# Table 6, small scale"
    table = [line for line in markdown if line.startswith("|")]
    assert len(table) == 2 + 6 and {line.count("|") for line in table} == {9}
    assert table[2].startswith("| CIFAR10 | AdvLoss | 3.15 | 0.58 |  |  |  | not run yet |")
    name = f"cifar10, row {made_up('weighted').what.hash[:8]}"
    assert table[4].endswith(f"| {name} |") and any(line.startswith(f"- {name}: cifar10-small") for line in markdown)
    assert files[1].read_text() == sheet.csv()
    picture = Image.open(files[2])
    assert picture.format == "PNG" and 900 < picture.width < 2200 and 300 < picture.height < 1000
    colours = picture.convert("RGB").getcolors(1 << 20) or []
    assert (235, 248, 255) in [colour for _, colour in colours]  # our columns are tinted


def test_a_bar_in_a_cell_does_not_break_the_markdown():
    sheet = Sheet("T", "c", ["a", "b"], [["x|y", ""]], [1])
    assert "| x\\|y |  |" in sheet.markdown() and sheet.filled == 0
    assert list(csv.reader(io.StringIO(sheet.csv()))) == [["a", "b"], ["x|y", ""]]
