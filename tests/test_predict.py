"""Prediction: any size, one window or many, against mirroring and cropping by hand; the command and its files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minunet as mu
from minunet import __main__ as command_line
from minunet import checkpoint, cli, models, ops, tiled
from minunet.data import normalise, read_image, write_png, write_tiff
from minunet.data.sections import as_sections
from minunet.errors import UserError
from minunet.nn import BatchNorm2d
from minunet.predict import RECORD, main, predict

STEP = 0.51 / 65535  # half a step of 16 bits, and float32's rounding


@pytest.fixture(autouse=True)
def reference():
    with mu.use_backend("reference"):
        yield


def network(dtype=np.float32, **arguments) -> models.base.Network:
    """A small U-Net with biases that are not zero, so that borders matter."""
    model = models.build("unet", **({"width": 2, "depth": 1, "seed": 3} | arguments))
    rng = np.random.default_rng(4)
    for name, p in model.named_parameters():
        if name.endswith(".b"):
            p.data += rng.normal(0, 0.3, p.shape).astype(np.float32)
    return model.astype(dtype)


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def direct(model, x: np.ndarray) -> np.ndarray:
    """softmax(model(x)) of one legal input (h, w) or (h, w, C)."""
    model.eval()
    x = x if x.ndim == 3 else x[:, :, None]
    return ops.softmax(model(mu.Tensor(np.ascontiguousarray(x[None])))).numpy()[0]


def close(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    return a.shape == b.shape and bool(np.isfinite(a).all()) and bool(np.abs(a - b).max() <= tolerance)


def test_valid_network_is_mirrored_by_its_margin():
    model = network(np.float64, depth=2)
    image = picture(67, 50)
    h, w = model.input_size(67, 50)
    top, left = model.margin(h, w)
    padded = np.pad(image, ((top, h - 67 - top), (left, w - 50 - left)), mode="reflect")
    p = predict(model, image)
    assert close(p, direct(model, padded)[:67, :50], 1e-12) and p.dtype == np.float64
    assert close(p.sum(axis=2), np.ones((67, 50)), 1e-12)


def test_same_network_is_mirrored_to_a_legal_size():
    model = network(np.float64, depth=2, padding="same", n_classes=3)
    image = picture(31, 42)
    assert close(predict(model, image), direct(model, np.pad(image, ((0, 1), (0, 2)), mode="reflect"))[:31, :42], 1e-12)
    assert close(predict(model, image[:28, :40]), direct(model, image[:28, :40]), 1e-12)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_tiled_equals_untiled(depth, dtype, tolerance):
    model = network(dtype, depth=depth)
    image = picture(75, 58)
    whole = predict(model, image)
    assert whole.dtype == dtype
    for tile in (33, (20, 58), (np.int64(90), 17)):
        calls = []
        p = predict(model, image, tile=tile, progress=lambda *n, calls=calls: calls.append(n))
        assert close(p, whole, tolerance)
        assert len(calls) > 1 and calls == [(k + 1, len(calls)) for k in range(len(calls))]


def test_a_shifted_window_would_differ():
    """The test above can fail: windows that start off the pools' grid give other values."""
    model = network(np.float64, depth=2)
    image = picture(90, 90)
    h = model.input_size(40, 40)[0]
    margin = model.margin(h, h)[0]
    whole = predict(model, image)
    for start, equal in ((4, True), (5, False)):
        window = np.pad(image, margin, mode="reflect")[start : start + h, :h]
        p = direct(model, window)[:40, :40]
        assert close(p, whole[start : start + 40, :40], 1e-12) == equal


@pytest.mark.parametrize("depth", [1, 2])
def test_tiled_same_network_agrees_where_the_context_suffices(depth):
    model = network(np.float64, depth=depth, padding="same")
    image = picture(301, 19)
    assert len(tiled.layout(model, (301, 19), (40, 40))) > 1
    assert close(predict(model, image, tile=40), predict(model, image), 1e-12)


