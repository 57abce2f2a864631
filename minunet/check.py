"""`minunet check`: what this machine has of what minunet can use, one line each, and how to get what is missing.

minunet check          everything; exit code 1 if what every installation needs is missing
minunet check cuda     driver, device, CuPy, NVRTC, one kernel; exit code 1 if the GPU cannot be used
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any, NamedTuple

from minunet import cli, files
from minunet.errors import UserError

PACKAGES = ("numpy", "scipy", "numba", "pillow", "tqdm", "safetensors", "tifffile")
OLDEST_PYTHON = (3, 11)
LITTLE = 1 << 30  # bytes of a GPU's memory with which hardly a network trains


class Finding(NamedTuple):
    """One line: whether it is there, what it is, which one or the remedy."""

    fine: bool
    what: str
    text: str


def basics() -> Iterator[Finding]:
    """What every installation needs."""
    now = sys.version_info[:3]
    said = ".".join(map(str, now))
    enough = now >= OLDEST_PYTHON
    yield Finding(enough, "Python", said if enough else f"{said}; minunet needs 3.11 or newer")
    oldest = _oldest()
    for package in PACKAGES:
        try:
            said = metadata.version(package)
        except metadata.PackageNotFoundError:
            yield Finding(False, package, f"not installed; pip install {package}")
            continue
        enough = _numbers(said) >= _numbers(least := oldest.get(package, "0"))
        remedy = f"; minunet needs {least} or newer: pip install --upgrade {package}"
        yield Finding(enough, package, said if enough else said + remedy)
    folder = files.cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with files.atomic_write(folder / ".check") as temporary:
            temporary.write_bytes(b"")
        (folder / ".check").unlink()
        yield Finding(True, "cache", str(folder))
    except (OSError, UserError) as error:
        yield Finding(False, "cache", f"{folder} cannot be written ({error}); set MINUNET_CACHE to a folder that can")
    yield _kernel("cpu")


def _oldest() -> dict[str, str]:
    """{package: the oldest version that minunet works with}; nothing where minunet runs without being installed."""
    try:
        asked = metadata.requires("minunet") or []
    except metadata.PackageNotFoundError:
        return {}
    found = (re.fullmatch(r"([\w-]+)>=([\d.]+)", line) for line in asked)
    return {match[1]: match[2] for match in found if match}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def cuda() -> Iterator[Finding]:
    """What the backend `cuda` needs."""
    from minunet.backends import cuda as backend
    from minunet.backends.cuda import driver, nvrtc

    found, why = driver.find()
    if found is None:
        yield Finding(False, "driver", why)
    else:
        yield Finding(True, "driver", "supports CUDA {}.{}".format(*found.version))
        for device in found.devices:
            old = device.capability < backend.OLDEST
            remedy = f"; the kernels need sm_{backend.OLDEST} or newer" if old else ""
            text = f"{device.name}, sm_{device.capability}, {device.memory / 2**30:.1f} GiB{remedy}"
            yield Finding(not old, "device", text)
    module, why = backend.cupy()
    yield Finding(module is not None, "CuPy", why if module is None else module.__version__)
    if nvrtc.available():
        version, path = nvrtc.version(), nvrtc.library()[1]
        yield Finding(True, "NVRTC", f"{version[0]}.{version[1]}, {path}")
    else:
        yield Finding(False, "NVRTC", f"{nvrtc.library()[1]}; {nvrtc.REMEDY}")
    if backend.available():
        yield from _usable(backend)
    yield _kernel("cuda")


def _usable(backend: Any) -> Iterator[Finding]:
    """What shows only when the GPU is used."""
    try:
        why = backend.headers()
        yield Finding(not why, "CUDA headers", why or "CuPy compiles its own kernels")
        room = backend.capacity() if not why else None
    except (UserError, RuntimeError) as error:  # too little memory even for this
        yield Finding(False, "memory", cli.one_line(error))
        return
    if room is not None:
        few = room < LITTLE
        remedy = "; end other programs on the GPU, or train with a small --width, --batch and --tile" if few else ""
        yield Finding(not few, "memory", f"{room / 2**30:.1f} GiB free for arrays{remedy}")


def cuda_host() -> Iterator[Finding]:
    """What the backend `cuda_host` needs: a compiler."""
    from minunet.backends.cuda_host import compiler

    path, text = compiler.find()
    yield Finding(path is not None, "C++ compiler", text if path is None else f"{text}, {path}")
    yield _kernel("cuda_host")


def numba_cuda() -> Iterator[Finding]:
    """What the backend `numba_cuda` needs besides what `cuda` needs."""
    from minunet.backends.numba_cuda import library

    module, why = library.numba_cuda()
    yield Finding(module is not None, "numba-cuda", why if module is None else metadata.version("numba-cuda"))
    yield _kernel("numba_cuda")


def _kernel(name: str) -> Finding:
    """Whether a backend computes: one ReLU, compared with NumPy's."""
    import numpy as np

    from minunet import backends

    what = f"{name} kernel"
    if name not in backends.available():
        return Finding(False, what, f"not tried: {backends.get(name).reason()}")
    x = np.random.default_rng(0).normal(size=1003).astype(np.float32)
    try:
        with backends.use_backend(name) as backend:
            y = backend.numpy(backends.call("relu", backend.asarray(x)))
    except (UserError, RuntimeError, OSError) as error:
        return Finding(False, what, f"fails: {cli.one_line(error)}")
    right = bool(np.array_equal(y, np.maximum(x, 0)))
    return Finding(right, what, "runs" if right else "runs, and computes something else; please report this")


PARTS: dict[str, Callable[[], Iterator[Finding]]] = {
    "basics": basics,
    "cuda_host": cuda_host,
    "cuda": cuda,
    "numba_cuda": numba_cuda,
}


def _findings(part: str) -> Iterator[Finding]:
    """A part's lines. Where a package that minunet itself needs cannot be loaded, the last line says so."""
    try:
        yield from PARTS[part]()
    except ImportError as error:
        yield Finding(False, part, f"not tried: {cli.one_line(error)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Print what was found. Returns 1 if something is missing in a part that was named ("basics" if none was)."""
    p = cli.parser("check", "Say what this machine has of what minunet can use, and how to get what is missing.")
    p.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all where none is named")
    args = p.parse_args(argv)
    for part in args.parts:
        if part not in PARTS:
            p.error(f"{part!r} is no part; there are {', '.join(PARTS)}")
    must = args.parts or ["basics"]
    code = 0
    for part in args.parts or PARTS:
        for finding in _findings(part):
            print(f"{'ok' if finding.fine else 'missing':9}{finding.what:18}{' '.join(finding.text.split())}")
            if not finding.fine and part in must:
                code = 1
    return code


if __name__ == "__main__":
    sys.exit(cli.run(main))
