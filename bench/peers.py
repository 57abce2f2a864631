"""Whom we are compared with: which of them is installed, and networks of theirs with the weights of ours.

A peer's module offers `runners(model, shape, threads)`, {configuration: run}, where run(x) takes float32 (N, C, H, W)
of that shape, the layout in which all of them think, and gives the logits (N, K, OH, OW).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]
PEERS = {  # name: our module, the packages it needs (the first gives the version)
    "PyTorch": ("bench.peer_torch", ("torch",)),
    "ONNX Runtime": ("bench.peer_onnx", ("onnxruntime", "onnx")),
    "OpenVINO": ("bench.peer_openvino", ("openvino", "onnx")),
    "ncnn": ("bench.peer_ncnn", ("ncnn",)),
}
GRAPHS = ("ONNX Runtime", "OpenVINO", "ncnn")  # want graphs, of which we write U-Net's alone
NOT_INSTALLED = "not installed"


def versions() -> dict[str, str]:
    """Versions of ourselves and of the peers' packages; NOT_INSTALLED where there is none."""
    packages = dict.fromkeys(["minunet", "numpy", "numba", *(p for _, needs in PEERS.values() for p in needs)])
    return {name: _version(name) for name in packages}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return NOT_INSTALLED


def missing(peer: str) -> str | None:
    """Why a peer cannot take part: the package that is not installed, or does not load. None: it can."""
    module, packages = PEERS[peer]
    absent = [name for name in packages if _version(name) == NOT_INSTALLED]
    if absent:
        return f"{absent[0]} is not installed"
    try:
        import_module(module)
    except (ImportError, OSError) as error:  # OSError: a library that it is linked with
        return f"does not load ({error})"
    return None


def runners(model, shape: tuple[int, ...], threads: int) -> dict[str, Run]:
    """Every configuration of every peer that is here: {"PyTorch channels_last": run, "ncnn": run, ...}."""
    found = {}
    for peer, (module, _) in PEERS.items():
        if missing(peer) is None and not (peer in GRAPHS and model.config["model"] != "unet"):
            for configuration, run in import_module(module).runners(model, shape, threads).items():
                found[f"{peer} {configuration}".strip()] = run
    return found


def of(contestant: str) -> str:
    """The peer that a configuration belongs to: "PyTorch channels_last" -> "PyTorch"."""
    return next((peer for peer in PEERS if contestant.startswith(peer)), contestant)


@contextmanager
def threads(n: int) -> Iterator[None]:
    """n threads for ours and for PyTorch, which know no other way; the others are told when they are built."""
    import numba

    before = numba.get_num_threads()
    torch = import_module("torch") if missing("PyTorch") is None else None
    theirs = torch.get_num_threads() if torch else 0
    numba.set_num_threads(n)
    try:
        if torch:
            torch.set_num_threads(n)
        yield
    finally:
        numba.set_num_threads(before)
        if torch:
            torch.set_num_threads(theirs)