def test_same_layout_covers_once_keeps_its_context_and_the_border():
    model = network(padding="same", depth=3)
    for size, tile in [((800, 300), (320, 320)), ((1000, 17), (1, 1)), ((401, 407), (56, 100)), ((9, 9), (500, 500))]:
        count = np.zeros(size, int)
        whole = model.input_size(*size)
        for place, top, left in tiled.layout(model, size, tile):
            i, j, h, w = place.source
            a, b, kh, kw = place.target
            count[a : a + kh, b : b + kw] += 1
            assert (i + top, j + left) == (a, b) and i % 8 == j % 8 == 0 and model.output_size(h, w) == (h, w)
            for start, side, skipped, kept, end in ((i, h, top, kh, whole[0]), (j, w, left, kw, whole[1])):
                assert start >= 0 and start + side <= end
                assert start == 0 or skipped >= tiled.CONTEXT
                assert start + side == end or side - skipped - kept >= tiled.CONTEXT
        assert (count == 1).all()


def test_worked_example_of_spans():
    assert tiled._spans(800, 800, 512, 96, 16) == [(0, 0, 384), (288, 96, 416)]


def test_fast_backend_agrees():
    image = picture(61, 70).astype(np.float32)
    for padding in ("valid", "same"):
        model = network(depth=2, padding=padding)
        expected = predict(model, image)
        with mu.use_backend("cpu"):
            assert close(predict(model, image), expected, 1e-5)
            assert close(predict(model, image, tile=20), expected, 1e-5)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 61), (40, 3)])
def test_tiny_images(padding, size):
    model = network(depth=3, padding=padding)
    p = predict(model, picture(*size), average=8)
    assert p.shape == (*size, 2) and p.dtype == np.float32
    assert close(p.sum(axis=2), np.ones(size, np.float32), 1e-6)


def test_colour_and_odd_inputs_are_taken_and_left_unchanged():
    model = network(in_channels=3, n_classes=4)
    image = np.asfortranarray(picture(23, 38, 3))
    before = image.copy()
    p = predict(model, image[::-1])
    assert np.array_equal(image, before) and p.shape == (23, 38, 4) and p.flags.c_contiguous
    assert np.array_equal(p, predict(model, np.ascontiguousarray(image[::-1]).astype(np.float32)))
    counts = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(predict(network(), counts), predict(network(), counts.astype(np.float32)))


def test_average_is_the_mean_over_the_symmetries():
    model = network(np.float64, depth=2)
    image = picture(26, 35)
    expected = np.zeros((26, 35, 2))
    for flip in (False, True):
        for turns in range(4):
            x = np.rot90(image[:, ::-1] if flip else image, turns)
            p = np.rot90(predict(model, np.ascontiguousarray(x)), -turns)
            expected += (p[:, ::-1] if flip else p) / 8
    calls = []
    p = predict(model, image, tile=(14, 20), average=8, progress=lambda *n: calls.append(n))
    assert close(p, expected, 1e-12) and not close(p, predict(model, image), 1e-3)
    assert calls == [(k + 1, len(calls)) for k in range(len(calls))]
    turned = predict(model, np.ascontiguousarray(np.rot90(image)), average=8)
    assert close(np.rot90(p), turned, 1e-12)


def test_one_output_is_a_sigmoid():
    model = network(np.float64, n_classes=1, padding="same")
    image = picture(12, 14)
    logits = model.eval()(mu.Tensor(image[None, :, :, None])).numpy()[0]
    assert close(predict(model, image), 1 / (1 + np.exp(-logits)), 1e-12)


def test_mode_flags_and_tape_are_left_as_they_were(monkeypatch):
    model = network(dropout=0.5)
    model.norm = BatchNorm2d(2)
    model.norm.eval()  # frozen by its owner
    flags = [m.training for m in model.modules()]
    a, b = predict(model, picture(9, 9)), predict(model, picture(9, 9))
    assert np.array_equal(a, b)  # no dropout
    assert [m.training for m in model.modules()] == flags and True in flags and False in flags
    assert all(p.grad is None for p in model.parameters()) and all(d.calls[0] == 0 for d in model.drop)

    def broken(x):
        raise RuntimeError("no")

    monkeypatch.setattr(model, "forward", broken)
    with pytest.raises(RuntimeError):
        predict(model, picture(9, 9))
    assert [m.training for m in model.modules()] == flags


