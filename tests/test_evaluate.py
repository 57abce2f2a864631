"""`minunet evaluate` on files as other programs write them, and on wrong ones."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from minunet import cli, evaluate, metrics

tifffile = pytest.importorskip("tifffile")


@pytest.fixture(scope="module")
def cells() -> np.ndarray:
    """Bool (2, 33, 45): polygons with membrane between."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:33, :45]
    stack = []
    for _ in range(2):
        d = np.sort([np.hypot(y - a, x - b) for a, b in rng.random((9, 2)) * (33, 45)], axis=0)
        stack.append(d[1] - d[0] > 2.5)
    return np.array(stack)


@pytest.fixture(scope="module")
def p(cells) -> np.ndarray:
    noise = 0.1 * np.random.default_rng(2).standard_normal(cells.shape)
    return (ndimage.gaussian_filter(cells.astype(float), (0, 1, 1)) + noise).clip(0, 1).astype(np.float32)


def write(path, array):
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".png":
        Image.fromarray(array).save(path)
    else:
        tifffile.imwrite(path, array, photometric="minisblack")
    return str(path)


def run(capsys, *argv: str):
    code = cli.run(evaluate.main, list(argv))
    out, err = capsys.readouterr()
    return code, out, err


def failure(capsys, *argv: str) -> str:
    code, out, err = run(capsys, *argv)
    errors = [line for line in err.splitlines() if not line.startswith("note:")]
    assert code == 1 and len(errors) == 1 and errors[0].startswith("error: "), (code, out, err)
    return errors[0]


def test_table_and_json_agree_with_the_metrics(tmp_path, capsys, cells, p):
    files = write(tmp_path / "p.tif", p), write(tmp_path / "t.tif", cells.astype(np.uint8) * 255)
    code, out, err = run(capsys, *files, "--json", str(tmp_path / "s.json"))
    assert (code, err) == (0, "")
    report = json.loads((tmp_path / "s.json").read_text())
    expected = metrics.isbi_scores(cells, p)
    assert report["shape"] == [2, 33, 45] and set(report["scores"]) == set(expected)
    for key, score in expected.items():
        assert report["scores"][key] == vars(score)
        assert f"{score.value:.6f}" in out and f"{score.threshold:.1f}" in out
    assert sorted(f.name for f in tmp_path.iterdir()) == ["p.tif", "s.json", "t.tif"]

    code, out, _ = run(capsys, *files, "--no-warping")
    assert code == 0 and "warping error" not in out and "V_Rand" in out


@pytest.mark.parametrize("truth_as", ["u8", "one", "float", "u16", "bool"])
@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_truth_in_any_coding_gives_the_same(tmp_path, capsys, cells, p, truth_as, suffix):
    truth = {
        "u8": cells.astype(np.uint8) * 255,
        "one": cells.astype(np.uint8),
        "bool": cells,
        "float": cells.astype(np.float32),
        "u16": cells.astype(np.uint16) * 65535,
    }[truth_as]
    code, out, err = run(capsys, write(tmp_path / "p.npy", p), write(tmp_path / f"t{suffix}", truth), "--no-warping")
    assert (code, err) == (0, "") and f"{metrics.v_rand(cells, p):.6f}" in out


def scores_of(tmp_path, capsys, prediction, truth, *more):
    code, _, err = run(capsys, prediction, truth, "--no-warping", "--json", str(tmp_path / "s.json"), *more)
    assert code == 0, err
    return {k: v["value"] for k, v in json.loads((tmp_path / "s.json").read_text())["scores"].items()}, err


def test_predictions_in_any_coding(tmp_path, capsys, cells, p):
    truth = write(tmp_path / "t.tif", cells.astype(np.uint8))
    eight, sixteen = np.round(p * 255).astype(np.uint8), np.round(p * 65535).astype(np.uint16)
    for name, stored, as_float in (
        ("8.tif", eight, eight / np.float32(255)),
        ("16.tif", sixteen, sixteen / np.float32(65535)),
        ("f.npy", p.astype(np.float64), p),
        ("mask.tif", (p > 0.5).astype(np.uint8) * 255, p > 0.5),
        ("ones.tif", (p > 0.5).astype(np.uint16), p > 0.5),
        ("mask.npy", (p > 0.5) * 255.0, p > 0.5),
        ("bool.npy", p > 0.5, p > 0.5),
    ):
        got, _ = scores_of(tmp_path, capsys, write(tmp_path / name, stored), truth)
        expected = metrics.isbi_scores(cells, as_float, warping=False)
        assert got == {k: v.value for k, v in expected.items()}, name


