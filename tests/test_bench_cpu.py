"""`python -m bench cpu`: the judge is right, wrong results are not timed, every peer computes our network."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

import minunet as mu
from bench import cpu, exact, layers, networks, peers, report, roofline, watch

ONCE = {"least": 1}
FAMILY = (networks.Case("segnet", 2, (33, 40), batch=2), networks.Case("fusionnet", 2, (32, 16)))
ROOF = roofline.Roof(100.0, 20.0)
FOLDED = ("contiguous folded", "channels_last folded", "optimized")
AWKWARD = (
    layers.Layer("plain", 9, 3, 5),
    layers.Layer("padded, strided", 10, 2, 3, kernel=3, stride=2, padding=1),
    layers.Layer("dilated", 11, 1, 4, padding=2, dilation=2),
    layers.Layer("seven, strided", 12, 3, 2, kernel=7, stride=2, padding=3),
    layers.Layer("one by one", 5, 4, 1, kernel=1),
    layers.Layer("transposed", 4, 3, 2, kernel=2, stride=2, transposed=True),
    layers.Layer("transposed, overlapping", 5, 2, 3, kernel=3, stride=2, padding=1, transposed=True),
)


@pytest.fixture
def nobody(monkeypatch):
    monkeypatch.setattr(peers, "_version", lambda package: peers.NOT_INSTALLED)


@pytest.mark.parametrize("layer", AWKWARD, ids=lambda layer: layer.name)
def test_the_judge_agrees_with_the_reference(layer, monkeypatch):
    monkeypatch.setattr(exact, "PLACES", {"conv": 3, "grad_x": 3, "grad_w": 2})
    data = [a.astype(np.float64) for a in layers.arrays(layer)]
    with mu.use_backend("reference"):
        results = {what: call() for what, call in layers.our_calls(layer, *data).items()}
    assert results["forward"].shape == data[3].shape
    for what in layers.PASSES:
        places, truth = layers.exact_part(layer, what, *data)
        assert results[what][places].shape == truth.shape
        assert layers.error(results[what][places], truth) <= 1e-13, what


def test_the_layers_are_those_of_the_network():
    found = layers.unet(64, 572)
    assert len(found) == 23 and found[-1].output_size() == 388
    assert [layer.size for layer in found if layer.transposed] == [28, 52, 100, 196]
    model = mu.models.build("unet", width=64)
    weights = [p.shape for name, p in model.named_parameters() if name.startswith(("down", "merge"))][::2]
    assert [(layer.o, 3, 3, layer.c) for layer in found if layer.kernel == 3] == weights


@pytest.mark.parametrize("layer", AWKWARD, ids=lambda layer: layer.name)
def test_a_layer_is_checked_and_timed(layer):
    row = layers.measure(layer, ROOF, ONCE)
    for what in layers.PASSES:
        assert 0 <= row[what]["error"] <= layers.TOLERANCE and row[what]["times"]["minunet"]["median_ms"] > 0
        assert row[what]["share_of_roof"] >= 0


@pytest.mark.parametrize("spoil", [lambda y: y * np.float32(1.0001), lambda y: y * np.nan, np.zeros_like])
def test_a_wrong_layer_is_not_timed(spoil, monkeypatch, nobody):
    right = layers.our_calls

    def wrong(layer, *data):
        calls = right(layer, *data)
        grad_x = calls["grad_x"]
        return calls | {"grad_x": lambda: spoil(grad_x())}

    monkeypatch.setattr(layers, "our_calls", wrong)
    row = layers.measure(AWKWARD[0], ROOF, ONCE)
    assert "times" not in row["grad_x"] and "off by" in row["grad_x"]["wrong"]
    assert "times" in row["forward"] and "times" in row["grad_w"]


@pytest.mark.parametrize("place", [(0, 1, 1, 1), (0, 6, 2, 0)])
def test_an_error_where_the_judge_does_not_look_shows_against_pytorch(place, monkeypatch):
    pytest.importorskip("torch", reason="PyTorch, the peer, is not installed")
    monkeypatch.setattr(exact, "PLACES", {"conv": 2, "grad_x": 2, "grad_w": 2})  # the first row and the last
    right = layers.our_calls

    def wrong(layer, *data):
        calls = right(layer, *data)
        y = calls["forward"]()
        y[place] += 1
        return calls | {"forward": lambda: y}

    monkeypatch.setattr(layers, "our_calls", wrong)
    row = layers.measure(layers.Layer("plain", 9, 3, 5, padding=1), ROOF, ONCE)
    assert row["forward"]["error"] <= layers.TOLERANCE and "times" not in row["forward"]


@pytest.mark.parametrize("peer", peers.PEERS)
def test_a_peer_computes_our_network(peer):
    for package in peers.PEERS[peer][1]:
        pytest.importorskip(package, reason=f"{package}, for the peer {peer}, is not installed")
    model, x = networks.network(2), networks.picture(188)
    with mu.no_grad():
        truth = model(mu.Tensor(x)).numpy()
    for run in import_module(peers.PEERS[peer][0]).runners(model, (1, 1, 188, 188), 1).values():
        logits = run(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
        assert logits.shape == truth.shape
        assert abs(logits - truth).max() <= 1e-5 * abs(truth).max()


@pytest.mark.parametrize("case", FAMILY, ids=lambda case: case.name)
def test_another_network_is_checked_and_timed_against_pytorch(case):
    pytest.importorskip("torch", reason="PyTorch, the peer, is not installed")
    model = case.build()
    for name, statistic in model.named_buffers():  # folding has something to fold
        if statistic.dtype.kind == "f":
            low, high = (0.5, 1.5) if name.endswith("var") else (-0.1, 0.0)
            statistic[...] = np.random.default_rng(len(name)).uniform(low, high, statistic.shape)
    entry = networks.inference(model, case.size, 1, ONCE, case.batch)
    assert set(entry["times"]) == {"minunet", *(f"PyTorch {how}" for how in FOLDED)} and entry["wrong"] == {}
    assert all(0 <= e <= 1e-4 for e in entry["errors"].values())
    before = {name: a.copy() for name, a in model.state_dict().items()}
    entry = networks.training(model, case.size, 1, ONCE, case.batch)
    assert 0 <= entry["gradient_cosine_distance"] <= 1e-5
    assert all(np.array_equal(before[name], a) for name, a in model.state_dict().items())


def _peer(monkeypatch, change):
    """One peer, our own network with changed logits."""

    def runners(model, shape, threads):
        def run(x):
            ours = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
            with mu.no_grad():
                return change(model(mu.Tensor(ours)).numpy().transpose(0, 3, 1, 2))

        return {"Peer": run}

    monkeypatch.setattr(peers, "runners", runners)


def test_inference_and_prediction_are_timed_against_a_right_peer(monkeypatch, nobody):
    _peer(monkeypatch, lambda y: y)
    model = networks.network(2)
    for entry in (networks.inference(model, 188, 1, ONCE), networks.predict(model, 1, ONCE, image=21)):
        assert set(entry["times"]) == {"minunet", "Peer"} and entry["wrong"] == {}
        assert all(0 <= e <= 1e-5 for e in entry["errors"].values())


@pytest.mark.parametrize("change", [lambda y: y * 1.01, lambda y: y * np.nan, lambda y: y[:, :, :-1]])
def test_a_wrong_peer_is_named_and_not_timed(change, monkeypatch, nobody):
    _peer(monkeypatch, change)
    entry = networks.inference(networks.network(2), 188, 1, ONCE)
    assert set(entry["times"]) == {"minunet"} and "off by" in entry["wrong"]["Peer"]


def test_our_own_wrong_logits_stop_the_timing(monkeypatch, nobody):
    results = iter([1.0, 1.01])  # the direct algorithm's, then ours
    right = networks._logits
    monkeypatch.setattr(networks, "_logits", lambda model, x: right(model, x) * np.float32(next(results)))
    with pytest.raises(networks.WrongResultError, match="direct"):
        networks.inference(networks.network(2), 188, 1, ONCE)


def test_a_training_step_is_checked_before_it_is_timed(monkeypatch):
    pytest.importorskip("torch", reason="PyTorch, the peer, is not installed")
    from bench import peer_torch

    model = networks.network(2)
    before = {name: a.copy() for name, a in model.state_dict().items()}
    entry = networks.training(model, 188, 1, ONCE)
    assert 0 <= entry["gradient_cosine_distance"] <= 1e-6 and entry["gflop"] > 0
    assert set(entry["times"]) == {"minunet", "PyTorch contiguous", "PyTorch channels_last"}
    assert all(np.array_equal(before[name], a) for name, a in model.state_dict().items())

    right = peer_torch.Step.gradients
    monkeypatch.setattr(peer_torch.Step, "gradients", lambda self: (right(self)[0] * 1.01, right(self)[1]))
    with pytest.raises(networks.WrongResultError, match="results differ"):
        networks.training(model, 188, 1, ONCE)


def test_everything_in_one_go_without_a_peer(monkeypatch, nobody, capsys):
    monkeypatch.setattr(networks, "CASES", {"width 2, 188 tile": (2, 188)})
    monkeypatch.setattr(networks, "FAMILY", FAMILY)
    monkeypatch.setattr(layers, "OTHERS", AWKWARD[1:3])
    monkeypatch.setattr(cpu, "BRIEF", ONCE)
    monkeypatch.setattr(cpu, "SMALL", ONCE)
    small = roofline.measure
    monkeypatch.setattr(roofline, "measure", lambda threads: small(threads, side=64, copy_bytes=1 << 16))
    monkeypatch.setattr(networks, "peak_memory", lambda width, size: {"minunet": 100})
    results, wrong = cpu.measure(quick=True)
    assert wrong == [] and results["roof"]["sgemm_gflops"] > 0
    assert len(results["layers"]["width 2, 188 tile"]) == 23 and len(results["layers"]["other kinds"]) == 2
    assert set(results["unet"]["width 2, 188 tile"]) >= {"inference", "training_step", "step_peak_mib"}
    assert "not timed" not in capsys.readouterr().out.lower()
    assert "| width 2, 188 tile | inference |" in report.speed(results)
    assert "| segnet, width 2, 2 x 33 x 40 | training step |" in report.speed(results)


def test_what_is_wrong_is_said_and_counted(monkeypatch, nobody):
    monkeypatch.setattr(networks, "CASES", {"width 2, 188 tile": (2, 188)})
    monkeypatch.setattr(networks, "FAMILY", ())
    monkeypatch.setattr(layers, "OTHERS", ())
    monkeypatch.setattr(layers, "unet", lambda width, size: [AWKWARD[0]])
    monkeypatch.setattr(layers, "TOLERANCE", 0.0)
    monkeypatch.setattr(networks, "LOGIT_TOLERANCE", -1.0)
    monkeypatch.setattr(cpu, "SMALL", ONCE)
    monkeypatch.setattr(roofline, "measure", lambda threads: ROOF)
    monkeypatch.setattr(networks, "peak_memory", lambda width, size: {"minunet": 100})
    results, wrong = cpu.measure(quick=True)
    assert any("plain forward" in text for text in wrong) and any("inference" in text for text in wrong)
    assert "inference" not in results["unet"]["width 2, 188 tile"]
    assert "| inference |" not in report.speed(results)


def test_where_rounding_decides_each_convolution_is_watched(monkeypatch, nobody):
    model = FAMILY[0].build()
    right = networks._logits
    factors = iter([1.0, 1.01])  # the direct algorithm's, then ours
    monkeypatch.setattr(networks, "_logits", lambda *a: right(*a) * np.float32(next(factors, 1.01)))
    entry = networks.inference(model, FAMILY[0].size, 1, ONCE)
    assert all(0 <= error <= 2e-5 for error in entry["convolution_errors"].values())
    monkeypatch.setattr(watch, "LAYER_TOLERANCE", -1.0)
    factors = iter([1.0, 1.01])
    with pytest.raises(networks.WrongResultError, match="direct"):
        networks.inference(model, FAMILY[0].size, 1, ONCE)


def test_watched_convolutions_see_a_wrong_kernel_and_are_put_back():
    kernels = mu.backends.get("cpu").kernels
    before, x = dict(kernels), mu.Tensor(np.ones((1, 4, 4, 1), np.float32))
    with watch.convolutions() as errors:
        assert not errors.right()
        mu.ops.conv2d(x, x)
        assert errors.right() and set(errors) == {"conv2d"}
    assert kernels == before

    def spoiled(y, *inputs, **options):
        before["conv2d"](y, *inputs, **options)
        y *= 1 if mu.backends.strict() else np.nan

    kernels["conv2d"] = spoiled
    try:
        with watch.convolutions() as errors:
            mu.ops.conv2d(x, x)
        assert not errors.right()
    finally:
        kernels.update(before)
