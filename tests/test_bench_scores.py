"""The bench of scores and weight maps: what it measures, keeps and shows."""

from __future__ import annotations

import json

import pytest

import minunet.data
from bench import report, scores
from minunet.data import Dataset, synthetic_membranes


@pytest.fixture
def small(tmp_path, monkeypatch):
    images, labels = synthetic_membranes(sections=2, size=40, seed=1)
    drawn = Dataset(images, labels, "synthetic", True, "SYNTHETIC", "")
    monkeypatch.setattr(minunet.data, "load_isbi", lambda folder: drawn)
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    return tmp_path


def test_scores_are_measured_kept_and_shown(small, capsys):
    assert scores.table() == "not measured"
    scores.keep()
    kept = json.loads((small / "scores.json").read_text())
    assert kept["stack"] == "2 x 40 x 40" and kept["synthetic"] and len(kept["rows"]) == 3
    assert all(r["best_seconds"] >= 0 and r["cpu_seconds"] >= 0 for r in kept["rows"].values())
    shown = scores.table()
    assert shown in capsys.readouterr().out
    assert shown.count("\n| all ISBI scores") == 2 and "weight map, one section with" in shown
    assert "drawn sections, 2 x 40 x 40" in shown
    assert "ISBI 2012's training stack" in scores.table({**kept, "synthetic": False})
