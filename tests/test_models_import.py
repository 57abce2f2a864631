"""`minunet models import`: weights taken in from files, and what is refused."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import safetensors.numpy
from models_command import UNET, failed, run

from minunet import checkpoint, models
from minunet.weightfile import read_weights


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