def test_windows_keep_to_the_memory(monkeypatch):
    for padding in ("valid", "same"):
        model = network(padding=padding, depth=2, width=4)
        assert len(tiled.layout(model, (700, 600))) == 1
        monkeypatch.setattr(tiled, "MEMORY", 4 * 4 * tiled.ARRAYS * 330 * 330)
        sides = {place.source[2:] for place, _, _ in tiled.layout(model, (700, 600))}
        assert len(sides) == 1 and all(300 < side <= 330 for side in next(iter(sides)))
        monkeypatch.setattr(tiled, "MEMORY", 1)  # not enough for anything: the smallest window that works
        assert len(tiled.layout(model, (700, 600))) > 100
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.zeros((0, 5)), {}, "no image"),
        (np.zeros(5), {}, "no image"),
        (np.zeros((2, 2), complex), {}, "no image"),
        (np.zeros((3, 20, 21)), {}, "has 21 channels .* takes 1; .* section by section"),
        (np.array([[1.0, np.nan]]), {}, "NaN"),
        (np.zeros((5, 5)), {"tile": 0}, "tile: 0 must be at least 1"),
        (np.zeros((5, 5)), {"average": 9}, "9 asked for, but there are 8"),
        (np.zeros((5, 5)), {"average": 0}, "0 asked for"),
    ],
)
def test_errors_say_what_to_do(image, options, message):
    with pytest.raises(UserError, match=message):
        predict(network(), image, **options)


def test_the_module_is_the_function():
    model, image = network(), picture(11, 13)
    assert np.array_equal(mu.predict(model, image, tile=8), predict(model, image, 8))
    import minunet.predict  # noqa: F401 (binds the name again)

    assert mu.predict(model, image).shape == (11, 13, 2) and mu.predict.main is main


# The command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path, capsys):
    """A checkpoint, and a function that runs the command on it: (exit code, stdout, stderr)."""
    model = network()
    checkpoint.save(tmp_path / "net.safetensors", model, extra={"normalise": "section", "synthetic": False})

    def run(*argv, name: str = "net.safetensors"):
        options = ["--out", str(tmp_path / "out"), "--backend", "reference"]
        code = cli.run(main, [*options, str(tmp_path / name), *map(str, argv)])
        return code, *capsys.readouterr()

    return model, run


