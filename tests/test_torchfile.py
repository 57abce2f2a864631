"""PyTorch's files without PyTorch: what is read, and that nothing a stranger wrote is run, believed or overlooked."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minunet.errors import UserError
from minunet.torchfile import load_state_dict

W = np.arange(24, dtype="<f4").reshape(2, 3, 2, 2) / 7


class Global:
    """Pickled as a bare name: `Global("torch", "FloatStorage")`."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class Call:
    """Pickled as a call: what a hostile __reduce__ writes, or what PyTorch writes for a tensor."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


class Stored:
    """Pickled as PyTorch's persistent id of a storage."""

    def __init__(self, key, count, kind="Float", what="storage"):
        self.reference = (what, Global("torch", f"{kind}Storage"), key, "cpu", count)


class Writer(pickle._Pickler):
    """Python's pickler, that writes names without importing them."""

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Global):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        else:
            super().save(obj, save_persistent_id)

    def persistent_id(self, obj):
        return obj.reference if isinstance(obj, Stored) else None

    def save_reduce(self, func, args, *rest, obj=None, **more):
        if isinstance(func, Global | Call):
            self.save(func)
            self.save(tuple(args))
            self.write(pickle.REDUCE)
        else:
            super().save_reduce(func, args, *rest, obj=obj, **more)


def pickled(value, protocol: int = 2) -> bytes:
    file = io.BytesIO()
    Writer(file, protocol).dump(value)
    return file.getvalue()


def tensor(shape, strides, key="0", count=24, offset=0, kind="Float"):
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, Stored(key, count, kind), offset, shape, strides, False, OrderedDict())


WEIGHT = tensor((2, 3, 2, 2), (12, 4, 2, 1))


def archive(path: Path, data: bytes, storages=None, compression=zipfile.ZIP_STORED, **records) -> Path:
    """A file in PyTorch's zip format around a pickle."""
    storages = {"0": W.tobytes()} if storages is None else storages
    with zipfile.ZipFile(path, "w", compression) as z:
        z.writestr("net/data.pkl", data)
        for key, numbers in storages.items():
            z.writestr(f"net/data/{key}", numbers)
        for name, text in records.items():
            z.writestr(f"net/{name}", text)
    return path


def parts(path: Path, data: bytes, keys=("0",), counts=(24,)) -> Path:
    """A file in the format before torch 1.6. It has a storage if the pickle speaks of one."""
    keys = keys if b"storage" in data else ()
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    tail = b"".join(struct.pack("<q", n) + W.tobytes() for n in counts)
    path.write_bytes(head + data + pickle.dumps(list(keys), 2) + tail)
    return path


FORMATS = {"zip": archive, "parts": parts}


# ---------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_state_dict(tmp_path, write, protocol):
    found = load_state_dict(write(tmp_path / "w.pth", pickled({"conv.weight": WEIGHT, "epoch": 3}, protocol)))
    assert list(found) == ["conv.weight"]
    assert found["conv.weight"].dtype == np.float32 and np.array_equal(found["conv.weight"], W)


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_views(tmp_path, write):
    """Transposed, shifted, empty, without axes; two of one storage."""
    views = {
        "t": tensor((2, 2, 3, 2), (1, 2, 4, 12)),
        "row": tensor((4,), (1,), offset=20),
        "every": tensor((5,), (5,), offset=1),
        "one": tensor((), (), offset=23),
        "wide": tensor((1, 24), (999, 1)),
        "none": tensor((0, 3), (3, 1)),
    }
    found = load_state_dict(write(tmp_path / "w.pth", pickled(views)))
    flat = W.ravel()
    expected = {
        "t": W.transpose(3, 2, 1, 0),
        "row": flat[20:],
        "every": flat[1:22:5],
        "one": flat[23],
        "wide": flat[None],
        "none": np.zeros((0, 3), np.float32),
    }
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].shape == value.shape and np.array_equal(found[name], value), name


