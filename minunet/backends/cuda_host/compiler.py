"""Kernel files as shared libraries of this machine, by its C++17 compiler and the headers of kernels/host."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from minunet.backends.cuda import disk, sources
from minunet.backends.cuda.sources import Program
from minunet.errors import UserError

# The sanitizer's reports go to handlers in kernels/host/run.h; no library of its own is linked. Memory is read under
# several types (16-byte vectors, packed halves), as on the GPU.
OPTIONS = (
    "-std=c++17",
    "-O2",
    "-fPIC",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-fvisibility=hidden",
    "-fsanitize=bounds,signed-integer-overflow,integer-divide-by-zero",
    "-fsanitize-recover=all",
    "-w",
)
FILLED = "-ftrivial-auto-var-init=pattern"  # registers that nobody wrote hold -1.7e38; GCC 12, Clang 8 and newer
# In place of -O2: each access to memory is told to kernels/host/races.h. No library of a sanitizer is linked.
RACES = ("-O1", "-fsanitize=thread", "-DMINUNET_RACES")
REMEDY = "install one (for example: apt install g++) or name it in the environment variable CXX"


@lru_cache(maxsize=1)
def find() -> tuple[str | None, str]:
    """The compiler's path and its version; (None, why not) where there is no C++17 compiler."""
    if os.name != "posix":
        return None, "the emulation needs a POSIX system"
    named = os.environ.get("CXX")
    for name in (named,) if named else ("g++", "c++", "clang++"):
        path = shutil.which(name)
        if path is None:
            continue
        if _accepts(path, "if constexpr (true) return 0;"):
            said = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
            return path, said.splitlines()[0] if said else name
    return None, f"no C++17 compiler was found ({named or 'g++, c++, clang++'}); {REMEDY}"


def _accepts(path: str, statement: str, *flags: str) -> bool:
    """Whether a compiler takes these options, and this statement of C++17."""
    arguments = [path, "-std=c++17", "-Werror", *flags, "-fsyntax-only", "-x", "c++", "-"]
    return (
        subprocess.run(arguments, input=f"int main() {{ {statement} }}", text=True, capture_output=True).returncode == 0
    )


@lru_cache(maxsize=1)
def options() -> tuple[str, ...]:
    """OPTIONS, and FILLED where there is a compiler that has it."""
    path, _ = find()
    return (*OPTIONS, FILLED) if path is not None and _accepts(path, "", FILLED) else OPTIONS


def wrapper(program: Program) -> str:
    """The translation unit: the kernel file, a table of its kernels, the one function that the library exports."""
    names = sources.kernels(program.file, program.real)
    rows = "".join(f'    host::kernel("{name}", {name}),\n' for name in names)
    return f"""#include "{program.file}"
static const host::Kernel table[] = {{
{rows}}};
extern "C" __attribute__((visibility("default"))) const char* minunet_launch(
    int kernel, const unsigned* geometry, int shared, const host::Argument* arguments, int count, int descending) {{
    return host::launch(table[kernel], geometry, geometry + 3, shared, arguments, count, descending != 0);
}}
"""


def library(program: Program, races: bool = False) -> Path:
    """The compiled program, from the cache where it was compiled before; `races`: it reports those.

    Raises UserError with kernel, line and options where the source does not compile, or there is no compiler.
    """
    compiler, version = find()
    if compiler is None:
        raise UserError(f"cuda_host: {version}")
    chosen = (*options(), *(RACES if races else ()), *program.macros)
    sources.show(program, chosen)
    unit = wrapper(program)
    key = sources.digest(program, True, *chosen, compiler, version, unit)
    return disk.entry(f"{program.stem}-host-{key}.so", lambda path: _compile(program, unit, compiler, chosen, path))


def _compile(program: Program, unit: str, compiler: str, chosen: tuple[str, ...], path: Path) -> None:
    base = sources.folder()
    with tempfile.TemporaryDirectory() as scratch:
        source, compiled = Path(scratch) / "unit.cpp", Path(scratch) / "unit.o"
        source.write_text(unit, encoding="utf-8")
        includes = [f"-I{base / 'cuda'}", f"-I{base / 'host'}"]
        steps = ((*chosen, *includes, "-c", source, "-o", compiled), ("-shared", compiled, "-o", path))
        for arguments in steps:
            plain = {**os.environ, "LC_ALL": "C"}  # messages in English, with plain quotes
            done = subprocess.run([compiler, *arguments], capture_output=True, text=True, env=plain)
            if done.returncode:
                raise sources.compile_error(program, chosen, Path(compiler).name, done.stderr)
