"""What lies in a folder beside readable images is told of, and nothing is left out without a word."""

from __future__ import annotations

import numpy as np
import pytest

from minunet import cli
from minunet.data.__main__ import main
from minunet.data.check import check_folder
from minunet.data.folder import load_folder
from minunet.data.images import write_png, write_tiff
from minunet.data.listing import list_images, unreadable
from minunet.errors import UserError
from minunet.prediction.command import _expanded


def grey(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape or (12, 15), dtype=np.uint8)


@pytest.fixture
def two(tmp_path):
    """Folders photos and drawings, of which no name tells what they hold, with two pairs."""
    for name in ("photos", "drawings"):
        (tmp_path / name).mkdir()
    for k in range(2):
        write_png(tmp_path / "photos" / f"c{k}.png", grey(k))
        write_png(tmp_path / "drawings" / f"c{k}.png", (grey(k + 9) > 60) * np.uint8(255))
    return tmp_path / "photos", tmp_path / "drawings"


def test_folders_are_no_images_and_files_no_folders(two):
    (two[0] / "dir.png").mkdir()
    assert [p.name for p in list_images(two[0])] == ["c0.png", "c1.png"]
    with pytest.raises(UserError, match=r"c0\.png: is a file; name the folder"):
        list_images(two[0] / "c0.png")
    (two[0] / "gone.png").symlink_to("nowhere")
    write_png(two[1] / "gone.png", grey(1) // 128)
    with pytest.raises(UserError, match=r"gone\.png: no such file"):
        load_folder(*two)


def test_images_of_other_kinds_are_told_of(two, capsys):
    assert unreadable(two[0]) == ""
    for name in ("a.czi", "b.CZI", "c.webp", "notes.txt", "Thumbs.db", "._d.gif"):
        (two[0] / name).touch()
    (two[0] / "store.zarr").mkdir()
    text = unreadable(two[0])
    assert text.startswith(f"{two[0]}: ") and "2 .czi, 1 .webp, 1 .zarr;" in text and "\n" not in text
    shown: list[str] = []
    load_folder(*two, show=shown.append)
    assert shown.count(f"note: {text}") == 1
    findings = check_folder(two[0]).findings
    assert [f.problem for f in findings if f.text == text] == [False]
    assert _expanded([str(two[0])]) == [str(p) for p in list_images(two[0])]
    assert capsys.readouterr().err == f"note: {text}\n"
    for k in range(2):
        (two[0] / f"c{k}.png").unlink()
    for call in (lambda: load_folder(*two), lambda: _expanded([str(two[0])])):
        with pytest.raises(UserError, match=r"holds no images .*2 \.czi, 1 \.webp"):
            call()


def test_check_of_two_folders(two, capsys):
    assert check_folder(two[0]).pairs == 0
    report = check_folder(two[0], masks=two[1])
    assert report.pairs == 2 and not any(f.problem for f in report.findings)
    write_png(two[1] / "c3.png", grey(5) // 128)
    assert main(["check", str(two[0]), "--masks", str(two[1])]) == 1
    out = capsys.readouterr().out
    assert f"image  {two[0] / 'c0.png'} " in out and f"mask   {two[1] / 'c0.png'} " in out
    assert f"PROBLEM: {two[1] / 'c3.png'}: no image of that name" in out and "pairs: 2" in out
    assert cli.run(main, ["check", str(two[0]), "--masks", str(two[0] / "none")]) == 1
    assert (
        capsys.readouterr().err == f"error: {two[0] / 'none'}: no such folder; name the folder that holds the images\n"
    )


def test_a_copied_stack_is_one_line(tmp_path):
    stack = grey(0, 5, 9, 8)
    write_tiff(tmp_path / "a.tif", stack)
    write_tiff(tmp_path / "b.tif", stack[1:])
    write_tiff(tmp_path / "c.tif", np.concatenate([stack[2:3], grey(1, 2, 9, 8)]))
    texts = [f.text for f in check_folder(tmp_path).findings if f.problem]
    assert len(texts) == 2
    a, b, c = (tmp_path / f"{name}.tif" for name in "abc")
    assert texts[0].startswith(f"{b} section 0 and 3 more: same pixels as {a} section 1 and others; remove one")
    assert texts[1].startswith(f"{c} section 0: same pixels as {a} section 2; remove one")