KINDS = {
    "Double": np.array([1.5, -2.25e300, np.inf]),
    "Float": np.array([1.5, -2.25, 3e38], "f4"),
    "Half": np.array([1.5, -2.25, 6e4], "f2"),
    "Long": np.array([1, -(2**60), 7]),
    "Int": np.array([1, -(2**30), 7], "i4"),
    "Short": np.array([1, -300, 7], "i2"),
    "Char": np.array([1, -100, 7], "i1"),
    "Byte": np.array([1, 200, 7], "u1"),
    "Bool": np.array([True, False, True]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_numbers_in_both_byte_orders(tmp_path, kind):
    values = KINDS[kind]
    data = pickled({"x": tensor((3,), (1,), count=3, kind=kind)})
    for order, code in {"little": "<", "big": ">"}.items():
        file = archive(tmp_path / "w.pt", data, {"0": values.astype(values.dtype.newbyteorder(code)).tobytes()},
                       byteorder=order)  # fmt: skip
        found = load_state_dict(file)["x"]
        assert found.dtype == values.dtype and np.array_equal(found, values)


def test_bfloat16_becomes_float32(tmp_path):
    values = np.array([1.5, -2.25, 3.38953139e38], "f4")  # all three are bfloat16 numbers
    bits = (values.view(np.uint32) >> 16).astype("<u2")
    file = archive(
        tmp_path / "w.pt", pickled({"x": tensor((3,), (1,), count=3, kind="BFloat16")}), {"0": bits.tobytes()}
    )
    found = load_state_dict(file)["x"]
    assert found.dtype == np.float32 and np.array_equal(found, values)


NESTED = {
    "state_dict": ({"epoch": 3, "state_dict": {"a.w": WEIGHT}, "optimizer": {"state": {0: {"m": WEIGHT}}}}, "a.w"),
    "model": ({"model": {"a.w": WEIGHT}, "it": WEIGHT}, "a.w"),
    "twice": ({"model": {"state_dict": {"a.w": WEIGHT}}}, "a.w"),
    "several": ({"encoder": {"w": WEIGHT}, "best": 0.5}, "encoder.w"),
    "parallel": ({"module.a.w": WEIGHT}, "a.w"),
    "compiled": (OrderedDict({"_orig_mod.module.a.w": WEIGHT}), "a.w"),
    "parameter": ({"w": Call(Global("torch._utils", "_rebuild_parameter"), WEIGHT, True, OrderedDict())}, "w"),
    "old": ({"w": Call(Global("torch._utils", "_rebuild_tensor"), Stored("0", 24), 0, W.shape, (12, 4, 2, 1))}, "w"),
}  # fmt: skip


@pytest.mark.parametrize("case", NESTED)
def test_checkpoints_are_unwrapped(tmp_path, case):
    value, name = NESTED[case]
    found = load_state_dict(archive(tmp_path / "w.pth", pickled(value)))
    assert list(found) == [name] and np.array_equal(found[name], W)


def test_what_stands_beside_weights_is_passed_over(tmp_path):
    beside = {
        "args": Call(Global("argparse", "Namespace")),
        "best": Call(
            Global("numpy.core.multiarray", "scalar"), Call(Global("numpy", "dtype"), "f8", 0, 1), b"12345678"
        ),
        "size": Call(Global("torch", "Size"), (1, 2)),
        "dtype": Global("torch", "float32"),
        "milestones": Call(Global("collections", "Counter"), {3: 1}),
        "pairs": Call(Global("collections", "OrderedDict"), [["a", 1]]),
        "list": [1, (2.5, None, True), b"x"],
    }
    found = load_state_dict(archive(tmp_path / "w.pth", pickled({**beside, "state_dict": {"w": WEIGHT}})))
    assert list(found) == ["w"]


@pytest.mark.parametrize("new", [True, False], ids=["zip", "parts"])
def test_what_torch_writes(tmp_path, new):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.PReLU(), torch.nn.Linear(4, 5)
    )
    state = net.state_dict()
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.bool):
        state[f"{dtype}"] = torch.randn(3, 5).mul(9).to(dtype).t()
    state["slice"] = torch.arange(60.0).reshape(3, 4, 5)[1:, ::2, 3]
    for wrapped in (
        state,
        {"epoch": 2, "state_dict": state, "lr": 0.1},
        {"model": net.state_dict(), "x": torch.Size([1])},
    ):
        torch.save(wrapped, tmp_path / "w.pth", _use_new_zipfile_serialization=new)
        found = load_state_dict(tmp_path / "w.pth")
        expected = wrapped.get("state_dict", wrapped.get("model", wrapped))
        assert list(found) == list(expected)
        for name, value in expected.items():
            value = value.detach()
            value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
            assert found[name].dtype == value.dtype and np.array_equal(found[name], value), name


