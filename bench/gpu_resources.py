"""What each step of the convolution ladder takes of a multiprocessor: computed from the compiler's report, no GPU."""

from __future__ import annotations

from typing import Any

from bench.gpu_device import Clock, Device
from minunet.backends.cuda import nvrtc
from minunet.backends.cuda.choose import LADDER, Step
from minunet.backends.cuda.resources import occupancy
from minunet.backends.cuda.sources import Program
from minunet.errors import UserError

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100")


def measure(device: Device, clock: Clock) -> dict[str, Any]:
    """{step: {tile: {kernel: {architecture: registers, shared, occupancy}}}}, "computed" all of it."""
    if not nvrtc.available():
        return {"skipped": f"no NVRTC: {nvrtc.library()[1]}"}
    found: dict[str, Any] = {}
    for step in LADDER.values():
        for tile in tiles(step)[:1] if device.dry else tiles(step):
            for architecture in ARCHITECTURES:
                if capability(architecture) < step.least or (device.dry and architecture != "sm_90a"):
                    continue
                if clock.over():
                    return found | {"left out": "out of time"}
                for kernel, entry in report(step, tile, architecture).items():
                    kernels = found.setdefault(step.name, {}).setdefault(label(tile), {})
                    kernels.setdefault(kernel, {})[architecture] = entry
    return found


def capability(architecture: str) -> int:
    return int(architecture[3:].rstrip("a"))


def tiles(step: Step) -> list[tuple[tuple[str, int], ...]]:
    if not step.tiled:
        return [()]
    return [(("TILE_M", m), ("TILE_N", n)) for m, n in ((64, 64), (128, 64), (128, 128))]


def label(tile: tuple[tuple[str, int], ...]) -> str:
    return " x ".join(str(v) for _, v in tile) or "no tile"


def report(step: Step, tile: tuple[tuple[str, int], ...], architecture: str) -> dict[str, Any]:
    try:
        log = nvrtc.cubin(Program(step.file, "float", tile), architecture).with_suffix(".log").read_text()
    except UserError as error:
        return {"failed": str(error)[:300]}
    threads = {"1_naive": 128, "3_shared_tile": 512}.get(step.name, 256)
    found = {}
    for kernel, used in nvrtc.resources(log).items():
        shared = used.shared + step.shared(kernel, tuple(v for _, v in tile))
        share = occupancy(used.registers, shared, threads, capability(architecture))
        found[kernel] = {
            "registers": used.registers,
            "spills": used.spills,
            "shared": shared,
            "occupancy": round(share, 3),
        }
    return found