def test_every_kind_and_size_of_file(saved, tmp_path):
    model, run = saved
    rng = np.random.default_rng(1)
    files = {
        "a.png": rng.integers(0, 256, (21, 30), dtype=np.uint8),
        "b.c.png": rng.integers(0, 65536, (1, 1), dtype=np.uint16),
        "stack.tif": rng.integers(0, 256, (3, 17, 12), dtype=np.uint8),
        "page.tiff": rng.integers(0, 65536, (9, 40), dtype=np.uint16),
        "real.tif": rng.random((2, 14, 15)).astype(np.float32),
        "n.npy": rng.standard_normal((2, 8, 33)),
        "colour.png": np.repeat(rng.integers(0, 256, (15, 16, 1), dtype=np.uint8), 3, axis=2),
    }
    for name, pixels in files.items():
        if name.endswith(".npy"):
            np.save(tmp_path / name, pixels)
        else:
            (write_png if name.endswith(".png") else write_tiff)(tmp_path / name, pixels)
    before = {name: (tmp_path / name).read_bytes() for name in files}

    code, out, err = run(*(tmp_path / name for name in files), "--average", 2, "--tile", 16)
    assert (code, err) == (0, "") and len(out.splitlines()) == len(files)
    assert "SYNTHETIC" not in out
    for name, pixels in files.items():
        sections = as_sections(name, pixels, 1)[..., 0]
        ending = ".png" if len(sections) == 1 else ".tif"
        expected = np.stack([predict(model, x, tile=16, average=2) for x in normalise(sections)])
        stem = tmp_path / "out" / name.rpartition(".")[0]
        mask, probability = read_image(f"{stem}_mask{ending}"), read_image(f"{stem}_probability{ending}")
        assert mask.dtype == np.uint8 and probability.dtype == np.uint16
        if len(sections) == 1:
            expected = expected[0]
        assert np.array_equal(mask, np.where(expected[..., 1] > 0.5, 255, 0))
        assert close(probability / 65535, expected[..., 1], STEP)
        assert f"{stem}_mask{ending}" in out and f"{stem}_probability{ending}" in out
    assert {name: (tmp_path / name).read_bytes() for name in files} == before
    assert len(list((tmp_path / "out").iterdir())) == 2 * len(files) + 1
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert record["trained_on"] == {"synthetic": False, "source": None} and record["failed"] == []
    assert [f["shape"] for f in record["files"]][:3] == [[21, 30], [1, 1], [3, 17, 12]]
    assert record["average"] == 2 and record["versions"]["minunet"] == mu.__version__


def test_more_classes(saved, tmp_path):
    _, run = saved
    model = network(n_classes=3, in_channels=3, seed=8)
    checkpoint.save(tmp_path / "rgb.safetensors", model)
    pixels = np.random.default_rng(2).integers(0, 256, (19, 24, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", pixels)
    code, _, err = run(tmp_path / "a.png", "--classes", "2,0", name="rgb.safetensors")
    assert (code, err) == (0, "")
    p = predict(model, np.moveaxis(normalise(np.moveaxis(pixels, 2, 0)), 0, 2))
    out = tmp_path / "out"
    assert np.array_equal(read_image(out / "a_classes.png"), p.argmax(axis=2))
    assert np.array_equal(read_image(out / "a_mask.png"), np.array([0, 127, 255])[p.argmax(axis=2)])
    for c in (0, 2):
        assert close(read_image(out / f"a_probability_class{c}.png") / 65535, p[..., c], STEP)
    assert not (out / "a_probability.png").exists()


def test_synthetic_origin_is_said_twice(saved, tmp_path):
    _, run = saved
    extra = {"normalise": "none", "synthetic": True, "data": {"source": "SYNTHETIC membranes"}}
    checkpoint.save(tmp_path / "syn.safetensors", network(), extra=extra)
    np.save(tmp_path / "a.npy", picture(10, 12))
    code, out, _ = run(tmp_path / "a.npy", name="syn.safetensors")
    assert code == 0 and "was trained on SYNTHETIC images" in out
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert record["trained_on"] == {"synthetic": True, "source": "SYNTHETIC membranes"}
    p = predict(network(), picture(10, 12))[..., 1]  # "none": as they are
    assert close(read_image(tmp_path / "out" / "a_probability.png") / 65535, p, STEP)


def test_a_bad_file_does_not_stop_the_others(saved, tmp_path):
    _, run = saved
    write_png(tmp_path / "good.png", np.zeros((5, 6), np.uint8))
    write_png(tmp_path / "colour.png", np.arange(90, dtype=np.uint8).reshape(5, 6, 3))
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])
    np.save(tmp_path / "nan.npy", np.array([[1.0, np.nan]]))
    names = ["bad.png", "missing.tif", "nan.npy", "colour.png", "good.png"]
    code, out, err = run(*(tmp_path / name for name in names))
    assert code == 1 and len(err.splitlines()) == 4 and len(out.splitlines()) == 1
    for line, name in zip(err.splitlines(), names):
        assert line.startswith(f"error: {tmp_path / name}: ")
    assert (tmp_path / "out" / "good_mask.png").exists() and not list((tmp_path / "out").glob("[bcnm]*_*"))
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert [Path(f["input"]).name for f in record["failed"]] == names[:4]


