"""What is written of a prediction: overlays, palettes, the masks' own values; other networks tile by tile."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image
from predictions import noise

from minunet import checkpoint, cli, models, tiled
from minunet.data import read_image, write_png, write_tiff
from minunet.errors import UsageError
from minunet.predict import main, predict
from minunet.prediction import results
from minunet.prediction.results import EDGE, edges, grey_levels, read_palette, shown_range, tinted

pytestmark = pytest.mark.usefixtures("reference")


@pytest.fixture
def run(tmp_path, capsys):
    """Run the command for a network saved with `extra`: the exit code and stderr."""

    def command(model, *argv, **extra):
        checkpoint.save(tmp_path / "net.safetensors", model, extra={"normalise": "section", **extra})
        options = ["--out", str(tmp_path / "out"), "--backend", "reference"]
        code = cli.run(main, [str(tmp_path / "net.safetensors"), *map(str, argv), *options])
        return code, capsys.readouterr().err

    return command


def network(**arguments):
    return models.build("unet", **({"width": 2, "depth": 1, "padding": "same", "seed": 3} | arguments))


def disturbed(model, dtype=np.float64):
    """The network with biases and statistics that are not those it starts with, so that borders matter."""
    rng = np.random.default_rng(4)
    for p in model.parameters():
        p.data += rng.normal(0, 0.1, p.shape).astype(np.float32)
    for name, b in model.named_buffers():
        if name.endswith("running_mean"):
            b += rng.normal(0, 0.1, b.shape).astype(np.float32)
    return model.astype(dtype)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("unet", {"width": 2, "depth": 2}),
        ("unet", {"width": 2, "depth": 2, "padding": "same"}),
        ("segnet", {"in_channels": 1, "n_classes": 2, "stages": ((2, 1), (3, 1))}),
        ("fusionnet", {"in_channels": 1, "n_classes": 2, "width": 1, "depth": 2}),
    ],
)
def test_the_tile_changes_rounding_only(name, arguments):
    """Networks that see no farther than CONTEXT. SegNet takes odd sizes too: its last window ends with the image."""
    model = disturbed(models.build(name, **arguments))
    image = np.random.default_rng(1).standard_normal((309, 21))
    whole = predict(model, image)
    for tile, average in (((60, 50), 1), ((70, 33), 1), ((110, 60), 2)):
        assert len(tiled.layout(model, image.shape, tile, average).targets) > 1
        p = predict(model, image, tile=tile, average=average)
        expected = whole if average == 1 else predict(model, image, average=average)
        assert p.shape == whole.shape and np.isfinite(p).all() and np.abs(p - expected).max() <= 1e-10


def test_networks_that_see_farther_than_the_overlap_say_so(tmp_path, capsys):
    write_png(tmp_path / "a.png", noise(300, 10))
    write_png(tmp_path / "b.png", noise(300, 10))
    segnet = {"in_channels": 1, "n_classes": 2, "stages": ((2, 1), (3, 1))}
    for name, arguments, options, said in [
        ("segnet", segnet, ["--tile", "40"], 1),
        ("segnet", segnet, [], 0),
        ("unet", {"width": 1, "depth": 1, "padding": "same"}, ["--tile", "40"], 0),
        ("unet", {"width": 1, "depth": 1}, ["--tile", "40"], 0),
    ]:
        checkpoint.save(tmp_path / "net.safetensors", models.build(name, **arguments))
        argv = [str(tmp_path / f) for f in ("net.safetensors", "a.png", "b.png")]
        assert cli.run(main, [*argv, "--out", str(tmp_path / "out"), "--backend", "reference", *options]) == 0
        notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
        assert len(notes) == said and all("segnet may see farther" in line for line in notes)


def test_overlays_of_images_of_one_bit_and_of_few_bright_pixels(tmp_path, run):
    bits = noise(20, 24) > 99
    Image.fromarray(bits).save(tmp_path / "b.png")
    assert run(network(), tmp_path / "b.png", "--overlay", "edges") == (0, "")
    shown = read_image(tmp_path / "out" / "b_overlay.png")
    grey = (shown != np.array(EDGE)).any(-1)
    assert grey.any() and np.array_equal(shown[grey][:, 0], bits[grey] * np.uint8(255))
    assert shown_range(np.array([[0] * 999 + [7]], np.uint16)) == (0, 7)
    assert shown_range(np.full((2, 2), 5.0)) == (5, 5)


def test_pictures_by_hand():
    found = np.array([[0, 0, 1], [0, 0, 1], [2, 2, 2]])
    assert np.array_equal(edges(found), [[0, 1, 1], [1, 1, 1], [1, 1, 1]])
    assert not edges(np.zeros((3, 4), int)).any() and not edges(np.array([[7]])).any()
    x = np.array([[[0.0], [5.0], [10.0], [20.0]]])
    assert grey_levels(x, 0, 10)[0, :, 1].tolist() == [0, 128, 255, 255]
    assert grey_levels(x, 3, 3).tolist() == np.zeros((1, 4, 3)).tolist()
    picture = np.full((1, 3, 3), 100, np.uint8)
    out = tinted(picture, np.array([[0, 1, 2]]), [(9, 9, 9), (200, 0, 100), (0, 255, 0)])
    assert out[0].tolist() == [[100] * 3, [140, 60, 100], [60, 162, 60]]


@pytest.mark.parametrize("pixels", [1 << 18, 290, 1])
@pytest.mark.parametrize("mode", ["colours", "edges"])
def test_overlays(tmp_path, run, monkeypatch, pixels, mode):
    monkeypatch.setattr(results, "PIXELS", pixels)
    image = noise(29, 40)
    write_png(tmp_path / "a.png", image)
    assert run(network(), tmp_path / "a.png", "--overlay", mode, "--tile", 9) == (0, "")
    found = read_image(tmp_path / "out" / "a_mask.png") // 255
    assert 0 < found.sum() < found.size
    overlay, grey = read_image(tmp_path / "out" / "a_overlay.png"), np.repeat(image[..., None], 3, axis=2)
    if mode == "edges":
        grey[edges(found)] = EDGE
    else:
        grey = tinted(grey, found, results.TINTS[:2])
    assert np.array_equal(overlay, grey)


def test_overlays_of_stacks_and_colour_pictures(tmp_path, run):
    stack = (noise(3, 20, 24).astype(np.uint16) + 500) * 3
    write_tiff(tmp_path / "s.tif", stack)
    assert run(network(), tmp_path / "s.tif", "--overlay") == (0, "")
    overlay, found = (tifffile.imread(tmp_path / "out" / f"s_{kind}.tif") for kind in ("overlay", "mask"))
    assert overlay.shape == (3, 20, 24, 3)
    assert np.ptp(overlay[found == 0].astype(int), axis=-1).max() == 0
    picture = noise(20, 24, 3)
    write_png(tmp_path / "c.png", picture)
    assert run(network(in_channels=3), tmp_path / "c.png", "--overlay") == (0, "")
    found = read_image(tmp_path / "out" / "c_mask.png")
    assert np.array_equal(read_image(tmp_path / "out" / "c_overlay.png")[found == 0], picture[found == 0])


def test_palette(tmp_path, run):
    write_png(tmp_path / "a.png", noise(12, 16))
    assert run(network(), tmp_path / "a.png", "--palette", "#102030,ff0080") == (0, "")
    mask = read_image(tmp_path / "out" / "a_mask.png") // 255
    expected = np.array([[16, 32, 48], [255, 0, 128]])[mask]
    assert np.array_equal(read_image(tmp_path / "out" / "a_colours.png"), expected)
    code, err = run(network(), tmp_path / "a.png", "--palette", "#102030")
    assert code == 2 and "1 colours for 2 classes" in err
    with pytest.raises(UsageError, match="cannot be read"):
        read_palette("red,green", 2)


@pytest.mark.parametrize(
    ("table", "value"),
    [
        ({"kind": "values", "type": "uint8", "map": [[0, 0], [128, 1], [255, None]], "classes": ["a", "b"]}, [0, 128]),
        ({"kind": "values", "type": "int32", "map": [[7, 0], [70000, 1]], "classes": ["a", "b"]}, [7, 70000]),
        ({"kind": "colours", "type": "uint8", "map": [[0, 0], [0xFF8000, 1]], "classes": ["a", "b"]}, None),
        ({"kind": "instances", "type": "uint16", "map": [[0, 0]], "classes": ["background", "cell"]}, None),
    ],
)
def test_the_masks_own_values_come_back(tmp_path, run, table, value):
    from scipy import ndimage

    write_png(tmp_path / "a.png", noise(30, 41))
    assert run(network(), tmp_path / "a.png", "--tile", 10, labels=table)[0] == 0
    mask = read_image(tmp_path / "out" / "a_mask.png") // 255
    (path,) = (tmp_path / "out").glob("a_labels.*")
    labels = read_image(path)
    if value is not None:
        assert np.array_equal(labels, np.array(value)[mask])
    elif table["kind"] == "colours":
        assert np.array_equal(labels, np.array([[0, 0, 0], [255, 128, 0]])[mask])
    else:
        assert np.array_equal(labels, ndimage.label(mask)[0]) and labels.max() > 1
