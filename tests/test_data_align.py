"""Masks beside what they outline: the displacement is found, undone, and kept from training to prediction."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from minunet import backends, checkpoint, cli, train
from minunet import predict as prediction
from minunet.data import align, normalise, read_image, synthetic_membranes, write_tiff
from minunet.data.align import CLEAR, displaced, displaced_window, displacement
from minunet.data.check import check_folder
from minunet.data.dataset import IGNORE
from minunet.data.tiles import mirror_pad, window
from minunet.errors import UserError


def cells(rng: np.random.Generator, size: int = 96, sections: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Grey values (S, H, W), and the masks 0 / 1 of their bright parts."""
    smooth = np.stack([ndimage.gaussian_filter(rng.standard_normal((size, size)), 3) for _ in range(sections)])
    return smooth / smooth.std(), (smooth > 0).astype(np.uint8)


@pytest.mark.parametrize("by", [(0.0, 0.0), (0.6, 0.2), (-0.5, 0.25), (1.5, -2.25), (-2.0, 3.0)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_displacement_is_found_to_a_tenth_of_a_pixel(rng, by, sign):
    images, masks = cells(rng)
    moved = np.stack([displaced(sign * x, (-by[0], -by[1])) for x in images])  # what was at p is at p + by
    found = displacement(moved, masks)
    assert np.abs(np.subtract(found, by)).max() <= 0.1


def test_sections_of_other_sizes_colour_and_ignored_pixels_count_as_they_should(rng):
    images, masks = cells(rng)
    moved = [np.repeat(displaced(x, (-0.6, 0.3))[..., None], 3, axis=2) for x in images]
    masks = list(masks)
    moved[1], masks[1] = moved[1][:70, :80], masks[1][:70, :80].copy()
    masks[1][20:40] = IGNORE
    moved.append(rng.standard_normal((9, 9, 3)))  # too small to say anything
    masks.append(np.ones((9, 9), np.uint8))
    assert np.abs(np.subtract(displacement(moved, masks), (0.6, -0.3))).max() <= 0.1


def test_of_many_and_of_large_sections_a_sample_is_read(rng, monkeypatch):
    images, masks = cells(rng, size=160, sections=5)
    moved = [displaced(x, (-0.6, 0.3)) for x in images]
    whole = displacement(moved, masks)
    monkeypatch.setattr(align, "MOST_SECTIONS", 2)
    monkeypatch.setattr(align, "MOST_PIXELS", 100)

    read = []

    class Watched(list):
        def __getitem__(self, s):
            read.append(s)
            return super().__getitem__(s)

    part = displacement(Watched(moved), masks)
    assert read == [0, 3] and part != whole
    assert np.abs(np.subtract(part, (0.6, -0.3))).max() <= 0.1
    with pytest.raises(ValueError, match="5 images and 4 label maps"):
        displacement(moved, masks[:4])


def test_nothing_clear_is_said_to_be_nothing(rng):
    images, masks = cells(rng)
    assert displacement(rng.standard_normal(images.shape), masks) is None  # they have nothing to do with each other
    assert displacement(images, np.ones_like(masks)) is None
    assert displacement(images, np.full_like(masks, IGNORE)) is None
    assert displacement(np.zeros_like(images), masks) is None
    far = np.stack([np.roll(x, 12, axis=0) for x in images])  # farther than it looks
    assert displacement(far, masks) is None
    assert 0 < CLEAR < 1


def test_moving_by_whole_pixels_is_exact_and_mirrors(rng):
    x = rng.standard_normal((7, 9)).astype(np.float32)
    expected = mirror_pad(x, 3, 3, 3, 3)[3 + 2 : 3 + 2 + 7, 3 - 3 : 3 - 3 + 9]
    assert np.array_equal(displaced(x, (2.0, -3.0)), expected)
    assert np.array_equal(displaced(x, (0.0, 0.0)), x)


def test_between_pixels_it_is_the_kernel_that_deforms_tiles(rng):
    x = rng.standard_normal((1, 12, 15, 2))
    by = np.array([0.6, -1.3])
    nodes = np.broadcast_to(by[:, None, None], (2, 3, 3))[None].copy()
    places = np.zeros((1, 5), np.int32)
    with backends.use_backend("reference"):
        expected = backends.call("deform", x, places, nodes, size=(12, 15), cubic=True)
    assert np.abs(displaced(x[0], tuple(by)) - expected[0]).max() <= 1e-6


@pytest.mark.parametrize("by", [(0.6, 0.16), (-2.5, 3.9), (0.0, -1.0)])
@pytest.mark.parametrize("place", [(0, 0, 20, 17), (-9, -40, 13, 60), (5, 6, 3, 4), (18, 15, 30, 5)])
def test_a_window_of_the_moved_image_is_read_from_windows(rng, by, place):
    x = rng.standard_normal((20, 17, 2)).astype(np.float32)
    expected = window(displaced(x, by), *place)
    assert np.array_equal(displaced_window(lambda *p: window(x, *p), (20, 17), by, place), expected)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with --align on masks that lie (0.6, -0.4) off, and the folder of its data."""
    folder = tmp_path_factory.mktemp("off")
    images, labels = synthetic_membranes(sections=6, size=72, seed=3)
    moved = np.stack([displaced(x, (-0.6, 0.4)) for x in images])
    write_tiff(folder / "train-volume.tif", np.clip(np.round(moved), 0, 255).astype(np.uint8))
    write_tiff(folder / "train-labels.tif", labels * 255)
    small = "--depth 1 --width 4 --tile 44 --steps 6 --validate 1 --quiet --align 1"
    command = ["isbi", *small.split(), "--data", str(folder), "--out", str(folder / "run")]
    assert cli.run(train.main, command) == 0
    return folder


def test_training_measures_it_and_keeps_it(run, capsys):
    found = checkpoint.load(run / "run" / "checkpoint.safetensors").extra["displaced"]
    assert np.abs(np.subtract(found, (0.6, -0.4))).max() <= 0.15
    assert cli.run(train.main, ["--resume", str(run / "run"), "--data", str(run), "--quiet"]) == 0
    assert "px down" in capsys.readouterr().out


def test_prediction_moves_images_as_training_did(run):
    """By the command: the same numbers as of the whole section, normalised and moved; not those of one not moved."""
    saved = checkpoint.load(run / "run" / "checkpoint.safetensors")
    volume = read_image(run / "train-volume.tif")
    write_tiff(run / "one.tif", volume[5])
    model = run / "run" / "checkpoint.safetensors"
    arguments = [str(model), str(run / "one.tif"), "--out", str(run / "out"), "--out-format", "npy"]
    assert cli.run(prediction.main, arguments) == 0
    (file,) = (run / "out").glob("*probability*.npy")
    p = np.load(file).astype(np.float64) / 65535
    x = normalise(volume[5])
    expected, other = (prediction(saved.model, y)[..., 1] for y in (displaced(x, saved.extra["displaced"]), x))
    assert np.abs(p - expected).max() <= 1e-4 < np.abs(p - other).max()


def test_data_check_tells_it_where_it_matters(tmp_path, rng):
    images, masks = cells(rng)
    for by, told in (((0.6, 0.0), True), ((0.1, 0.1), False)):
        folder = tmp_path / str(told)
        for sub in ("images", "masks"):
            (folder / sub).mkdir(parents=True)
        moved = np.stack([displaced(x, (-by[0], -by[1])) for x in images])
        write_tiff(folder / "images" / "a.tif", (128 + 40 * moved).clip(0, 255).astype(np.uint8))
        write_tiff(folder / "masks" / "a.tif", masks * 255)
        texts = [f.text for f in check_folder(folder).findings]
        assert any("--align 1" in text for text in texts) == told, texts
        if told:
            assert any(f"{folder / 'masks'}: masks lie -0.6" in text for text in texts), texts


def test_it_is_for_outlines_of_one_thing(capsys):
    assert cli.run(train.main, ["streets", "--align", "1"]) == 2
    assert "--align 1: is for two classes" in capsys.readouterr().err


def test_a_checkpoint_with_a_wild_displacement_is_refused(run, tmp_path):
    saved = checkpoint.load(run / "run" / "checkpoint.safetensors")
    for wrong in ([0.5], [0.5, 99], "far", [None, 0]):
        checkpoint.save(tmp_path / "net.safetensors", saved.model, extra=saved.extra | {"displaced": wrong})
        write_tiff(tmp_path / "one.tif", np.zeros((40, 40), np.uint8))
        with pytest.raises(UserError, match="displaced"):
            prediction.main([str(tmp_path / "net.safetensors"), str(tmp_path / "one.tif"), "--out", str(tmp_path)])