def test_inputs_are_never_overwritten_and_names_never_shared(saved, tmp_path):
    _, run = saved
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "other").mkdir()
    for path in (out / "a.png", out / "a_mask.png", tmp_path / "other" / "a.tif"):
        write_tiff(path, np.arange(30, dtype=np.uint8).reshape(5, 6))
    os.link(out / "a.png", out / "link_probability.tif")
    (out / RECORD).symlink_to(tmp_path / "other" / "a.tif")
    before = {path: path.read_bytes() for path in out.iterdir()}
    for files, message in [
        (("out/a.png", "out/a_mask.png"), "would overwrite the input .*a_mask.png"),
        (("out/a.png", "other/../out/a.png"), "would overwrite those of"),
        (("other/a.tif", "out/a.png"), "would overwrite those of"),
        (("other/a.tif",), f"{RECORD} would overwrite an input"),
    ]:
        code, printed, err = run(*(tmp_path / file for file in files))
        assert code == 2 and printed == "" and err.startswith("error: ") and len(err.splitlines()) == 1
        with pytest.raises(UserError, match=message):
            main([str(tmp_path / "net.safetensors"), *(str(tmp_path / f) for f in files), "--out", str(out)])
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_wrong_command_lines(saved, tmp_path):
    _, run = saved
    np.save(tmp_path / "a.npy", picture(4, 4))
    for options, word in [
        (("--tile", 0), "--tile 0"),
        (("--average", 9), "--average 9"),
        (("--classes", "one"), "--classes one"),
        (("--classes", "2"), "classes 0 to 1"),
        (("--backend", "abacus"), "--backend abacus"),
    ]:
        code, out, err = run(tmp_path / "a.npy", *options)
        assert code == 2 and out == "" and err.startswith("error: ") and word in err and not (tmp_path / "out").exists()
    assert run(tmp_path / "a.npy", name="missing.safetensors")[0] == 1
    (tmp_path / "out").write_text("in the way")
    assert run(tmp_path / "a.npy")[0] == 2


def test_as_a_program(saved, tmp_path):
    write_png(tmp_path / "a.png", np.arange(30, dtype=np.uint8).reshape(5, 6))
    argv = ["net.safetensors", "--out", "new/folder", "a.png", "--backend", "reference"]
    done = subprocess.run(
        [sys.executable, "-m", "minunet.predict", *argv], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "a.png: 5 x 6 -> new/folder/a_mask.png, new/folder/a_probability.png\n"


def test_minunet_command(capsys, monkeypatch):
    assert command_line.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in ("train", "predict", "evaluate", "data", "bench"):
        assert f"\n  {name} " in text and name in command_line.COMMANDS
    for name in command_line.COMMANDS:  # listed exactly where it can be run
        assert (f"\n  {name} " in text) == (name == "bench" or command_line.module_of(name) is not None)
    assert command_line.main(["--version"]) == 0
    assert capsys.readouterr().out == f"minunet {mu.__version__}\n"
    assert command_line.main(["perdict", "x"]) == 2
    assert "did you mean predict?" in capsys.readouterr().err
    assert command_line.main([]) == 2
    assert command_line.main(["tensor"]) == 2  # a module, but no command
    with pytest.raises(SystemExit) as stop:
        command_line.main(["predict", "--help"])
    assert stop.value.code == 0 and "minunet predict" in capsys.readouterr().out
    monkeypatch.setattr(command_line, "CHECKOUT", Path("nowhere"))
    assert command_line.main(["bench"]) == 1
    assert capsys.readouterr().err.startswith("error: bench: ")


@pytest.mark.parametrize("argv", [["--help"], ["predict", "--help"]])
def test_help_loads_neither_numba_nor_numpy(argv):
    code = (
        "import sys\nfrom minunet.__main__ import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write(str([m for m in ('numba', 'numpy') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "usage: minunet" in done.stdout and done.stderr == "[]"
