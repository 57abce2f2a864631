"""docs/recipes.md is what its script writes; the comparison of the recipe's parts goes on where it was stopped."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from bench import ablation, recipes, report, trained
from minunet import train
from minunet.errors import UserError

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "recipes.md"


def test_tables_are_what_the_script_writes():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert report.rewrite(text, DOCUMENT.name, recipes.SECTIONS) == text, "run `python -m bench report`"


def test_links_lead_somewhere():
    for place in re.findall(r"\]\((?!http)([^)#]+)\)", DOCUMENT.read_text(encoding="utf-8")):
        assert (DOCUMENT.parent / place).exists(), place


@pytest.mark.parametrize("name", trained.RECIPES)
def test_every_recipe_is_a_command(name):
    args = train._parser().parse_args(shlex.split(trained.RECIPES[name]))
    assert (getattr(args, "minutes", 0) or getattr(args, "steps", 0)) > 0


def _scores(value: float) -> dict:
    return {name: {"value": value} for name in ablation.SHOWN}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Results are kept in tmp_path; a run's scores follow from its seed."""
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(ablation, "RESULTS", tmp_path)
    made = []

    def child(recipe, seed):
        made.append((recipe, seed))
        return {str(average): _scores(seed + average) for average in ablation.AVERAGE}

    monkeypatch.setattr(ablation, "_in_a_child", child)
    return tmp_path, made


def test_table_gives_mean_and_sample_sd(place):
    assert ablation.table() == "not measured"
    ablation.run()
    rows = [line for line in ablation.table().splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 10
    assert rows[0] == (
        "| plain | no | no | no | 2.0000 ± 1.0000 | 2.0000 ± 1.0000 | 2.0000 ± 1.0000 | 2.000000 ± 1.000000 |"
    )
    assert "9.0000 ± 1.0000" in rows[1]  # averaged: seeds 0, 1, 2 and 8


def test_runs_that_are_there_are_not_made_again(place):
    folder, made = place
    ablation.run()
    everything = json.loads((folder / ablation.FILE).read_text())
    assert len(made) == len(everything["runs"]) == 15
    lost = everything["runs"].popitem()[0]
    (folder / ablation.FILE).write_text(json.dumps(everything))
    made.clear()
    ablation.run()
    assert [ablation._key(*case) for case in made] == [lost]


def test_one_seed_is_no_measurement(place):
    folder, _ = place
    ablation.run()
    everything = json.loads((folder / ablation.FILE).read_text())
    everything["runs"] = {k: v for k, v in everything["runs"].items() if "seed 0" in k}
    (folder / ablation.FILE).write_text(json.dumps(everything))
    assert ablation.table().count("not measured") == 10 * len(ablation.SHOWN)


def test_runs_of_another_budget_are_not_mixed_in(place):
    folder, made = place
    (folder / ablation.FILE).write_text(json.dumps({"steps": 7, "runs": {}}))
    with pytest.raises(UserError, match="7 steps"):
        ablation.run()
    assert not made
