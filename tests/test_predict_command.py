"""`minunet predict`: files of every kind, their results under which names, and what is said where it does not go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from predictions import close, network, picture

import minunet as mu
from minunet import __main__ as command_line
from minunet import checkpoint, cli
from minunet.data import normalise, read_image, write_png, write_tiff
from minunet.data.sections import as_sections
from minunet.errors import UserError
from minunet.predict import RECORD, main, predict

STEP = 0.51 / 65535  # half a step of 16 bits, and float32's rounding

pytestmark = pytest.mark.usefixtures("reference")


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


def results(printed: str) -> list[str]:
    """What was printed but the estimate of memory."""
    lines = printed.splitlines()
    assert any(line.startswith("memory: about ") for line in lines)
    return [line for line in lines if not line.startswith("memory: ")]


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
    assert (code, err) == (0, "") and len(results(out)) == len(files)
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
    assert code == 1 and len(err.splitlines()) == 4 and len(results(out)) == 1
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
    command = [sys.executable, "-m", "minunet.predict", *argv]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert results(done.stdout) == ["a.png: 5 x 6 -> new/folder/a_mask.png, new/folder/a_probability.png"]


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
    text = capsys.readouterr().out
    assert stop.value.code == 0 and "minunet predict" in text
    assert "1 to 8 (default: 1)" in text and "None" not in text and "False" not in text
    monkeypatch.setattr(command_line, "CHECKOUT", Path("nowhere"))
    assert command_line.main(["bench"]) == 1
    assert capsys.readouterr().err.startswith("error: bench: ")


@pytest.mark.parametrize("argv", [["--help"], ["predict", "--help"]])
def test_help_loads_neither_numba_nor_numpy(argv):
    code = (
        "import sys\nfrom minunet.__main__ import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write(str([m for m in ('numba', 'numpy') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)
    assert done.returncode == 0 and "usage: minunet" in done.stdout and done.stderr == "[]"
