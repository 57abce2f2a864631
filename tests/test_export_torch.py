"""Export: every network as a PyTorch state dict comes back bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch_ports
from onnx_runs import alive, run_here
from small import SMALL
from test_ports import COMPUTING, NAMED

from minunet import from_torch, models
from minunet.interop import to_torch


@pytest.mark.parametrize("title", SMALL)
def test_every_network_comes_back_from_a_state_dict(title):
    name, arguments, _ = SMALL[title]
    model, twin = alive(models.build(name, **arguments)), models.build(name, **arguments | {"seed": 1})
    _, state = to_torch(model)
    shuffled = dict(sorted(state.items(), key=lambda item: item[0][::-1]))  # as safetensors: in no order of layers
    from_torch(twin, shuffled)
    known = {k: v for k, v in model.state_dict().items() if v.dtype.kind == "f"}
    assert all(np.array_equal(twin.state_dict()[k], v) for k, v in known.items())


@pytest.mark.parametrize("title", [t for t in COMPUTING | NAMED if t != "DeepLab v2 of 2018"])
def test_a_port_loads_our_weights(title):
    """Strictly: every name, every shape, nothing else. (Of DeepLab v2's two namings the newer one is written.)"""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    name, arguments, port, given, *_ = (COMPUTING | NAMED)[title]
    whose, state = to_torch(alive(models.build(name, **arguments)))
    assert whose != "minunet"
    torch_ports.build(torch)[port](*given).load_state_dict({k: torch.tensor(v) for k, v in state.items()})


def test_a_port_computes_the_same_with_our_weights():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for title in "DeconvNet", "U-Net", "SegNet":
        name, arguments, port, given, size = COMPUTING[title]
        model = alive(models.build(name, **arguments)).astype(np.float64)
        net = torch_ports.build(torch)[port](*given).double().eval()
        net.load_state_dict({k: torch.tensor(v) for k, v in to_torch(model)[1].items()})
        x = np.random.default_rng(7).normal(size=(2, *size, arguments["in_channels"]))
        found = net(torch.tensor(x.transpose(0, 3, 1, 2).copy())).detach().numpy().transpose(0, 2, 3, 1)
        known = run_here(model, x)
        error = np.linalg.norm(found - known) / np.linalg.norm(known)
        assert np.isfinite(error) and error <= 1e-10, (title, error)


def test_names_of_our_own_where_no_port_is_known():
    model = models.build("unet", 1, 2, width=2, depth=1)
    whose, state = to_torch(model)
    assert whose == "minunet" and state["down.0.conv1.weight"].shape == (2, 1, 3, 3)
    assert state["up.0.weight"].shape == (4, 2, 2, 2) and state["head.bias"].shape == (2,)
    norm = to_torch(models.build("fusionnet", 1, 2, width=2, depth=1))[1]
    assert {"bridge.conv1.bn.weight", "bridge.conv1.bn.running_var"} <= norm.keys()
    assert all(v.flags.c_contiguous for v in state.values())
