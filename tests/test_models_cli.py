"""`minunet models`: the table, a network's layers, what a checkpoint is; what it refuses, and how."""

from __future__ import annotations

import hashlib
import re

import pytest
from models_command import UNET, failed, run
from small import SMALL

from minunet import checkpoint, listing, models
from minunet.backends.shapes import ShapeArray
from minunet.models.variants import VARIANTS
from minunet.nn.optim import Adam


def test_the_table_has_every_variant_with_what_it_counts(capsys):
    assert run() == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[0] == "network" and head.endswith("paper")
    for variant in VARIANTS:
        row = next(row for row in rows if row.startswith(f"{variant.title}  "))
        cells = re.split(r"  +", row)
        assert cells[1].split()[0] == variant.name
        assert int(cells[2].replace(",", "")) == variant.parameters
        assert int(cells[3].replace(",", "")) == variant.frozen
        assert abs(float(cells[4]) - variant.gmac) <= 0.0051
        assert (
            cells[5]
            == "x".join(map(str, variant.image[:2]))
            + f"x{variant.arguments['in_channels'] + (variant.name == 'rednet')}"
        )
        assert int(cells[8]) == (92 if variant.name == "unet" else 0)
        assert "arXiv" in cells[9] or "ZFTurbo" in cells[9]


def test_legal_sizes_in_words():
    def words(taken) -> str:
        return listing.legal_sizes(type("Net", (), {"trace": staticmethod(lambda n: n if taken(n) else None)}))

    assert words(lambda n: True) == "any"
    assert words(lambda n: n >= 17) == "17 or more"
    assert words(lambda n: n % 16 == 0) == "multiples of 16"
    assert words(lambda n: n % 32 == 0 and n >= 224) == "multiples of 32 from 224"
    assert words(lambda n: n >= 188 and (n - 60) % 16 == 0) == "188, 204, 220, ..."
    assert words(lambda n: n in (3, 5, 9)) == "3, 5, 9, ..."
    assert words(lambda n: n == 224) == "224"
    assert words(lambda n: False) == "none"


@pytest.mark.parametrize("title", SMALL)
def test_the_layers_of_every_network_add_up(title):
    """No parameter is left out or counted twice, no work is lost, and nothing stays changed behind."""
    name, arguments, size = SMALL[title]
    with models.shapes_only():
        model = models.build(name, **arguments).eval()
    before = {id(m): dict(vars(m)) for m in model.modules()}
    found, sums = listing.lines(model, size), listing.totals(model, size)
    assert {id(m): dict(vars(m)) for m in model.modules()} == before
    assert sum(line.parameters for line in found) == sums.parameters + sums.frozen
    assert sum(line.flops for line in found) == sums.flops
    ran = [line for line in found if line.shape]
    assert ran[-1].shape == sums.output == (1, *model.output_size(*size), arguments["n_classes"])
    with models.shapes_only():  # the backend of shapes still does nothing
        model.train()(listing.image(model, size, 2))


def test_show(capsys):
    assert run("show", "unet", "--size", 20, 22, *UNET) == 0
    out = capsys.readouterr().out
    rows = [re.split(r"  +", line) for line in out.split("\n\n")[0].splitlines()]
    assert rows[0] == ["layer", "what", "output", "parameters", "MFLOP", "MiB"]
    assert rows[1] == ["down.0.conv1", "Conv2d 3x3 1 -> 2", "18x20x2", "20", "0.01", "0.00"]
    assert ["", "max_pool2d", "8x9x2"] in [row[:3] for row in rows] or ["", "max_pool", "8x9x2"] in [
        r[:3] for r in rows
    ]
    assert ["up.0", "ConvTranspose2d 2x2 /2 4 -> 2", "8x10x2"] in [row[:3] for row in rows]
    assert "image       20 x 22 x 1 -> 4 x 6 x 2" in out and "paper       Ronneberger" in out
    with models.shapes_only():
        model = models.build("unet", 1, 2, width=2, depth=1)
    assert f"parameters  {listing.parameters(model)[0]:,} trained" in out
    assert run("show", "bisenet", "--width", 8) == 0
    out = capsys.readouterr().out
    assert "heads.0.layers.1" in out and "(training only)" in out and "1024 x 1024 x 3" in out
    assert run("show", "enet") == 0
    assert "Conv2d 1x5 32 -> 32" in capsys.readouterr().out


def test_show_refuses(capsys):
    assert failed(capsys, "show", "unt").startswith("2: there is no network 'unt'; known: unet, ")
    wrong = failed(capsys, "show", "unet", "--size", 100, 100)
    assert wrong.startswith("2: --size 100 100: ") and wrong.endswith("legal heights and widths: 188, 204, 220, ...")
    assert "multiples of 16" in failed(capsys, "show", "fusionnet", "--size", 352, 481)
    assert failed(capsys, "show", "fcn", "--size", 0, 5).startswith("2: --size 0 5: ")
    assert "write KEY=VALUE" in failed(capsys, "show", "unet", "--arg", "depth")
    assert "has no argument 'form2'; it has: form" in failed(capsys, "show", "unet", "--arg", "form2=x")
    assert failed(capsys, "show", "fusionnet", "--arg", "form=portt").startswith(
        "2: fusionnet: form 'portt' is unknown"
    )
    assert failed(capsys, "show", "unet", "--width", 0).startswith("2: ")
    assert failed(capsys, "show", "unet", "--arg", "width=wide").startswith("2: ")