def test_single_slices_colour_pictures_and_channels(tmp_path, capsys, cells, p):
    grey = np.round(p[0] * 255).astype(np.uint8)
    expected = metrics.pixel_error(cells[0], grey / np.float32(255))
    truth = write(tmp_path / "t.png", cells[0].astype(np.uint8) * 255)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    rgba = np.concatenate([rgb, np.full_like(grey, 255)[..., None]], axis=2)
    for picture in (grey, rgb, rgba):
        got, err = scores_of(tmp_path, capsys, write(tmp_path / "p.png", picture), truth)
        assert got["pixel_error"] == expected and err == ""
    both = write(tmp_path / "both.npy", np.stack([1 - p[0], p[0]], axis=-1))
    assert "--channel" in failure(capsys, both, truth)
    got, _ = scores_of(tmp_path, capsys, both, truth, "--channel", "1")
    assert got["pixel_error"] == metrics.pixel_error(cells[0], p[0])
    assert "no channel 2" in failure(capsys, both, truth, "--channel", "2")


def test_three_slices_stored_as_colour_planes(tmp_path, capsys, cells, p):
    truth, prediction = cells[[0, 1, 0]], np.round(p[[0, 1, 1]] * 255).astype(np.uint8)
    files = []
    for name, stack in (("p.tif", prediction), ("t.tif", truth.astype(np.uint8) * 255)):
        tifffile.imwrite(tmp_path / name, stack, photometric="rgb", planarconfig="separate")
        files.append(str(tmp_path / name))
    got, err = scores_of(tmp_path, capsys, *files)
    assert "3 planes" in err
    assert got["v_rand"] == metrics.v_rand(truth, prediction / np.float32(255))


def test_inverted_predictions_are_noticed(tmp_path, capsys, cells, p):
    truth, inverted = write(tmp_path / "t.tif", cells.astype(np.uint8)), write(tmp_path / "m.npy", 1 - p)
    wrong, err = scores_of(tmp_path, capsys, inverted, truth)
    assert "use --membrane" in err
    right, err = scores_of(tmp_path, capsys, inverted, truth, "--membrane")
    assert err == "" and right["v_rand"] > wrong["v_rand"] + 0.3


def test_other_notes(tmp_path, capsys, cells, p):
    prediction = write(tmp_path / "p.npy", p)
    _, err = scores_of(tmp_path, capsys, prediction, write(tmp_path / "t.npy", cells * 2 + (p > 0.99)))
    assert "different values" in err
    _, err = scores_of(tmp_path, capsys, prediction, write(tmp_path / "t.npy", np.ones_like(p)))
    assert "no membrane" in err


def test_numbers_of_cells_are_noticed(tmp_path, capsys, cells, p):
    """Cellpose and others write them: whole numbers far below the type's range, and cells that touch."""
    truth = write(tmp_path / "t.npy", cells)
    numbers = np.stack([ndimage.label(c)[0] for c in cells]).astype(np.uint16)
    _, err = scores_of(tmp_path, capsys, write(tmp_path / "n.npy", numbers), truth)
    assert f"n.npy: its largest value is {numbers.max()} of 65535" in err and "touch" in err
    for fine in (p, cells, np.round(p * 255).astype(np.uint8), cells.astype(np.uint8), np.zeros_like(numbers)):
        _, err = scores_of(tmp_path, capsys, write(tmp_path / "p.npy", fine), truth)
        assert "largest value" not in err


def test_a_class_that_is_ignored_by_mistake_is_noticed(tmp_path, capsys, cells):
    """A mask of 0 and 255: without its 255 every prediction of 0 there is right."""
    prediction = write(tmp_path / "p.png", np.where(cells[0], 1, 0).astype(np.uint8))
    truth = write(tmp_path / "t.png", np.where(cells[0], 255, 0).astype(np.uint8))
    code, _, err = run(capsys, prediction, truth, "--semantic", "--classes", "2")
    assert code == 0 and "t.png: of the pixels that are not 255, which is ignored, all are class 0" in err
    for values, ignore in (((1, 0), "255"), ((255, 0), "0")):
        truth = write(tmp_path / "t.png", np.where(cells[0], *values).astype(np.uint8))
        code, _, err = run(capsys, prediction, truth, "--semantic", "--classes", "256", "--ignore", ignore)
        assert code == 0 and ("note:" in err) == (ignore == "0")


