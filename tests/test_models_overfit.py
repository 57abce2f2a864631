"""Networks learn a crop by heart, on the cpu backend in float32: bench/overfit.py does it for all, somewhat larger."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench import overfit
from bench.overfit import MEMBRANES, SHARE, STEPS, STREETS, Case
from minunet import backends, models

LEARNT = {
    "unet": Case("unet", {**MEMBRANES, "width": 8, "depth": 2}, (24, 32), lr=3e-3),
    "fusionnet": Case("fusionnet", {**STREETS, "width": 4, "depth": 3}, (32, 24), lr=3e-3),
    "segnet": Case("segnet", {**STREETS, "width": 4, "stages": ((1, 1), (2, 2), (4, 4, 4))}, (33, 30), lr=1e-2),
    "fcn": Case("fcn", {**STREETS, "widths": (4, 4, 8, 16, 16), "fc": 16}, (30, 33), lr=3e-3),
}


@pytest.mark.parametrize("name", LEARNT)
def test_a_network_brings_the_loss_below_a_twentieth(name):
    if "cpu" not in backends.available():
        pytest.skip("backend 'cpu' is not available here")
    with backends.use_backend("cpu"):
        found = overfit.overfit(LEARNT[name])
    assert np.isfinite(found.share)
    assert found.share <= SHARE
    assert 1 < found.steps <= STEPS


def test_no_network_is_left_out():
    assert {case.name for case in overfit.CASES.values()} == set(models.names())


def test_a_network_that_learns_nothing_is_told(monkeypatch, tmp_path, capsys):
    """A rate so small that nothing changes: exit code 1, the network named, the table written."""
    monkeypatch.setattr(overfit, "CASES", {"still": LEARNT["unet"]._replace(lr=1e-12)})
    monkeypatch.setattr(overfit, "STEPS", 2)
    with backends.use_backend("reference"):
        assert overfit.main(["unet", "--out", str(tmp_path)]) == 1
    assert "still" in capsys.readouterr().err
    one = json.loads((tmp_path / "overfit.json").read_text())["networks"]["still"]
    assert one["steps"] == 2
    assert one["share"] > SHARE


def test_an_unknown_network_is_refused(capsys):
    from minunet import cli

    assert cli.run(overfit.main, ["unett"]) == 2
    assert "unett" in capsys.readouterr().err
