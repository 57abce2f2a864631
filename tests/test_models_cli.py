"""`minunet models`: the table, a network's layers, weights taken in from files; what it refuses, and how."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from small import SMALL

from minunet import checkpoint, cli, listing, models
from minunet.backends.shapes import ShapeArray
from minunet.models.__main__ import main
from minunet.models.variants import VARIANTS
from minunet.nn.optim import Adam
from minunet.weightfile import read_weights

UNET = ("--in-channels", "1", "--classes", "2", "--width", "2", "--arg", "depth=1")


def run(*argv: object) -> int:
    return cli.run(main, list(map(str, argv)))


def failed(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one line of an error; the command's code is 1 or 2."""
    code = run(*argv)
    out, err = capsys.readouterr()
    assert code in (1, 2) and err.startswith("error: ") and err.count("\n") == 1 and "written" not in out
    return f"{code}: {err[7:-1]}"


# ----------------------------------------------------------------------------------------- the table and the layers


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


# ---------------------------------------------------------------------------------------------- import


def weights(seed: int = 0, classes: int = 2) -> dict[str, np.ndarray]:
    """A U-Net of depth 1 and width 2 as PyTorch would have it, under names of its own."""
    rng, shapes = np.random.default_rng(seed), {}
    for name, o, c in ("a", 2, 1), ("b", 2, 2), ("c", 4, 2), ("d", 4, 4), ("up", 4, 2), ("e", 2, 4), ("f", 2, 2):
        k = 2 if name == "up" else 3
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (o, c, k, k), (c if name == "up" else o,)
    shapes["head.weight"], shapes["head.bias"] = (classes, 2, 1, 1), (classes,)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write_pth(path: Path, state: dict[str, np.ndarray]) -> Path:
    """What torch.save writes for a state dict, byte for byte where it matters, without PyTorch."""
    stream, storages = [b"\x80\x02ccollections\nOrderedDict\n)R("], {}
    number = lambda n: b"J" + struct.pack("<i", n)  # noqa: E731
    text = lambda s: b"X" + struct.pack("<I", len(s)) + s.encode()  # noqa: E731
    for key, (name, array) in enumerate(state.items()):
        storages[str(key)] = np.ascontiguousarray(array, "<f4").tobytes()
        strides = [s // array.itemsize for s in np.ascontiguousarray(array).strides]
        pid = (
            b"("
            + text("storage")
            + b"ctorch\nFloatStorage\n"
            + text(str(key))
            + text("cpu")
            + number(array.size)
            + b"tQ"
        )
        view = b"(" + b"".join(map(number, array.shape)) + b"t(" + b"".join(map(number, strides)) + b"t"
        rebuilt = (
            b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + number(0) + view + b"\x89ccollections\nOrderedDict\n)RtR"
        )
        stream.append(text(name) + rebuilt)
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("archive/data.pkl", b"".join(stream) + b"u.")
        for key, data in storages.items():
            z.writestr(f"archive/data/{key}", data)
    return path


def test_import_by_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    state = weights()
    write_pth(Path("w.pth"), state)
    assert run("import", "w.pth", "--model", "unet", *UNET) == 0
    out = capsys.readouterr().out
    assert out == "w.pth: 16 tensors with 434 numbers matched by order\nunet.safetensors: written\n"
    loaded = checkpoint.load("unet.safetensors")
    assert np.array_equal(loaded.model.up[0].w.data, state["up.weight"].transpose(0, 2, 3, 1))
    assert np.array_equal(loaded.model.head.b.data, state["head.bias"])
    assert loaded.extra["imported"] == {"file": "w.pth", "matched": "by order", "kept": []}
    safetensors.numpy.save_file(state, "w.safetensors")  # sorts by name: no order to go by
    assert "does not keep the order" in failed(
        capsys, "import", "w.safetensors", "--model", "unet", "--out", "b", *UNET
    )


def test_import_by_name_from_both_formats(tmp_path, monkeypatch, capsys):
    """RED-Net as yjn870/REDNet-pytorch names it."""
    monkeypatch.chdir(tmp_path)
    rng, state = np.random.default_rng(0), {}
    for k, name in enumerate(["conv_layers.0.0", "conv_layers.1.0", "deconv_layers.0.0", "deconv_layers.1"]):
        o, c = (2, 1) if k in (0, 3) else (2, 2)
        state[f"module.{name}.weight"] = rng.normal(size=(o, c, 3, 3)).astype(np.float32)
        state[f"module.{name}.bias"] = rng.normal(size=c if k > 1 else o).astype(np.float32)
    write_pth(Path("w.pth"), state)
    safetensors.numpy.save_file(state, "w.safetensors")
    models_read = []
    for file in ("w.pth", "w.safetensors"):
        out = f"from-{file}"
        assert run("import", file, "--model", "rednet_restoration", "--width", 2, "--arg", "depth=4", "--out", out) == 0
        assert "8 tensors with 115 numbers matched by the names of yjn870/REDNet-pytorch" in capsys.readouterr().out
        models_read.append(checkpoint.load(out).model.state_dict())
    known = state["module.deconv_layers.1.weight"].transpose(0, 2, 3, 1)
    assert np.array_equal(models_read[0]["deconv.1.w"], known)
    assert all(np.array_equal(v, models_read[1][k]) for k, v in models_read[0].items())


def test_import_lists_what_does_not_fit(tmp_path, capsys):
    state = weights(classes=5) | {"aux.weight": np.ones((2, 2, 1, 1), np.float32)}
    del state["aux.weight"], state["c.bias"]
    file, out = write_pth(tmp_path / "w.pth", state), tmp_path / "o.safetensors"
    assert run("import", file, "--model", "unet", "--out", out, *UNET, "--seed", 4) == 0
    printed = capsys.readouterr().out
    assert "head.weight has shape (5, 2, 1, 1), head.w needs (2, 2, 1, 1): another number of classes" in printed
    assert "bias that the file does not have, set to zero: down.1.conv1.b" in printed
    model, fresh = checkpoint.load(out).model, models.build("unet", 1, 2, width=2, depth=1, seed=4)
    assert np.array_equal(model.head.w.data, fresh.head.w.data)
    assert checkpoint.load(out).extra["imported"]["kept"] == ["head.w", "head.b"]


def test_import_of_an_encoder(tmp_path, capsys):
    """torchvision's vgg16 into a narrow FCN; its classifier's last layer has no place."""
    rng, state, c = np.random.default_rng(0), {}, 3
    places = iter([0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28])
    for o in (2, 2, 4, 4, 8, 8, 8, 16, 16, 16, 16, 16, 16):
        at = next(places)
        state[f"features.{at}.weight"], state[f"features.{at}.bias"] = rng.normal(size=(o, c, 3, 3)), rng.normal(size=o)
        c = o
    for at, (o, i) in {0: (5, 16 * 49), 3: (5, 5), 6: (10, 5)}.items():
        state[f"classifier.{at}.weight"], state[f"classifier.{at}.bias"] = rng.normal(size=(o, i)), rng.normal(size=o)
    file, out = write_pth(tmp_path / "vgg.pth", state), tmp_path / "o.safetensors"
    assert run("import", file, "--model", "fcn", "--encoder", "--out", out, "--width", 2, "--arg", "fc=5") == 0
    printed = capsys.readouterr().out
    assert "30 tensors" in printed and "by the names of torchvision's vgg16\n" in printed
    assert "in the file, not used: classifier.6.weight (10, 5)" in printed
    model = checkpoint.load(out).model
    assert np.allclose(model.fc6.w.data, state["classifier.0.weight"].reshape(5, 16, 7, 7).transpose(0, 2, 3, 1))
    assert np.allclose(model.stages[4].layers[2].w.data, state["features.28.weight"].transpose(0, 2, 3, 1))


def test_import_refuses(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_pth(Path("w.pth"), weights())
    assert failed(capsys, "import", "w.pth", "--model", "fusionnet").startswith(
        "1: w.pth: the weights are of another network: "
    )
    assert "build the model with width=2" in failed(
        capsys, "import", "w.pth", "--model", "unet", *UNET[:4], "--width", 4, *UNET[6:]
    )
    assert "not torchvision's names" in failed(capsys, "import", "w.pth", "--model", "fcn", "--encoder", "--width", 2)
    assert failed(capsys, "import", "w.pth", "--model", "fcm").startswith("2: there is no network 'fcm'; known: fcn, ")
    assert failed(capsys, "import", "none.pth", "--model", "unet").startswith("1: none.pth: no such file")
    assert failed(capsys, "import", ".", "--model", "unet").startswith("1: .: is a folder")
    Path("text.pth").write_text("not weights")
    assert failed(capsys, "import", "text.pth", "--model", "unet").startswith(
        "1: text.pth: is damaged or no PyTorch file"
    )
    Path("cut.safetensors").write_bytes(safetensors.numpy.save(weights())[:-9])
    assert "damaged safetensors file" in failed(capsys, "import", "cut.safetensors", "--model", "unet")
    Path("empty.safetensors").write_bytes(safetensors.numpy.save({}))
    assert "holds no tensors" in failed(capsys, "import", "empty.safetensors", "--model", "unet")
    assert not Path("unet.safetensors").exists()  # nothing half done is left
    assert run("import", "w.pth", "--model", "unet", *UNET) == 0
    capsys.readouterr()
    assert "exists; name the file to write" in failed(capsys, "import", "w.pth", "--model", "unet", *UNET)
    assert "is a checkpoint of minunet already" in failed(
        capsys, "import", "unet.safetensors", "--model", "unet", "--out", "b.safetensors"
    )
    assert "is the file to read" in failed(capsys, "import", "w.pth", "--model", "unet", *UNET, "--out", "w.pth")


def test_a_malicious_file_does_not_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    class Evil:
        def __reduce__(self):
            return eval, ("open('code-ran', 'w').close()",)

    data = pickle.dumps(OrderedDict(weights=[Evil()]), 2)
    with zipfile.ZipFile("evil.pth", "w") as z:
        z.writestr("archive/data.pkl", data)
    assert "1: evil.pth: asks for __builtin__.eval" in failed(capsys, "import", "evil.pth", "--model", "unet")
    assert not Path("code-ran").exists()
    pickle.load(io.BytesIO(data))  # this reader does run it
    assert Path("code-ran").exists()


def test_bfloat16_safetensors(tmp_path):
    values = np.array([[1.5, -2.25], [3.0, 1e30]], np.float32)
    bits = (values.view(np.uint32) >> 16).astype("<u2")
    header = b'{"x":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}'
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bits.tobytes())
    tensors, ordered = read_weights(tmp_path / "w.safetensors")
    found = tensors["x"]
    assert (
        not ordered
        and found.dtype == np.float32
        and np.array_equal(found, (bits.astype(np.uint32) << 16).view(np.float32))
    )


def test_shapes_still_have_no_numbers():
    assert isinstance(listing.image(models.build("unet", width=1), (188, 188)).data, ShapeArray)


# ----------------------------------------------------------------------------------------------- what a checkpoint is


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
