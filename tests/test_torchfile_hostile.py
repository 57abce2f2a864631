"""PyTorch's files without PyTorch: nothing that a stranger wrote is run, believed or overlooked."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_archives import FORMATS, WEIGHT, Call, Global, Stored, W, archive, pickled, tensor

from minunet.errors import UserError
from minunet.torchfile import load_state_dict


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
@settings(max_examples=300)
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
