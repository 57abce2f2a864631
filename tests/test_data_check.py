"""`minunet data`: every finding is made once, on the right file, and a clean folder has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minunet import cli
from minunet.data import download
from minunet.data.__main__ import main
from minunet.data.check import check_folder
from minunet.data.images import read_image, write_png, write_tiff
from minunet.data.isbi import load_isbi
from minunet.errors import UserError


def grey(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape or (12, 15), dtype=np.uint8)


def mask(seed: int, *shape: int) -> np.ndarray:
    return np.where(np.random.default_rng(seed).random(shape or (12, 15)) < 0.25, 0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two good pairs in images/ and masks/."""
    for sub in ("images", "masks"):
        (tmp_path / sub).mkdir()
    for k in (1, 2):
        write_png(tmp_path / "images" / f"cell{k}.png", grey(k))
        write_png(tmp_path / "masks" / f"cell{k}.png", mask(k))
    return tmp_path


def only(folder: Path, problem: bool, *words: str, **options) -> None:
    """There is one finding, of that kind, and its line has these words."""
    findings = check_folder(folder, **options).findings
    assert [f.problem for f in findings] == [problem], findings
    assert "\n" not in findings[0].text
    for word in words:
        assert word in findings[0].text, findings[0].text


def test_a_clean_folder(folder, capsys):
    report = check_folder(folder)
    assert (report.pairs, report.findings, len(report.entries)) == (2, [], 4)
    assert main(["check", str(folder)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "files: 4  pairs: 2  problems: 0  notes: 0"
    assert out[4:8] == ["paired by name:", "  cell1.png  -  cell1.png", "  cell2.png  -  cell2.png", "labels:"]
    assert out[8:10] == ["  0 -> class 0", "  255 -> class 1"] and out[10].startswith("  shares of pixels: 0 2")
    assert len(out) == 12
    assert "images/cell1.png" in out[0] and "12 x 15" in out[0] and "uint8" in out[0]
    assert "0: " in out[2] and "255: " in out[2] and "%" in out[2]


@pytest.mark.parametrize(
    ("image_name", "mask_name"),
    [
        ("a.png", "a_mask.png"),
        ("train-volume.tif", "train-labels.tif"),
        ("A_img.png", "a-gt.tif"),
        ("x.tif", "x_seg.tif"),
    ],
)
def test_pairs_by_name_in_one_folder(tmp_path, image_name, mask_name):
    for name, array in ((image_name, grey(0)), (mask_name, mask(0))):
        (write_png if name.endswith("png") else write_tiff)(tmp_path / name, array)
    report = check_folder(tmp_path)
    assert report.pairs == 1 and report.findings == []


def test_a_stack_under_isbi_and_its_test_volume(tmp_path):
    (tmp_path / "isbi2012").mkdir()
    write_tiff(tmp_path / "isbi2012" / "train-volume.tif", grey(0, 3, 9, 8))
    write_tiff(tmp_path / "isbi2012" / "train-labels.tif", mask(0, 3, 9, 8))
    write_tiff(tmp_path / "isbi2012" / "test-volume.tif", grey(1, 3, 9, 8))
    assert check_folder(tmp_path).pairs == 1
    only(tmp_path, False, "test-volume.tif", "no mask")


def test_each_problem(folder):
    images, masks = folder / "images", folder / "masks"
    whole = (images / "cell1.png").read_bytes()
    (images / "cell1.png").write_bytes(whole[:90])
    only(folder, True, "cell1.png", "cut short")
    write_png(images / "cell1.png", np.full((12, 15), 9, np.uint8))
    only(folder, True, "cell1.png", "one and the same value")
    write_png(images / "cell1.png", grey(2))
    only(folder, True, "cell2.png", "same pixels as", "cell1.png")
    write_png(images / "cell3.png", grey(2))
    write_png(masks / "cell3.png", mask(3))
    assert len(check_folder(folder).findings) == 2  # each further copy
    (images / "cell3.png").unlink()
    (masks / "cell3.png").unlink()
    write_png(images / "cell1.png", grey(1, 12, 14))
    sizes, pair = check_folder(folder).findings
    assert not sizes.problem and "12 x 14" in sizes.text and "--size" in sizes.text
    assert pair.problem and all(w in pair.text for w in ("masks", "12 x 15", "12 x 14"))
    (images / "cell1.png").unlink()
    np.save(images / "cell1.npy", np.where(grey(1) > 4, 1.0, np.nan))
    only(folder, True, "cell1.npy", "NaN")
    (images / "cell1.npy").unlink()
    only(folder, True, "masks", "cell1.png", "no image of that name")
    write_png(images / "cell1.png", grey(1))
    write_tiff(images / "cell1.tif", grey(5))
    only(folder, True, "cell1.tif", "rename")
    (images / "cell1.tif").unlink()
    write_png(masks / "cell1.png", np.repeat(mask(1)[:, :, None], 3, 2))
    assert check_folder(folder).findings == []  # grey, saved in colour
    write_png(masks / "cell1.png", np.stack([mask(1), 0 * mask(1), mask(1)], 2))
    only(folder, True, "masks", "in colours", "in grey")
    write_png(images / "cell1.png", np.stack([grey(1), grey(2), grey(3)], 2))
    write_png(masks / "cell1.png", mask(1))
    only(folder, True, "is grey", "in colour", "cell2.png")
    write_png(images / "cell1.png", grey(1))
    np.save(masks / "cell1.npy", mask(1) / 510)
    (masks / "cell1.png").unlink()
    only(folder, True, "cell1.npy", "0.5", "not probabilities")
    (masks / "cell1.npy").unlink()
    write_png(masks / "cell1.png", grey(1))
    only(folder, True, "masks", "different values", "nearest neighbour")
    (masks / "cell1.png").unlink()
    Image.fromarray(mask(1)).save(masks / "cell1.jpg")
    only(folder, True, "cell1.jpg", "JPEG")


def test_each_note(folder):
    images, masks = folder / "images", folder / "masks"
    write_png(masks / "cell1.png", np.full((12, 15), 255, np.uint8))
    only(folder, False, "masks", "single class 255")
    write_png(masks / "cell1.png", 255 - mask(1))
    only(folder, False, "masks", "cell1.png", "exchange them")
    write_png(masks / "cell2.png", 255 - mask(2))
    only(folder, False, "cell1.png and 1 more", "exchange them")  # one line for all masks
    write_png(masks / "cell2.png", mask(2))
    write_png(masks / "cell1.png", 1 + mask(1) // 255)
    write_png(masks / "cell2.png", 1 + mask(2) // 255)
    assert all("no class 0" in f.text and not f.problem for f in check_folder(folder).findings)
    write_png(masks / "cell2.png", mask(2))
    write_png(masks / "cell1.png", mask(1) // 2)
    only(folder, False, "masks", "0, 127", "0, 255", "3 classes", "--labels")
    assert check_folder(folder, labels="0=wall,127=cell,255=cell").findings == []
    only(folder, True, "holds 255", "255=NAME", labels="0=wall,127=cell")
    write_png(masks / "cell1.png", grey(1) // 52)  # classes 0 to 4
    assert check_folder(folder).findings == []
    write_tiff(images / "cell1.tif", grey(1).astype(np.uint16) * 257)
    (images / "cell1.png").unlink()
    only(folder, False, "cell1.tif", "uint16", "cell2.png", "uint8")
    (images / "cell1.tif").unlink()
    write_png(images / "cell1.png", grey(1))
    Image.fromarray(mask(1) > 0).save(masks / "cell1.png")  # one bit a pixel
    assert check_folder(folder).findings == []
    np.save(masks / "cell1.npy", mask(1) > 0)  # 1 here is the other's 255
    (masks / "cell1.png").unlink()
    only(folder, False, "cell1.npy", "cell2.png", "255", "--labels")
    assert "255 -> class 1" in check_folder(folder).labels[2]
    only(folder, True, "cell2.png", "255=NAME", labels="0=background,1=cell")
    (masks / "cell1.npy").unlink()
    write_png(masks / "cell1.png", mask(1))
    write_png(images / "cell1.png", mask(7))
    only(folder, False, "images", "two grey values")
    write_png(images / "cell1.png", grey(1))
    write_png(images / "cell3.png", grey(3))
    only(folder, False, "cell3.png", "no mask")
    for name in ("cell1.png", "cell2.png"):
        (masks / name).unlink()
    only(folder, False, "no masks", "predicted")


def test_instances_are_said_to_be_some(folder):
    for k in (1, 2):
        write_png(folder / "masks" / f"cell{k}.png", np.arange(180, dtype=np.uint8).reshape(12, 15))
    texts = [f.text for f in check_folder(folder).findings if f.problem]
    assert len(texts) == 2 and all("180 different values" in t and "--instances" in t for t in texts)
    report = check_folder(folder, instances=True)
    assert report.findings == [] and "cell 99.4%" in report.labels[-1]


def test_names_that_leave_it_open(folder):
    write_png(folder / "masks" / "cell1_gt.png", mask(3))
    (folder / "masks" / "cell1.png").unlink()
    write_png(folder / "masks" / "cell1_mask.png", mask(3))
    only(folder, True, "cell1_gt.png", "cell1_mask.png", "rename")


def test_blank_and_copied_sections_are_numbered(tmp_path):
    stack = grey(0, 5, 9, 8)
    stack[1] = 3
    stack[4] = stack[2]
    write_tiff(tmp_path / "a.tif", stack)
    write_tiff(tmp_path / "a_mask.tif", mask(0, 5, 9, 8))
    texts = [f.text for f in check_folder(tmp_path).findings if f.problem]
    assert len(texts) == 2
    assert "section 1 " in texts[0] and "section 4: same pixels" in texts[1] and "section 2;" in texts[1]


def test_problems_give_exit_code_1_and_come_first(folder, capsys):
    write_png(folder / "images" / "cell3.png", grey(3))
    write_png(folder / "images" / "cell1.png", np.zeros((12, 15), np.uint8))
    assert main(["check", str(folder)]) == 1
    kinds = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()[-3:-1]]
    assert kinds == ["PROBLEM", "note"]


def test_wrong_use(tmp_path, capsys):
    with pytest.raises(UserError, match="no such folder"):
        check_folder(tmp_path / "none")
    with pytest.raises(UserError, match="holds no image files"):
        check_folder(tmp_path)
    assert cli.run(main, ["check", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    for argv in ([], ["check"], ["look", "x"]):
        with pytest.raises(SystemExit) as caught:
            main(argv)
        assert caught.value.code == 2


def test_synthetic_writes_what_load_isbi_reads(tmp_path, capsys):
    argv = ["synthetic", str(tmp_path), "--sections", "2", "--size", "70", "--seed", "3"]
    assert main(argv) == 0
    assert "SYNTHETIC" in capsys.readouterr().out
    data = load_isbi(tmp_path)
    assert data.images.shape == (2, 70, 70) and 0.1 < (data.labels == 0).mean() < 0.35
    assert set(np.unique(read_image(tmp_path / "train-labels.tif"))) == {0, 255}
    assert check_folder(tmp_path).findings == []
    with pytest.raises(UserError, match="exists"):
        main(argv)
    with pytest.raises(UserError, match="seed"):
        main([*argv[:-1], "-1"])


def test_download_command(tmp_path, monkeypatch, capsys):
    def refuse(request, timeout):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setenv("MINUNET_CACHE", str(tmp_path))
    monkeypatch.setattr(download, "urlopen", refuse)
    with pytest.raises(UserError, match="Network is unreachable"):
        main(["download"])
    for name in download.PIXELS_SHA256:
        (tmp_path / "isbi2012" / name).touch()
    assert main(["download"]) == 0
    assert "is there already" in capsys.readouterr().out