def test_shapes_still_have_no_numbers():
    assert isinstance(listing.image(models.build("unet", width=1), (188, 188)).data, ShapeArray)


@pytest.fixture
def trained(tmp_path):
    """A checkpoint with all that a run of `minunet train` leaves in it."""
    model = models.build("unet", 1, 2, width=2, depth=1, seed=3)
    log = [
        {"step": 20, "seconds": 1.5, "learning_rate": 0.001, "loss": 0.51234},
        {"step": 25, "seconds": 2.0, "learning_rate": 0.001, "held_out_v_rand": 0.87654, "held_out_wrong_pixels": 0.1},
        {"step": 40, "seconds": 3.0, "learning_rate": 0.001, "loss": 0.25},
    ]
    extra = {
        "config": {"model": "unet", "tile": 44, "size": "", "minutes": None, "lr": 0.001},
        "state": {"step": 1234, "seconds": 90.0, "log": log},
        "normalise": {"mean": [128.16583], "sd": [45.6]},
        "classes": ["zell\x1b[2Jrand", "Übrige"],
        "data": {"name": "x", "source": "train volume.tif"},
        "labels": {"kind": "values", "type": "uint8", "map": [[0, 0], [255, 1]], "classes": ["zell", "Übrige"]},
        "size": [180, 240],
        "synthetic": True,
        "versions": {"numpy": "2.4"},
    }
    checkpoint.save(tmp_path / "run 1.safetensors", model, optimizer=Adam(model.parameters(), lr=1e-3), extra=extra)
    return tmp_path / "run 1.safetensors"


def test_info(trained, capsys):
    assert run("info", trained) == 0
    out = capsys.readouterr().out
    rows = dict(re.split(r" +", line, maxsplit=1) for line in out.replace("\n            ", " ").splitlines())
    assert rows["network"] == "unet" and rows["paper"].startswith("Ronneberger")
    assert rows["arguments"] == "in_channels 1, n_classes 2, width 2, depth 1, seed 3"
    assert rows["parameters"] == "434 trained, 0 frozen, 0 running statistics"
    assert rows["sizes"] == "heights and widths: multiples of 2 from 18; channels: 1"
    assert rows["data"] == "SYNTHETIC: train volume.tif"
    assert rows["classes"] == "0 zell\\x1b[2Jrand, 1 Übrige" and "\x1b" not in out
    assert "0 -> " in rows["labels"] and "255 -> " in rows["labels"]
    assert rows["normalised"] == "mean [128.2], sd [45.6]"
    assert "brought to  180 x 240" in out
    assert rows["training"] == "step 1,234, 1.5 minutes" and rows["loss"] == "0.2500 at step 40"
    assert rows["scores"] == "held_out_v_rand 0.8765, held_out_wrong_pixels 0.1 at step 25"
    assert rows["settings"] == "model unet, tile 44, lr 0.001"
    assert rows["optimiser"] == "kept: the run can be resumed"
    assert f"written by  minunet {checkpoint.__version__}, numpy 2.4" in out
    assert rows["sha256"] == hashlib.sha256(trained.read_bytes()).hexdigest()
    assert rows["file"].startswith(f"{trained.stat().st_size:,} bytes, ") and "whole" in rows["file"]
    assert "previous" not in rows
    checkpoint.save(trained, models.build("fcn", 1, 2, widths=(2, 2, 2, 2, 3), fc=3))
    assert run("info", trained) == 0
    out = capsys.readouterr().out
    assert "not kept: for prediction only" in out and f"previous    {checkpoint.previous(trained)}\n" in out
    checkpoint.previous(trained).write_text("")
    assert run("info", trained) == 0
    assert "which is damaged" in capsys.readouterr().out


def test_info_of_what_is_no_checkpoint(trained, tmp_path, capsys):
    data = bytearray(trained.read_bytes())
    for name, damage, words in (
        ("cut", data[:-3], "cut short"),
        ("flipped", data[:-3] + bytes([data[-3] ^ 8]) + data[-2:], "is damaged"),
        ("text", b"these are no weights", "is not a safetensors file"),
    ):
        (tmp_path / name).write_bytes(damage)
        assert re.fullmatch(rf"1: {tmp_path}/{name}: .*{words}.*", failed(capsys, "info", tmp_path / name))
    assert "no such checkpoint" in failed(capsys, "info", tmp_path / "missing")
    model = models.build("unet", 1, 2, width=2, depth=1)
    checkpoint.save(tmp_path / "odd", model, extra={"state": {"step": 3, "log": [3]}})
    assert "its record of the training cannot be read" in failed(capsys, "info", tmp_path / "odd")
    model.config["model"] = "w-net"
    checkpoint.save(tmp_path / "other", model)
    assert "its network is not known here (there is no network 'w-net'" in failed(capsys, "info", tmp_path / "other")