def test_wrong_files_give_one_line(tmp_path, capsys, cells, p):
    good, truth = write(tmp_path / "p.npy", p), write(tmp_path / "t.npy", cells)
    line = failure(capsys, write(tmp_path / "small.npy", p[:, 1:]), truth)
    assert "small.npy is 2 x 32 x 45 but" in line and "t.npy is 2 x 33 x 45" in line
    nan = p.copy()
    nan[1, 2, 3] = np.nan
    assert "nan.npy: holds NaN on 1 pixels" in failure(capsys, write(tmp_path / "nan.npy", nan), truth)
    assert "no probabilities" in failure(capsys, write(tmp_path / "big.npy", p * 255), truth)
    assert "no probabilities" in failure(capsys, write(tmp_path / "neg.npy", p - 1), truth)
    assert "no probabilities" in failure(capsys, write(tmp_path / "int.npy", np.round(p * 9).astype(np.int64)), truth)
    assert "no cell" in failure(capsys, good, write(tmp_path / "zero.npy", np.zeros_like(p)))
    assert "absent.tif" in failure(capsys, str(tmp_path / "absent.tif"), truth)
    (tmp_path / "text.tif").write_text("not an image")
    assert "text.tif" in failure(capsys, good, str(tmp_path / "text.tif"))
    whole = (tmp_path / "p.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[: len(whole) // 2])
    assert "cut.npy" in failure(capsys, str(tmp_path / "cut.npy"), truth)
    assert "none/s.json" in failure(capsys, good, truth, "--no-warping", "--json", str(tmp_path / "none/s.json"))


def test_semantic(tmp_path, capsys):
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 3, (20, 30)).astype(np.uint8), rng.integers(0, 3, (20, 30)).astype(np.uint8)
    truth[:4] = 255
    files = write(tmp_path / "p.png", predicted), write(tmp_path / "t.png", truth)
    code, out, err = run(capsys, *files, "--semantic", "--classes", "4", "--json", str(tmp_path / "s.json"))
    assert (code, err) == (0, "")
    cm = metrics.confusion_matrix(truth, predicted, 4)
    s = metrics.scores(cm)
    report = json.loads((tmp_path / "s.json").read_text())["scores"]
    assert report["confusion_matrix"] == cm.tolist() and report["mean_iu"] == s.mean_iu
    assert report["iu"] == [*s.iu[:3].tolist(), None] and report["dice"][3] is None
    assert report["boundary_f1"] == metrics.boundary_f1(truth, predicted, 4)
    for value in (s.acc, s.acc_cls, s.mean_iu, s.fwavacc, s.iu[1], s.dice[2]):
        assert f"{value:.6f}" in out
    assert "nan" not in out.lower() and "480 of 600 pixels" in out

    line = failure(capsys, *files, "--semantic", "--classes", "2")
    assert "t.png" in line and "label 2" in line
    line = failure(capsys, *files, "--semantic", "--classes", "3", "--ignore", "0")
    assert "label 255" in line
    line = failure(capsys, write(tmp_path / "f.npy", predicted / 2.0), files[1], "--semantic", "--classes", "3")
    assert "f.npy" in line and "integers" in line


@pytest.mark.parametrize(
    "options",
    [
        ["--semantic"],
        ["--classes", "3"],
        ["--semantic", "--classes", "0"],
        ["--semantic", "--classes", "3", "--membrane"],
    ],
)
def test_wrong_usage_exits_2(capsys, options):
    code, _, err = run(capsys, "p.tif", "t.tif", *options)
    assert code == 2 and err.count("\n") == 1


def test_as_a_module(tmp_path, cells):
    truth = write(tmp_path / "t.tif", cells.astype(np.uint8))
    command = [sys.executable, "-m", "minunet.evaluate"]
    done = subprocess.run([*command, str(tmp_path / "no.tif"), truth], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "no.tif" in done.stderr
    done = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--no-warping" in done.stdout
    quick = "import sys; from minunet import evaluate; evaluate.build_parser(); sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", quick]).returncode == 0


def test_semantic_folders_are_one_matrix(tmp_path, capsys):
    rng = np.random.default_rng(8)
    truth, guess = rng.integers(0, 4, (2, 3, 12, 15), dtype=np.uint8)
    truth[1] = 3  # one image is ignored altogether
    folders = [tmp_path / "predicted", tmp_path / "true", tmp_path / "few"]
    for folder in folders:
        folder.mkdir()
    for s, size in enumerate((15, 15, 9)):  # images of different sizes
        write(folders[0] / f"im{s}_classes.png" if s else folders[0] / "im0.png", guess[s][:, :size])
        write(folders[1] / f"im{s}.png", truth[s][:, :size])
    write(folders[0] / "im1_mask.png", guess[0])
    options = ("--semantic", "--classes", "4", "--ignore", "3", "--json", str(tmp_path / "s.json"))
    code, out, _ = run(capsys, str(folders[0]), str(folders[1]), *options)
    assert code == 0 and "3 files" in out
    found = json.loads((tmp_path / "s.json").read_text())
    parts = [(truth[s][:, :n], guess[s][:, :n]) for s, n in ((0, 15), (2, 9))]
    cm = sum(metrics.confusion_matrix(t, q, 4, 3) for t, q in parts)
    assert found["scores"]["confusion_matrix"] == cm.tolist() and found["files"] == 3
    assert found["scores"]["mean_iu"] == metrics.scores(cm).mean_iu
    bf = np.mean([metrics.boundary_f1(t, q, 4, 3) for t, q in parts])
    assert abs(found["scores"]["boundary_f1"] - bf) <= 1e-12
    write(folders[2] / "im0.png", guess[0])
    assert "no prediction for 2 of 3" in failure(capsys, str(folders[2]), str(folders[1]), *options)
    assert "one is a folder" in failure(capsys, str(folders[2]), str(folders[1] / "im0.png"), *options)
    assert "holds no images" in failure(capsys, str(folders[0]), str(tmp_path / "predicted" / ".."), *options)
