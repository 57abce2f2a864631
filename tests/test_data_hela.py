"""The Cell Tracking Challenge: gold before silver, markers without outline, held-out frames, the real sequence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minunet.data.hela import load_hela
from minunet.data.images import write_png, write_tiff
from minunet.data.weights import instances_from_labels
from minunet.errors import UserError
from minunet.metrics.instances import seg_measure


def segments(k: int) -> np.ndarray:
    """Two cells that touch."""
    a = np.zeros((20, 24), np.uint16)
    a[3:12, 2:10], a[3:12, 10 : 18 + k % 3] = 5, 40 + k
    return a


def sequence(root: Path, name: str, frames: int, truth: dict[str, range]) -> None:
    (root / name).mkdir(parents=True)
    for k in range(frames):
        write_tiff(root / name / f"t{k:03}.tif", np.random.default_rng(k).integers(0, 255, (20, 24), dtype=np.uint8))
    for place, numbers in truth.items():
        (root / f"{name}_{place}").mkdir(parents=True)
        for k in numbers:
            word = "man_track" if place.endswith("TRA") else "man_seg"
            write_tiff(root / f"{name}_{place}" / f"{word}{k:03}.tif", segments(k))


def test_gold_silver_and_frames_without_either(tmp_path):
    root = tmp_path / "DIC-C2DH-HeLa"
    sequence(root, "01", 12, {"GT/SEG": range(2, 3), "ST/SEG": range(10)})
    sequence(root, "02", 5, {"ST_SEG": range(5)})
    write_tiff(root / "01_GT" / "SEG" / "man_seg002.tif", segments(0)[::-1].copy())
    data = load_hela(tmp_path)
    assert data.images.shape == (15, 20, 24) and data.labels.dtype == np.uint8
    assert np.array_equal(data.instances[2], segments(0)[::-1]) and np.array_equal(data.instances[3], segments(3))
    assert data.parts["train"].tolist() == [*range(8), *range(10, 14)] and data.parts["val"].tolist() == [8, 9, 14]
    assert data.names[0] == "01/t000" and data.names[-1] == "02/t004" and "1 gold and 14 silver" in data.source
    assert data.scored == "instances" and data.classes == ("background", "cell")
    for labels, cells in zip(data.labels, data.instances):
        assert instances_from_labels(labels).max() == 2 and not labels[cells == 0].any()
    assert load_hela(root).sha256 == data.sha256


def test_a_marker_outside_all_segments_is_ignored(tmp_path):
    sequence(tmp_path, "01", 2, {"GT/SEG": range(2), "GT/TRA": range(2)})
    markers = segments(0) * (np.arange(24) % 4 == 0).astype(np.uint16)  # within the cells: known
    markers[15:18, 20:22] = 77
    markers[13, 3] = 5  # beside its own cell: known
    write_tiff(tmp_path / "01_GT" / "TRA" / "man_track000.tif", markers)
    data = load_hela(tmp_path)
    assert (data.labels[0] == 255).sum() == 6 and (data.labels[0][15:18, 20:22] == 255).all()
    assert not (data.labels[1] == 255).any()


def test_u373_by_the_same_loader(tmp_path, monkeypatch):
    sequence(tmp_path / "PhC-C2DH-U373", "01", 5, {"ST/SEG": range(5)})
    monkeypatch.setenv("MINUNET_DATA", str(tmp_path))
    monkeypatch.setenv("MINUNET_CACHE", str(tmp_path / "none"))
    assert load_hela(name="u373").name == "u373"
    with pytest.raises(UserError, match=r"DIC-C2DH-HeLa: not found .* data download hela"):
        load_hela()


def refused(call, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert all(w in str(caught.value) for w in words) and "\n" not in str(caught.value), caught.value


def test_refusals(tmp_path, monkeypatch):
    refused(lambda: load_hela(tmp_path / "no"), "no such folder", "fetch")
    refused(lambda: load_hela(tmp_path), "has no 01", "fetch")
    sequence(tmp_path, "01", 2, {})
    refused(lambda: load_hela(tmp_path), "no frame has a segmentation", "man_seg")
    (tmp_path / "01_ST" / "SEG").mkdir(parents=True)
    write_png(tmp_path / "01_ST" / "SEG" / "man_seg000.png", np.ones((20, 23), np.uint16))
    refused(lambda: load_hela(tmp_path), "man_seg000.png", "(20, 23)", "(20, 24)")
    write_png(tmp_path / "01_ST" / "SEG" / "man_seg000.png", segments(0))
    refused(lambda: load_hela(tmp_path), "one frame")
    monkeypatch.setenv("MINUNET_DATA", str(tmp_path / "gone"))
    refused(load_hela, "MINUNET_DATA", "no such folder")


def test_the_real_sequence(data_dir):
    if not (data_dir / "dic-c2dh-hela" / "01").is_dir():
        pytest.skip("DIC-C2DH-HeLa is not on this machine; set MINUNET_DATA to the folder that holds dic-c2dh-hela")
    data = load_hela(data_dir)
    assert data.images.shape == data.labels.shape == (84, 512, 512)
    assert sum(len(np.unique(cells)) - 1 for cells in data.instances) == 1054
    assert abs((data.instances > 0).mean() - 0.501) < 0.001
    assert data.parts["val"].tolist() == list(range(67, 84))
    chosen = [0, 41, 83]  # what is lost by drawing lines between cells: the score that perfect labels would have
    found = np.stack([instances_from_labels(data.labels[s]) for s in chosen])
    assert 0.99 < seg_measure(data.instances[chosen], found) <= 1