# ---------------------------------------------------------------------------------------------- hostile files


def attacks(mark: str) -> dict[str, tuple[object, str]]:
    """Pickles that would make the file `mark` if any of them ran, and the name that must be refused."""
    run = f"touch {mark}"
    getattr_ = Global("builtins", "getattr")
    posix = Call(Global("builtins", "__import__"), "os")
    return {
        "os.system": (Call(os.system, run), f"{os.name}.system"),
        "eval": (Call(eval, f"open({mark!r}, 'w')"), "builtin"),
        "exec": (Call(Global("builtins", "exec"), f"open({mark!r}, 'w')"), "builtins.exec"),
        "getattr": (Call(Call(getattr_, posix, "system"), run), "builtins.getattr"),
        "subprocess": (Call(Global("subprocess", "Popen"), ["touch", mark]), "subprocess.Popen"),
        "nested": ({"state_dict": {"a": WEIGHT, "b": [({"c": Call(os.system, run)},)]}}, f"{os.name}.system"),
        "in a tensor": (Call(Global("torch._utils", "_rebuild_tensor_v2"), Call(os.system, run)), f"{os.name}.system"),
        "as hooks": (Call(Global("torch._utils", "_rebuild_parameter"), WEIGHT, True, Call(os.system, run)), "system"),
        "dotted": (Call(Global("torch", "serialization.os.system"), run), "torch.serialization.os.system"),
        "dotted module": (Call(Global("torch._utils _rebuild_tensor_v2.x", "y"), run), "_utils._rebuild_tensor_v2.x"),
        "torch.load": (Call(Global("torch", "load"), mark), "torch.load"),
        "hub": (Call(Global("torch.hub", "load"), "a/b", "c"), "torch.hub.load"),
        "a whole model": ({"model": Call(Global("torchvision.models.vgg", "VGG"))}, "torchvision.models.vgg.VGG"),
        "a call of a kind": (Call(Global("torch", "FloatStorage"), run), "a call of torch.FloatStorage"),
        "escapes": (Call(Global("\x1b[2Jevil", "name")), "\\x1b[2Jevil.name"),
    }  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("case", attacks(""))
def test_code_is_refused_by_name_and_not_run(tmp_path, case, write, protocol):
    mark = tmp_path / "code-ran"
    value, name = attacks(str(mark))[case]
    file = write(tmp_path / "evil.pth", pickled(value, protocol))
    with pytest.raises(UserError) as caught:
        load_state_dict(file)
    assert not mark.exists()
    message = str(caught.value)
    assert message.startswith(f"{file}: asks for ") and name in message and message.isprintable(), message


def test_the_attack_is_a_real_one(tmp_path):
    """Python's own reader does run it: the tests above can fail."""
    mark = tmp_path / "code-ran"
    pickle.loads(pickle.dumps(Call(os.system, f"touch {mark}"), 2))
    assert mark.exists()


