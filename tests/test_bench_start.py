"""The bench of how soon training starts: what it measures, keeps and shows."""

from __future__ import annotations

import json

import pytest

from bench import report, start
from minunet.errors import UserError

TINY = "--depth 1 --width 2 --tile 44 --threads 1 --backend reference"


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(start, "RUNS", {"U-Net": TINY})
    monkeypatch.setattr(start, "REPEATS", 1)
    monkeypatch.delenv("MINUNET_DATA", raising=False)
    return tmp_path / start.FILE


def test_the_first_step_is_measured_kept_and_shown(kept, capsys):
    assert start.table() == "not measured"
    start.keep()
    found = json.loads(kept.read_text())
    (row,) = found["rows"].values()
    assert row["fresh_seconds"] > 0 and row["later_seconds"] > 0 and found["data"] == "synthetic"
    shown = start.table()
    assert shown in capsys.readouterr().out
    assert f"| U-Net | {row['fresh_seconds']:.1f} s | {row['later_seconds']:.1f} s |" in shown
    assert "drawn first" in shown and "the real ISBI stack" in start.table({**found, "data": "isbi"})
    assert "Other programs" in start.table({**found, "others_share": 0.5})


def test_caches_are_fresh_and_only_the_first_step_is_run(tmp_path):
    seconds = start.to_first_step(["synthetic", *TINY.split()], tmp_path)
    assert seconds > 0
    assert next((tmp_path / "python").rglob("*.pyc")).is_file()
    assert not list(tmp_path.rglob("*.safetensors")), "ended with its first step"


def test_a_run_that_fails_is_said_to(tmp_path):
    with pytest.raises(UserError, match="the run failed"):
        start.to_first_step(["synthetic", "--model", "nonesuch"], tmp_path)
