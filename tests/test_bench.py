"""The bench harness: fair order, right statistics, and no timing of wrong results."""

from __future__ import annotations

import pytest

from bench import timing


def test_rounds_are_interleaved_and_the_first_place_rotates():
    calls = []
    seconds = timing.interleaved({name: lambda n=name: calls.append(n) for name in "abc"}, rounds=3, warmup=1)
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab"
    assert {name: len(s) for name, s in seconds.items()} == {"a": 3, "b": 3, "c": 3}
    assert all(t >= 0 for s in seconds.values() for t in s)


def test_summary_and_ratio_are_medians_with_quartiles():
    assert timing.summary([0.001, 0.002, 0.003, 0.004, 0.100]) == {
        "median_ms": 3.0,
        "quartile1_ms": 2.0,
        "quartile3_ms": 4.0,
    }
    assert timing.ratio([2.0, 4.0, 9.0], [1.0, 1.0, 3.0])["median"] == 3.0


def test_unet_bench_checks_before_it_times(monkeypatch):
    pytest.importorskip("torch", reason="PyTorch, the peer, is not installed")
    from bench import peer_torch, unet

    monkeypatch.setitem(unet.CASES, "tiny", (2, 188, 2))
    case = unet.bench(["tiny"])["tiny"]
    assert 0 <= case["gradient_cosine_distance"] <= 1e-6 and case["step_gflop"] > 0
    assert set(case["training_step"]["times"]) >= {"minunet", case["training_step"]["best_peer"]}

    right = peer_torch.Step.gradients
    monkeypatch.setattr(peer_torch.Step, "gradients", lambda self: (right(self)[0] * 1.01, right(self)[1]))
    with pytest.raises(RuntimeError, match="results differ"):
        unet.bench(["tiny"])
