"""The kernel files as text: where they lie, what kernels they hold, what arguments those take, under which hash.

A kernel is what stands behind `extern "C" __global__`; its parameter list is read from the text, so that arguments
are checked against the source itself, and nothing is typed twice.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from minunet.errors import UserError

CARD = ("Math", "Layout", "Threads", "Memory", "Limit", "Step", "Needs")  # the header card's lines, in this order
REAL = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
_TYPES = {
    "int": np.int32,
    "unsigned": np.uint32,
    "u64": np.uint64,
    "u16": np.uint16,
    "u8": np.uint8,
    "float": np.float32,
    "double": np.float64,
}
_KERNEL = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\([^()]*\)\s+)?(\w+)\(([^()]*)\)')
_PARAMETER = re.compile(r"(?:(In|Out|InOut)<(\w+)>|(\w+)) (\w+)")
_INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel: an array of `dtype`, or one number of it."""

    name: str
    dtype: np.dtype
    array: bool


@dataclass(frozen=True)
class Program:
    """A kernel file with everything that its text depends on: the type REAL and other macros."""

    file: str  # below kernels/cuda, "conv/1_naive.cu"; or the absolute path of a file elsewhere
    real: str  # "float" or "double"
    defines: tuple[tuple[str, int | str], ...] = ()

    @property
    def stem(self) -> str:
        """What a compiled file's name starts with: "conv-1_naive-float"."""
        return "-".join((*Path(self.file).with_suffix("").parts[-2:], self.real))

    @property
    def macros(self) -> tuple[str, ...]:
        return (f"-DREAL={self.real}", *(f"-D{name}={value}" for name, value in self.defines))


@lru_cache(maxsize=1)
def folder() -> Path:
    """The folder `kernels`: inside of an installed minunet, beside minunet/ in a checkout."""
    package = Path(__file__).resolve().parents[2]
    for place in (package / "kernels", package.parent / "kernels"):
        if (place / "cuda" / "common.cuh").is_file():
            return place
    raise UserError(f"{package / 'kernels'}: the CUDA sources are missing; install minunet again")


def files() -> list[str]:
    """All kernel files, as `Program.file` wants them."""
    base = folder() / "cuda"
    return sorted(path.relative_to(base).as_posix() for path in base.rglob("*.cu"))


def headers(file: str, host: bool) -> list[Path]:
    """All headers that a kernel file includes, through others as well; for the host those of kernels/host besides."""
    base, found, left = folder() / "cuda", [], [folder() / "cuda" / file]
    while left:
        path = left.pop()
        for name in _INCLUDE.findall(path.read_text(encoding="utf-8")):
            header = next((h for h in (path.parent / name, base / name) if h.is_file()), None)
            if header is not None and header not in found:
                found.append(header)
                left.append(header)
    return sorted(found) + (sorted((folder() / "host").glob("*.h")) if host else [])


@lru_cache
def text(file: str) -> str:
    path = folder() / "cuda" / file
    if not path.is_file():
        raise UserError(f"{path}: there is no such kernel file; there are {', '.join(files())}")
    return path.read_text(encoding="utf-8")


@lru_cache
def kernels(file: str, real: str) -> dict[str, tuple[Parameter, ...]]:
    """The kernels of a file, with their parameters when REAL is `real`. Raises ValueError for a type it cannot read."""
    plain = re.sub(r"//[^\n]*|/\*.*?\*/", "", text(file), flags=re.DOTALL)
    found = {}
    for match in _KERNEL.finditer(plain):
        parameters = [" ".join(p.split()) for p in match[2].split(",") if p.strip()]
        found[match[1]] = tuple(_parameter(p, real, f"{file}: {match[1]}") for p in parameters)
    return found


def _parameter(declaration: str, real: str, where: str) -> Parameter:
    match = _PARAMETER.fullmatch(declaration)
    kind = match and (match[2] or match[3])
    if kind == "REAL":
        kind = real
    if kind not in _TYPES:
        known = ", ".join(_TYPES)
        raise ValueError(
            f"{where}: parameter {declaration!r} is not In<T>, Out<T>, InOut<T> or T, T one of REAL, {known}"
        )
    return Parameter(match[4], np.dtype(_TYPES[kind]), match[1] is not None)


def card(file: str) -> dict[str, str]:
    """The header card at the top of a kernel file: {"Math": ..., ..., "Needs": ...}, in its order."""
    found: dict[str, str] = {}
    key = None
    for line in text(file).splitlines():
        if not line.startswith("//"):
            break
        match = re.match(r"// ([A-Z][a-z]+) {2,}(.*)", line)
        if match and match[1] in CARD:
            key = match[1]
            found[key] = match[2].strip()
        elif key and line.startswith("//   "):
            found[key] += " " + line[2:].strip()
        else:
            key = None
    return found


def least_architecture(file: str) -> int:
    """The oldest architecture that a file claims to support: the `sm_80` of its card's last line, else 75."""
    match = re.search(r"sm_(\d+)", card(file).get("Needs", ""))
    return int(match[1]) if match else 75


def digest(program: Program, host: bool, *extra: str) -> str:
    """A hash over the source, all headers, the macros and `extra` (options, the compiler's version)."""
    total = hashlib.sha256()
    for part in (program.file, text(program.file), *program.macros, *extra):
        total.update(part.encode() + b"\0")
    for path in headers(program.file, host):
        total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:24]


def final_source(program: Program) -> str:
    """The text that the compiler sees: macros, and each header of kernels/cuda in place of its #include."""
    seen: set[str] = set()

    def expand(name: str) -> str:
        def include(match: re.Match[str]) -> str:
            path = match[1]
            if path in seen or not (folder() / "cuda" / path).is_file():
                return "" if path in seen else match[0]
            seen.add(path)
            return f"// ----- {path}\n{expand(path)}// ----- end of {path}"

        return _INCLUDE.sub(include, text(name))

    macros = "".join(f"#define {macro[2:].replace('=', ' ', 1)}\n" for macro in program.macros)
    return f"// ----- {program.file}\n{macros}{expand(program.file)}"


def show(program: Program, options: tuple[str, ...]) -> None:
    """Print the final source to stderr where MINUNET_SHOW_SOURCE names one of its kernels, or its file."""
    wanted = os.environ.get("MINUNET_SHOW_SOURCE")
    if wanted and wanted in (program.file, *kernels(program.file, program.real)):
        print(f"// options: {' '.join(options)}\n{final_source(program)}", file=sys.stderr)


def compile_error(program: Program, options: tuple[str, ...], compiler: str, log: str) -> UserError:
    """What a compiler said, as one line: kernel, file, line, message, options."""
    match = re.search(r"^(\S+?)[(:](\d+)\)?(?::\d+)?: (?:fatal )?error:? (.*)$", log, re.MULTILINE)
    if not match:
        return UserError(
            f"{program.file}: {compiler} failed: {' '.join(log.split())[:400]}; options {' '.join(options)}"
        )
    file, line, said = Path(match[1]).name, int(match[2]), match[3]
    where = "a header"
    if file == Path(program.file).name:
        before = "\n".join(text(program.file).splitlines()[:line])
        started = re.findall(r"^(?:extern|__device__).*?(\w+)\((?!\d)", before, re.MULTILINE)
        where = started[-1] if started else "before the first function"
    return UserError(
        f"{program.file}: does not compile: {file}, line {line} ({where}): {said};"
        f" compiled by {compiler} with {' '.join(options)}"
    )
