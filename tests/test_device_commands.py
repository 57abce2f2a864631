"""The commands, prediction and the GPU bench on arrays that are not NumPy's, and what they say where memory is full.

As tests/test_device.py, on the stand-in of tests/fake_device.py.
"""

from __future__ import annotations

import json

import fake_device
import numpy as np
import pytest

import minunet as mu
from bench import gpu, gpu_checks, gpu_numba
from bench.gpu_device import Clock, Device
from minunet import backends, checkpoint, cli, footprint, models, ops, optim, predict, train
from minunet.data import synthetic_membranes, write_png, write_tiff

TINY = ["--depth", "1", "--width", "2", "--tile", "44", "--validate", "1", "--quiet"]


@pytest.fixture
def device():
    with fake_device.installed() as device:
        yield device


def small(**arguments) -> models.Network:
    return models.build("unet", **{"in_channels": 1, "n_classes": 2, "width": 2, "depth": 1, **arguments})


def equal(a: dict, b: dict) -> bool:
    return list(a) == list(b) and all(np.array_equal(a[k], b[k]) for k in a)


def test_prediction(device):
    image = np.random.default_rng(5).normal(size=(37, 30)).astype(np.float32)
    with mu.use_backend("reference"):
        expected = mu.predict(small(), image, tile=8, average=3)
    with mu.use_backend("cuda"):
        found = mu.predict(small(), image, tile=8, average=3)
    assert type(found) is np.ndarray
    assert np.array_equal(found, expected)


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """A folder laid out like ISBI 2012."""
    folder = tmp_path_factory.mktemp("stack")
    images, labels = synthetic_membranes(sections=3, size=48, seed=3)
    write_tiff(folder / "train-volume.tif", images)
    write_tiff(folder / "train-labels.tif", labels * 255)
    write_png(folder / "image.png", images[0])
    return folder


def command(which, *arguments) -> int:
    return cli.run(which.main, [str(a) for a in arguments])


def extra(folder) -> dict:
    return checkpoint.load(folder / "checkpoint.safetensors").extra


def test_a_run_on_the_device_is_a_run_on_the_reference(device, stack, tmp_path, capsys, monkeypatch):
    """Training with accumulation, a stop and a resume, scores, prediction: the same bits as on the host, whose tiles
    are made by the stand-in's kernels here.
    """
    monkeypatch.setattr("minunet.data.augment.HOST", "reference")
    monkeypatch.setattr("minunet.data.weights.HOST", "reference")
    options = ["isbi", "--data", stack, "--held-out", "2", *TINY, "--steps", "4", "--accumulate", "2"]
    assert command(train, *options, "--out", tmp_path / "host", "--backend", "reference") == 0
    assert command(train, *options, "--out", tmp_path / "gpu", "--device", "cuda", "--precision", "tf32") == 0
    assert device.to_device, "nothing ran on the device"
    about = extra(tmp_path / "gpu")
    assert (about["backend"], about["precision"]) == ("cuda", "tf32")
    metrics = [json.loads((tmp_path / k / "metrics.json").read_text()) for k in ("host", "gpu")]
    assert metrics[0]["scores"] == metrics[1]["scores"]
    assert [m["precision"] for m in metrics] == ["default", "tf32"]
    nets = [checkpoint.load(tmp_path / k / "checkpoint.safetensors").model.state_dict() for k in ("host", "gpu")]
    assert equal(*nets)
    device.forget_copies()
    assert command(train, "--resume", tmp_path / "gpu", "--data", stack, "--quiet") == 0
    assert device.to_device, "resumed elsewhere"
    assert extra(tmp_path / "gpu")["precision"] == "tf32"
    for name, way in (("host", ["--backend", "reference"]), ("gpu", ["--device", "cuda", "--precision", "bf16"])):
        file = tmp_path / name / "checkpoint.safetensors"
        assert command(predict, file, stack / "image.png", "--out", tmp_path / f"{name}-p", *way) == 0
    record = json.loads((tmp_path / "gpu-p" / "predictions.json").read_text())
    assert (record["backend"], record["precision"]) == ("cuda", "bf16")
    written = [(tmp_path / f"{k}-p" / "image_probability.png").read_bytes() for k in ("host", "gpu")]
    assert written[0] == written[1]
    assert "error" not in capsys.readouterr().err


def test_what_is_forgotten_shows(device, stack, tmp_path, monkeypatch):
    """Planted faults: a network that stays on the host, a batch that does, a target that does."""
    options = ["isbi", "--data", stack, "--held-out", "2", *TINY, "--steps", "1", "--device", "cuda"]
    with monkeypatch.context() as planted:
        planted.setattr(mu.nn.Module, "to", lambda self, backend: self)
        with pytest.raises(TypeError, match="conv2d: w is a numpy"):
            command(train, *options, "--out", tmp_path / "a")
    with monkeypatch.context() as planted:
        planted.setattr(backends.get("cuda"), "asarray", lambda a: a)
        with pytest.raises(TypeError, match=r"is a numpy|a NumPy array meets"):
            command(train, *options, "--out", tmp_path / "b")
    with monkeypatch.context() as planted:
        planted.setattr("minunet.training.sampler.Sampler._move", lambda self: None)  # else it is there already
        planted.setattr("minunet.ops.loss.like", lambda values, x: values)
        with pytest.raises(TypeError, match="target is a numpy"):
            command(train, *options, "--out", tmp_path / "c")


