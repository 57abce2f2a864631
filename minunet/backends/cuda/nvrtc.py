"""NVRTC, NVIDIA's run-time compiler, by ctypes: source to cubin, with no GPU and no CUDA toolkit.

The library comes from the wheel nvidia-cuda-nvrtc (CuPy's wheels bring it, the extra `test` asks for it), from a
toolkit in CUDA_PATH, or from the system. It needs no header of CUDA: the kernels include only their own.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from minunet.backends.cuda import disk, driver, sources
from minunet.backends.cuda.sources import Program
from minunet.errors import UserError

OPTIONS = ("-std=c++17", "-default-device", "--ptxas-options=-v")
REMEDY = "install NVRTC: pip install nvidia-cuda-nvrtc, or nvidia-cuda-nvrtc-cu12 for a driver before 580"


@dataclass(frozen=True)
class Resources:
    """What the assembler reports for one kernel: registers a thread, bytes of stack, spills and shared memory."""

    registers: int
    stack: int
    spills: int
    shared: int


def _candidates() -> Iterator[str]:
    """Paths or names under which libnvrtc may be found, the best first."""
    for place in sys.path:
        nvidia = Path(place or ".") / "nvidia"
        if nvidia.is_dir():
            yield from map(str, sorted(nvidia.glob("cu*/lib/libnvrtc.so.*"), reverse=True))
            yield from map(str, sorted(nvidia.glob("cuda_nvrtc/lib/libnvrtc.so.*"), reverse=True))
    for variable in ("CUDA_PATH", "CUDA_HOME"):
        if variable in os.environ:
            yield from map(str, sorted(Path(os.environ[variable]).glob("lib*/libnvrtc.so*"), reverse=True))
    yield from filter(None, (ctypes.util.find_library("nvrtc"),))
    yield from map(str, sorted(Path("/usr/local/cuda").glob("lib*/libnvrtc.so*"), reverse=True))


@lru_cache(maxsize=1)
def library() -> tuple[ctypes.CDLL | None, str]:
    """The library and the path it was loaded from; (None, why not) where there is none."""
    reason = "no libnvrtc was found"
    found, _ = driver.find()
    newest = found.version[0] if found else None
    for path in sorted(_candidates(), key=lambda path: _too_new(path, newest)):
        try:
            # NVRTC opens its second library by bare name, which finds only what is loaded already or is on the path.
            for beside in sorted(Path(path).parent.glob("libnvrtc-builtins.so*")) if "/" in path else ():
                ctypes.CDLL(str(beside))
            return ctypes.CDLL(path), path
        except OSError as error:
            reason = f"{path} could not be loaded ({error})"
    return None, reason


def _too_new(path: str, newest: int | None) -> bool:
    """Whether a library's major version is above the driver's, which could not load what it compiles."""
    match = re.search(r"\.so\.(\d+)", path)
    return bool(newest and match and int(match[1]) > newest)


def available() -> bool:
    """Whether NVRTC is at hand."""
    return library()[0] is not None


def _lib() -> ctypes.CDLL:
    lib, reason = library()
    if lib is None:
        raise UserError(f"CUDA: {reason}; {REMEDY}")
    return lib


@lru_cache(maxsize=1)
def version() -> tuple[int, int]:
    """(major, minor) of the library. Raises UserError where there is none."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _checked(_lib().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "nvrtcVersion")
    return major.value, minor.value


@lru_cache(maxsize=1)
def architectures() -> tuple[int, ...]:
    """The architectures that this NVRTC compiles for: (75, 80, ...)."""
    lib, n = _lib(), ctypes.c_int()
    _checked(lib.nvrtcGetNumSupportedArchs(ctypes.byref(n)), "nvrtcGetNumSupportedArchs")
    values = (ctypes.c_int * n.value)()
    _checked(lib.nvrtcGetSupportedArchs(values), "nvrtcGetSupportedArchs")
    return tuple(values)


def _checked(code: int, call: str) -> None:
    if code:
        _lib().nvrtcGetErrorString.restype = ctypes.c_char_p
        raise UserError(f"CUDA: {call} failed: {_lib().nvrtcGetErrorString(code).decode()}; {REMEDY}")


def options(program: Program, architecture: str) -> tuple[str, ...]:
    """All options but the include path, which is no part of the cache's key."""
    return (f"-arch={architecture}", *OPTIONS, *program.macros)


def compile_program(program: Program, architecture: str) -> tuple[bytes, str]:
    """(cubin, the compiler's log) of a program for an architecture such as "sm_80" or "sm_90a".

    Raises UserError with kernel, line and options where the source does not compile, or there is no NVRTC.
    """
    lib, handle = _lib(), ctypes.c_void_p()
    chosen = options(program, architecture)
    source, name = sources.text(program.file).encode(), program.file.encode()
    _checked(lib.nvrtcCreateProgram(ctypes.byref(handle), source, name, 0, None, None), "nvrtcCreateProgram")
    try:
        arguments = [*chosen, f"-I{sources.folder() / 'cuda'}"]
        strings = (ctypes.c_char_p * len(arguments))(*(a.encode() for a in arguments))
        code = lib.nvrtcCompileProgram(handle, len(arguments), strings)
        log = _bytes(lib.nvrtcGetProgramLogSize, lib.nvrtcGetProgramLog, handle).decode(errors="replace").strip("\0")
        if code:
            raise sources.compile_error(program, chosen, "NVRTC {}.{}".format(*version()), log)
        return _bytes(lib.nvrtcGetCUBINSize, lib.nvrtcGetCUBIN, handle), log
    finally:
        lib.nvrtcDestroyProgram(ctypes.byref(handle))


def _bytes(size_of, content_of, handle: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _checked(size_of(handle, ctypes.byref(size)), "NVRTC's size query")
    buffer = ctypes.create_string_buffer(size.value)
    _checked(content_of(handle, buffer), "NVRTC's result query")
    return buffer.raw


def cubin(program: Program, architecture: str) -> Path:
    """The file of the compiled program, from the cache where it was compiled before; its log lies beside it."""
    chosen = options(program, architecture)
    sources.show(program, chosen)
    key = sources.digest(program, False, *chosen, "NVRTC {}.{}".format(*version()))
    stem = f"{program.stem}-{architecture}-{key}"

    def make(temporary: Path) -> None:
        code, log = compile_program(program, architecture)
        disk.entry(f"{stem}.log", lambda path: path.write_text(log, encoding="utf-8"))
        temporary.write_bytes(code)

    def make_log(temporary: Path) -> None:
        temporary.write_text(compile_program(program, architecture)[1], encoding="utf-8")

    path = disk.entry(f"{stem}.cubin", make)
    disk.entry(f"{stem}.log", make_log)  # kept as long as its cubin; made again where it went before it
    return path


def resources(log: str) -> dict[str, Resources]:
    """{kernel: Resources} from the assembler's report in a compiler's log."""
    found = {}
    for block in re.split(r"Compiling entry function '", log)[1:]:
        numbers = [
            re.search(pattern, block)
            for pattern in (
                r"Used (\d+) registers",
                r"(\d+) bytes stack frame",
                r"(\d+) bytes spill stores",
                r"(\d+) bytes spill loads",
                r"(\d+) bytes smem",
            )
        ]
        registers, stack, stores, loads, shared = (int(m[1]) if m else 0 for m in numbers)
        found[block.split("'")[0]] = Resources(registers, stack, stores + loads, shared)
    return found
