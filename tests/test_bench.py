"""The bench harness: fair order, right statistics, results kept and shown, peers that are missing."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from bench import __main__ as main
from bench import load, peers, plot, report, timing
from minunet.errors import UsageError


def test_rounds_are_interleaved_and_the_first_place_rotates():
    calls = []
    seconds = timing.interleaved({name: lambda n=name: calls.append(n) for name in "abc"}, least=3, warmup=1)
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


@pytest.fixture
def clock(monkeypatch):
    """A clock for `timing` on which nothing takes time but to sleep."""
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    clock.sleep = lambda seconds: setattr(clock, "now", clock.now + seconds)
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_a_turn_repeats_short_calls_and_gives_their_mean(clock):
    calls = []

    def call():
        clock.sleep(0.25 if calls else 0.75)
        calls.append(1)

    assert timing.interleaved({"a": call}, least=1, warmup=0, turn=1.5) == {"a": [0.375]}
    assert len(calls) == 4


def test_rounds_go_on_until_the_time_is_up(clock):
    a_second = {"a": lambda: clock.sleep(1.0)}
    assert len(timing.interleaved(a_second, least=3, most=9)["a"]) == 3
    assert len(timing.interleaved(a_second, least=3, most=9, seconds=60.0)["a"]) == 9
    assert len(timing.interleaved(a_second, least=1, most=9, seconds=5.0)["a"]) == 5
    assert len(timing.interleaved(a_second, least=1, most=9, seconds=5.0, pause=1.0)["a"]) == 3
    assert len(timing.interleaved(a_second, least=3, most=9, seconds=1.0)["a"]) == 3


def test_table_names_the_fastest_peer_and_does_without_any():
    table = timing.table({"minunet": [1.0, 1.0], "slow": [4.0, 4.0], "fast": [2.0, 2.0]})
    assert table["best_peer"] == "fast" and table["ratio"]["median"] == 2.0
    assert set(timing.table({"minunet": [1.0]})) == {"times"}


def test_a_missing_peer_is_named_and_left_out(monkeypatch):
    gone = {"Gone": ("bench.peer_gone", ("no-such-package-as-this",)), "Broken": ("bench.no_such_module", ("numpy",))}
    monkeypatch.setattr(peers, "PEERS", gone)
    assert peers.missing("Gone") == "no-such-package-as-this is not installed"
    assert "does not load" in peers.missing("Broken")
    assert peers.runners(None, (1, 1, 188, 188), 1) == {}
    assert peers.versions()["no-such-package-as-this"] == peers.NOT_INSTALLED


def test_threads_are_set_and_set_back():
    import numba

    before = numba.get_num_threads()
    with pytest.raises(KeyError), peers.threads(1):
        assert numba.get_num_threads() == 1
        raise KeyError
    assert numba.get_num_threads() == before


def test_others_get_a_share_between_none_and_all():
    share = load.Others().share()
    assert share is None or 0 <= share <= 1


RATIO = {"median": 2.0, "quartile1": 1.9, "quartile3": 2.1}
ROW = {
    "gflop": 2.0,
    "shape": "",
    "forward": {
        "error": 1e-6,
        "times": {"minunet": {"median_ms": 10.0}, "PyTorch contiguous": {"median_ms": 20.0}},
        "best_peer": "PyTorch contiguous",
        "ratio": RATIO,
        "share_of_roof": 1.5,
    },
    "grad_x": {"error": 2e-6, "times": {"minunet": {"median_ms": 10.0}}, "share_of_roof": 1.2},  # no peer
    "grad_w": {"error": 3e-3, "wrong": "off by 3.0e-03 from float64"},
}
RESULTS = {
    "machine": {"processor": "Some Processor", "cores": 2, "system": "Linux"},
    "versions": {"numba": "0.1", "torch": "2.0", "onnxruntime": "1.0", "openvino": "not installed", "ncnn": "1.0"},
    "others_share": 0.5,
    "roof": {"sgemm_gflops": 100.0, "copy_gbytes": 20.0},
    "layers": {"width 16, 316 tile": {"down0.1": ROW, "head": ROW}, "none": {}},
    "unet": {
        "width 16, 316 tile": {
            "inference": {
                "times": {
                    "minunet": {"median_ms": 10.0},
                    "PyTorch contiguous": {"median_ms": 30.0},
                    "PyTorch channels_last": {"median_ms": 20.0},
                },
                "wrong": {"ncnn": "off by 1.0e-01"},
                "ratio": RATIO,
            },
            "training_step": {"times": {"minunet": {"median_ms": 40.0}}},
            "step_peak_mib": {"minunet": 512},
        }
    },
    "networks": {
        "segnet": {
            "inference": {
                "times": {
                    "minunet": {"median_ms": 10.0},
                    "PyTorch contiguous folded": {"median_ms": 20.0},
                    "PyTorch optimized": {"median_ms": 30.0},
                },
                "ratio": RATIO,
            },
            "training_step": {"times": {"minunet": {"median_ms": 40.0}}},
        }
    },
}


def test_tables_say_what_was_measured_and_what_was_not():
    text = report.speed(RESULTS)
    cells = "10.0 ms | 20.0 ms | not measured | not installed | wrong result | **2.00** |"
    assert f"| width 16, 316 tile | inference | {cells}" in text
    assert "| training step | 40.0 ms | not measured |  |  |  |  |  |" in text
    assert "| peak memory | 0.50 GiB |" not in text and "peak memory | 0.50 GiB | not measured |" in text
    assert "| width 16, 316 tile | forward | **2.00** | 2.00 (down0.1) | 2 of 2 | 1.0e-06 | 150% |" in text
    assert "| grad_x | not measured | not measured | not measured | 2.0e-06 | 120% |" in text
    assert "| grad_w | not measured | not measured | not measured | 3.0e-03 | not measured |" in text
    assert "| none |" not in text and "Other programs took 50%" in text and "ONNX Runtime 1.0" in text
    assert "| segnet | inference | 10.0 ms | 20.0 ms | **2.00** | 1.90 - 2.10 |" in text
    assert "| segnet | training step | 40.0 ms | not measured |  |  |" in text
    assert "Other networks: not measured" in report.speed({**RESULTS, "networks": {}})
    assert "Single layers: not measured" in report.speed({**RESULTS, "layers": {}})


def test_picture_of_the_layers_is_drawn_from_the_stored_results(monkeypatch, tmp_path):
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    report.draw_layers()
    assert report.speed() == "not measured" and not (tmp_path / "docs").exists()
    (tmp_path / "cpu.json").write_text(main.dumps(RESULTS))
    report.draw_layers()
    assert "docs/cpu_layers.png" in report.speed()
    pixels = np.asarray(Image.open(tmp_path / "docs" / "cpu_layers.png"))
    blue = (pixels == plot.OURS).all(axis=2).sum(axis=0) > 50  # columns of ours
    grey = (pixels == plot.THEIRS).all(axis=2).sum(axis=0) > 30
    assert blue.any() and grey.any() and not (blue & grey).any()


def test_results_are_written_with_a_line_for_each_entry():
    text = main.dumps(RESULTS)
    assert json.loads(text) == RESULTS
    assert '"minunet": { "median_ms": 40.0 }' in text


def test_quick_results_do_not_replace_those_of_readme():
    with pytest.raises(UsageError, match="--quick"):
        main.main(["cpu", "--quick", "--out", str(report.RESULTS)])