RAW = {
    "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.",
    "inst": b"\x80\x02(S'ls'\nios\nsystem\n.",
    "obj": b"\x80\x02(cos\nsystem\nS'ls'\no.",
    "newobj": b"\x80\x02cos\nsystem\n)\x81.",
    "newobj_ex": b"\x80\x04\x8c\x02os\x8c\x06system\x93)}\x92.",
    "extension": b"\x80\x02\x82\x01.",
    "build": b"\x80\x02cargparse\nNamespace\n)R}b\x80\x02cos\nsystem\nb.",
    "text pickle": b"cos\nsystem\n(S'ls'\ntR.",
    "key": b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"K\x01s.",
    "deep": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "itself": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
    "doubling": b"\x80\x02}q\x00"
    + b"".join(b"}(X\x01\x00\x00\x00ah%cX\x01\x00\x00\x00bh%cuq%c" % (k, k, k + 1) for k in range(60))
    + b".",
    "long name": b"\x80\x02}X" + struct.pack("<I", 10**6) + b"n" * 10**6 + b"K\x01s.",
    "long claim": b"\x80\x02X\xff\xff\xff\x7f" + b"a.",
    "longer claim": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fa.",
    "memo": b"\x80\x02}r\xff\xff\xff\xff.",
    "memo never set": b"\x80\x02j\xff\xff\xff\xff.",
    "empty stack": b"\x80\x02R.",
    "unfinished": b"\x80\x02}(X\x01\x00\x00\x00a",
    "no mark": b"\x80\x02}u.",
    "odd items": b"\x80\x02}(K\x01u.",
    "items of a list": b"\x80\x02](K\x01K\x02u.",
    "a persistent number": b"\x80\x02K\x01Q.",
    "nothing": b"",
    "a number": b"\x80\x02K\x01.",
}


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("case", RAW)
def test_raw_pickles(tmp_path, case, write):
    file = write(tmp_path / "evil.pth", RAW[case])
    with pytest.raises(UserError) as caught:
        load_state_dict(file)
    assert str(caught.value).startswith(f"{file}: ") and str(caught.value).isprintable()


BIG = 2**62
SIZES = {
    "huge": (tensor((BIG,), (1,)), r"leaves its storage of 24"),
    "huge product": (tensor((2**31, 2**31, 2**31), (2**62, 2**31, 1)), "leaves"),
    "expanded": (tensor((2**40, 24), (0, 1)), "overlaps"),
    "overlap": (tensor((3, 3), (1, 1)), "overlaps"),
    "windows": (tensor((10, 10), (1, 2)), "overlaps"),
    "offset": (tensor((4,), (1,), offset=21), "leaves"),
    "huge offset": (tensor((1,), (1,), offset=2**80), "leaves"),
    "negative offset": (tensor((4,), (1,), offset=-1), "negative"),
    "negative stride": (tensor((4,), (-1,), offset=10), "negative"),
    "negative size": (tensor((-4,), (1,)), "negative"),
    "fraction": (tensor((2.0,), (1,)), "negative offset, size or stride"),
    "truth": (tensor((True,), (1,)), "negative offset, size or stride"),
    "ranks": (tensor((2, 2), (1,)), "no storage, shape or strides"),
    "many axes": (tensor((1,) * 500, (1,) * 500), "no storage, shape or strides"),
    "empty but huge": (tensor((0, BIG, BIG, BIG), (1, 1, 1, 1)), "damaged"),
    "list": (tensor([2], [1]), "no storage, shape or strides"),
    "no storage": (Call(Global("torch._utils", "_rebuild_tensor_v2"), 5, 0, (1,), (1,)), "no storage"),
    "few arguments": (Call(Global("torch._utils", "_rebuild_tensor_v2"), 5), "damaged"),
    "claimed count": (tensor((4,), (1,), count=2**50), "storage"),
    "negative count": (tensor((4,), (1,), count=-24), "without kind, key or size"),
    "two counts": ([tensor((4,), (1,)), tensor((4,), (1,), count=25)], "two sizes"),
    "two kinds": ([tensor((4,), (1,)), tensor((4,), (1,), kind="Int")], "two sizes"),
    "a module": (Call(Global("torch._utils", "_rebuild_tensor_v2"), Stored("0", 24, what="module")), "a saved module"),
    "unknown kind": (tensor((4,), (1,), kind="ComplexFloat"), "torch.ComplexFloatStorage"),
    "a quantised tensor": (Call(Global("torch._utils", "_rebuild_qtensor"), 1), "torch._utils._rebuild_qtensor"),
    "missing storage": (tensor((4,), (1,), key="9"), "is missing|in no tensor"),
    "key that climbs": (tensor((4,), (1,), key="../../etc/passwd"), "is missing|in no tensor"),
    "key that is a number": (tensor((4,), (1,), key=0), "without kind, key or size"),
    "no tensors": ({"a": 1}, "holds no tensors"),
}  # fmt: skip


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("case", SIZES)
def test_sizes_are_checked(tmp_path, case, write):
    value, words = SIZES[case]
    file = write(tmp_path / "w.pth", pickled({"w": value} if not isinstance(value, list) else dict(enumerate(value))))
    with pytest.raises(UserError, match=words) as caught:
        load_state_dict(file)
    assert str(caught.value).startswith(f"{file}: ") and str(caught.value).isprintable()


