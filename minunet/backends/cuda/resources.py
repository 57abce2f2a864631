"""What the kernels take of a multiprocessor, computed from the assembler's report: no GPU, nothing measured.

python -m minunet.backends.cuda.resources       rewrites the table in kernels/README.md (in a checkout)
"""

from __future__ import annotations

import re
import sys
from typing import NamedTuple

from minunet.backends.cuda import nvrtc, sources
from minunet.backends.cuda.launch import THREADS
from minunet.backends.cuda.sources import Program
from minunet.errors import UserError
from minunet.files import atomic_write

REGISTERS, WARP, GRAIN = 65536, 32, 256  # registers of a multiprocessor; they are dealt out 256 to a warp
BEGIN, END = "<!-- resources: begin -->", "<!-- resources: end -->"


class Multiprocessor(NamedTuple):
    """What one multiprocessor of an architecture holds (CUDA C++ Programming Guide, "Compute Capabilities")."""

    threads: int
    blocks: int
    shared: int  # bytes
    reserved: int  # bytes of shared memory that each block loses to the system


MULTIPROCESSORS = {
    75: Multiprocessor(1024, 16, 64 * 1024, 0),
    80: Multiprocessor(2048, 32, 164 * 1024, 1024),
    86: Multiprocessor(1536, 16, 100 * 1024, 1024),
    89: Multiprocessor(1536, 24, 100 * 1024, 1024),
    90: Multiprocessor(2048, 32, 228 * 1024, 1024),
    100: Multiprocessor(2048, 32, 228 * 1024, 1024),
}


def occupancy(registers: int, shared: int, threads: int, capability: int) -> float:
    """The share of a multiprocessor's threads that run at once: as many blocks as registers, shared memory, threads
    and the limit on blocks allow.

    registers : of a thread; shared : bytes of a block, static and dynamic; threads : of a block

    >>> occupancy(registers=64, shared=16384, threads=256, capability=90)
    0.5
    """
    m = MULTIPROCESSORS[capability]
    warps = -(-threads // WARP)
    per_warp = -(-registers * WARP // GRAIN) * GRAIN
    limits = [m.threads // (warps * WARP), m.blocks, REGISTERS // per_warp // warps]
    if shared:
        limits.append(m.shared // (shared + m.reserved))
    return min(limits) * warps * WARP / m.threads


def table(architecture: str = "sm_90a", real: str = "float") -> str:
    """A row for each kernel: registers, static shared memory, occupancy, and the limit that its file's card names.

    Raises UserError where there is no NVRTC.
    """
    capability = int(re.search(r"\d+", architecture)[0])
    rows = ["| file | kernel | registers | shared, bytes | occupancy | limit |", "|---|---|---|---|---|---|"]
    for file in sources.files():
        log = nvrtc.cubin(Program(file, real), architecture).with_suffix(".log").read_text(encoding="utf-8")
        used, limit = nvrtc.resources(log), sources.card(file)["Limit"]
        for number, kernel in enumerate(sources.kernels(file, real)):
            r, threads = used[kernel], _threads(file, kernel)
            share = occupancy(r.registers, r.shared, threads, capability)
            head, end = (file, limit) if number == 0 else ("", "")  # said once
            rows.append(f"| {head} | {kernel} | {r.registers} | {r.shared} | {share:.0%} | {end} |")
    return "\n".join(rows)


def _threads(file: str, kernel: str) -> int:
    """The block that a kernel's `__launch_bounds__` names, where that is a number; else the usual one."""
    match = re.search(rf"__launch_bounds__\((\d+)[^()]*\)\s+{kernel}\(", sources.text(file))
    return int(match[1]) if match else THREADS


def rewrite(text: str) -> str:
    """`text` with the table between its markers made anew."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UserError(f"kernels/README.md: needs the lines {BEGIN} and {END} once each")
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    note = "Computed for sm_90a, float, static shared memory, not measured:"
    return f"{head}{BEGIN}\n\n{note}\n\n{table()}\n\n{END}{tail}"


def main() -> int:
    readme = sources.folder() / "README.md"
    fresh = rewrite(readme.read_text(encoding="utf-8"))
    with atomic_write(readme) as temporary:
        temporary.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
