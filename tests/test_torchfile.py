"""PyTorch's files without PyTorch: what is read."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
from torch_archives import FORMATS, WEIGHT, Call, Global, Stored, W, archive, pickled, tensor

from minunet.torchfile import load_state_dict


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