def test_archives_that_lie(tmp_path):
    data, file = pickled({"w": WEIGHT}), tmp_path / "w.pth"
    bad = {
        "has 92 bytes": lambda: archive(file, data, {"0": W.tobytes()[:-4]}),
        "record data/0 is missing": lambda: archive(file, data, {}),
        "a compressed record": lambda: archive(file, data, {"0": bytes(10**6)}, zipfile.ZIP_DEFLATED),
        "is damaged": lambda: archive(file, data, byteorder="middle"),
        "the record data.pkl is missing": lambda: zipfile.ZipFile(file, "w").close() or pack(file, {"net/other": b""}),
    }
    for words, write in bad.items():
        write()
        with pytest.raises(UserError, match=words):
            load_state_dict(file)


def pack(file, records):
    with zipfile.ZipFile(file, "w") as z:
        for name, data in records.items():
            z.writestr(name, data)


def test_overlapping_records_are_refused(tmp_path):
    """A hundred records that are one record: a zip bomb without compression."""
    file = archive(tmp_path / "w.pth", pickled({"w": WEIGHT}), {"0": bytes(5000)})
    data = file.read_bytes()
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry = data.index(b"PK\x01\x02", start + 4)  # of data/0
    many = data[start:end] + b"".join(data[entry:end].replace(b"data/0", b"data/%c" % c) for c in range(65, 90))
    tail = bytearray(data[end:])
    tail[8:10] = tail[10:12] = struct.pack("<H", 27)
    tail[12:16] = struct.pack("<I", len(many))
    file.write_bytes(data[:start] + many + tail)
    with pytest.raises(UserError, match=r"more bytes than the file has"):
        load_state_dict(file)


def test_other_files(tmp_path):
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "empty.pth").write_bytes(b"")
    for name, words in {
        "text.pth": "neither",
        "empty.pth": "neither",
        "none.pth": "no such file",
        ".": "folder",
    }.items():
        with pytest.raises(UserError, match=words):
            load_state_dict(tmp_path / name)


# ---------------------------------------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, tuple[Path, bytes]]:
    folder = tmp_path_factory.mktemp("damage")
    data = pickled({"conv.weight": WEIGHT, "conv.bias": tensor((2,), (1,), offset=3)})
    files = {name: write(folder / f"{name}.pth", data) for name, write in FORMATS.items()}
    return {name: (file, file.read_bytes()) for name, file in files.items()}


@pytest.mark.parametrize("name", FORMATS)
def test_cut_short_anywhere(whole, name):
    file, data = whole[name]
    for length in range(0, len(data), 1 if name == "parts" else 3):
        file.write_bytes(data[:length])
        with pytest.raises(UserError):
            load_state_dict(file)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")  # pickletools, on what was no string before the damage
@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10**6), bits=st.integers(1, 255), more=st.binary(max_size=9))
def test_flipped_bits_and_inserted_bytes(whole, name, at, bits, more):
    """Either it is refused in one line, or the damage was in what does not matter."""
    file, data = whole[name]
    at %= len(data)
    file.write_bytes(data[:at] + bytes([data[at] ^ bits]) + more + data[at + 1 :])
    try:
        found = load_state_dict(file)
    except UserError as error:
        assert str(error).isprintable()
    else:
        assert all(isinstance(a, np.ndarray) and a.size <= 24 for a in found.values())
