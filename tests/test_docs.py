from __future__ import annotations

import re
from pathlib import Path

import yaml

from lddgan.cli.main import COMMANDS
from lddgan.recipes import RECIPES

DOCS = Path(__file__).parents[1] / "docs"


def test_what_is_worked_through_works(monkeypatch):
    monkeypatch.setattr("lddgan.recipes.RECIPES", dict(RECIPES))  # the example adds one
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "extending.md").read_text(), re.DOTALL)
    assert len(blocks) == 4
    exec(compile("\n".join(blocks), "extending.md", "exec"), {"__name__": "extending"})


def test_every_page_is_in_the_navigation_and_every_command_on_its_page():
    pages = {name for part in yaml.safe_load((DOCS.parent / "mkdocs.yml").read_text())["nav"] for name in part.values()}
    assert pages == {path.name for path in DOCS.glob("*.md")}
    told = set(re.findall(r"^\| `lddgan (\w+)", (DOCS / "commands.md").read_text(), re.MULTILINE))
    assert told == set(COMMANDS)
