"""What each step of the convolution ladder takes of a multiprocessor: computed from the compiler's report, no GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.gpu_device import Clock, Device
from minunet.backends.cuda import nvrtc
from minunet.backends.cuda.choose import LADDER, Step
from minunet.backends.cuda.sources import Program
from minunet.errors import UserError

REGISTERS = 65536  # of a multiprocessor, given to warps in units of 256
ALIGN = 256


@dataclass(frozen=True)
class Limits:
    """A multiprocessor: threads and blocks at once, bytes of shared memory, of which each block takes 1 KB more than it
    asks for from sm_80 on (CUDA programming guide, compute capabilities)."""

    threads: int
    blocks: int
    shared: int
    reserved: int = 1024


LIMITS = {
    "sm_75": Limits(1024, 16, 64 << 10, 0),
    "sm_80": Limits(2048, 32, 164 << 10),
    "sm_86": Limits(1536, 16, 100 << 10),
    "sm_89": Limits(1536, 24, 100 << 10),
    "sm_90a": Limits(2048, 32, 228 << 10),
    "sm_100": Limits(2048, 32, 228 << 10),
}


def occupancy(threads: int, registers: int, shared: int, limits: Limits) -> float:
    """Share of a multiprocessor's threads that are there at once, for blocks of `threads` threads."""
    warps = -(-threads // 32)
    by_registers = REGISTERS // (warps * (-(-registers * 32 // ALIGN) * ALIGN))
    by_shared = limits.shared // max(1, shared + limits.reserved)
    blocks = min(by_registers, by_shared, limits.threads // threads, limits.blocks)
    return blocks * threads / limits.threads


def measure(device: Device, clock: Clock) -> dict[str, Any]:
    """{step: {tile: {kernel: {architecture: registers, shared, occupancy}}}}, "computed" all of it."""
    if not nvrtc.available():
        return {"skipped": f"no NVRTC: {nvrtc.library()[1]}"}
    found: dict[str, Any] = {}
    for step in LADDER.values():
        for tile in tiles(step)[:1] if device.dry else tiles(step):
            for architecture, limits in LIMITS.items():
                if int(architecture[3:].rstrip("a")) < step.least or (device.dry and architecture != "sm_90a"):
                    continue
                if clock.over():
                    return found | {"left out": "out of time"}
                for kernel, entry in report(step, tile, architecture, limits).items():
                    kernels = found.setdefault(step.name, {}).setdefault(label(tile), {})
                    kernels.setdefault(kernel, {})[architecture] = entry
    return found


def tiles(step: Step) -> list[tuple[tuple[str, int], ...]]:
    if int(step.name[0]) < 4:
        return [()]
    return [(("TILE_M", m), ("TILE_N", n)) for m, n in ((64, 64), (128, 64), (128, 128))]


def label(tile: tuple[tuple[str, int], ...]) -> str:
    return " x ".join(str(v) for _, v in tile) or "one element a thread"


def report(step: Step, tile: tuple[tuple[str, int], ...], architecture: str, limits: Limits) -> dict[str, Any]:
    try:
        log = nvrtc.cubin(Program(step.file, "float", tile), architecture).with_suffix(".log").read_text()
    except UserError as error:
        return {"failed": str(error)[:300]}
    threads = {"1_naive": 128, "3_shared_tile": 512}.get(step.name, 256)
    found = {}
    for kernel, used in nvrtc.resources(log).items():
        shared = used.shared + step.shared(kernel, tuple(v for _, v in tile))
        share = occupancy(threads, used.registers, shared, limits)
        found[kernel] = {
            "registers": used.registers,
            "spills": used.spills,
            "shared": shared,
            "occupancy": round(share, 3),
        }
    return found