def test_device_and_backend_exclude_each_other(capsys):
    assert command(train, "isbi", "--device", "cpu", "--backend", "reference") == 2
    assert command(predict, "net", "a.png", "--out", "o", "--device", "cpu", "--backend", "reference") == 2
    for line in capsys.readouterr().err.splitlines():
        assert line == "error: --device cpu, --backend reference: exclude each other; give one"


def test_a_device_that_is_not_there(capsys):
    if "cuda" in backends.available():
        pytest.skip("there is a GPU")
    assert command(train, "synthetic", "--device", "cuda") == 2
    err = capsys.readouterr().err
    assert err.startswith("error: --backend cuda: is not available here (") and err.count("\n") == 1
    assert backends.get("cuda").reason() in err


def test_the_commands_know_all_precisions():
    assert cli.PRECISIONS == backends.PRECISIONS


# --- The GPU bench


@pytest.fixture
def dry(device, monkeypatch):
    """The bench's dry run, on arrays of the stand-in instead of NumPy's."""
    dry = Device(dry=True)
    dry.backend, dry.module = "cuda", backends.get("cuda")
    monkeypatch.setattr(gpu_numba, "NUMBA", "cuda")
    monkeypatch.setattr(gpu_checks, "DRY_EVERY", 1)
    return dry


@pytest.mark.parametrize("section", [name for name, *_ in gpu.SECTIONS if name not in ("ladder", "resources")])
def test_the_gpu_bench_mixes_no_arrays(dry, section):
    measure = next(run for name, run, _ in gpu.SECTIONS if name == section)
    found = {"sections": {section: {"result": measure(dry, Clock(60))}}}
    assert gpu.failures(found) == []
    assert "out of time" not in json.dumps(found)
    assert "left_out_for_time" not in json.dumps(found) or '"left_out_for_time": 0' in json.dumps(found)


# --- Memory that is full


def advised(text: str, *options: str) -> list[str]:
    """These options with their values, as an error's advice has them."""
    words = text.replace("(", " ").split()
    return [word for o in options for word in (o, words[words.index(o) + 1])]


def test_the_estimate_of_a_training_step_holds(device):
    """Against what the stand-in saw alive at most, with Adam."""
    model = small(width=4, depth=2)
    rng = np.random.default_rng(6)
    size = model.input_size(20, 20)
    estimate = footprint.training_step(model, size, 3, 2)
    with mu.use_backend("cuda") as module:
        model.to("cuda")
        x = mu.Tensor(module.asarray(rng.normal(size=(3, *size, 1)).astype(np.float32)))
        labels = rng.integers(0, 2, (3, *model.output_size(*size))).astype(np.int32)
        optimizer = optim.Adam(model.parameters())
        device.most = device.live
        ops.softmax_cross_entropy(model(x), labels).backward()
        optimizer.step()
    assert 0.8 * device.most <= estimate <= 1.1 * device.most
    assert all(p.grad is not None for p in model.parameters()), "the replay took the network's own gradients"


def test_training_that_does_not_fit_names_what_would(device, stack, tmp_path, capsys):
    options = ["isbi", "--data", stack, "--held-out", "2", "--device", "cuda", "--steps", "1", *TINY, "--width", "8"]
    for share, names in ((0.6, ("--batch", "--accumulate")), (0.33, ("--tile", "--batch", "--accumulate"))):
        device.limit = 1 << 40
        whole = footprint.training_step(small(width=8), (44, 44), 4, 2)
        device.limit = device.live + int(share * whole)
        assert command(train, *options, "--batch", "4", "--out", tmp_path / f"a{share}") == 1
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and err.startswith("error: the GPU's memory is full") and "would fit" in err
        better = advised(err, *names)
        kept = [o for k, o in enumerate(options) if "--tile" not in (o, options[k - 1]) or "--tile" not in better]
        assert command(train, *kept, *better, "--out", tmp_path / f"b{share}") == 0, (better, capsys.readouterr().err)
        capsys.readouterr()


def test_prediction_that_does_not_fit_names_a_tile(device, tmp_path, capsys):
    file, image = tmp_path / "net.safetensors", tmp_path / "a.png"
    checkpoint.save(file, small(width=4), extra={"normalise": "section"})
    write_png(image, np.random.default_rng(7).integers(0, 256, (90, 90), dtype=np.uint8))
    argv = [file, image, "--device", "cuda"]
    large = [*argv, "--tile", "90"]
    model = small(width=4)
    weights = sum(p.data.nbytes for p in model.parameters())
    with mu.use_backend("reference"):
        device.limit = device.live + weights + footprint.activations(model, model.input_size(60, 60))
    assert command(predict, *large, "--out", tmp_path / "p") == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "the GPU's memory is full" in err and "would fit: give --tile" in err
    assert command(predict, *argv, *advised(err, "--tile"), "--out", tmp_path / "q") == 0
    assert command(predict, *argv, "--out", tmp_path / "r") == 0, "windows are chosen for the memory that there is"
