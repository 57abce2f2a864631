"""What a GPU can do at best, and how near a kernel comes: the roof of arithmetic and of memory.

A convolution with F floating-point operations on arrays of B bytes, each touched once, takes no less than
    max(F / peak, B / bandwidth)
and the larger of the two is the limit. Winograd's algorithm needs fewer operations than the plain sum that F counts,
and so may go above 100 %. Peaks are computed from multiprocessors and clock, not measured; the bandwidth is that of the
device's own copy, measured, or a data sheet's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from bench import layers
from minunet import backends
from minunet.backends.shapes import ShapeArray

# Multiply-adds of a multiprocessor in one clock: plain float32, and tensor cores with bf16 factors and float32 sums;
# tf32 is half of the last everywhere (CUDA C++ Programming Guide, "Arithmetic Instructions"; NVIDIA's white papers).
MULTIPLY_ADDS = {75: (64, 0), 80: (64, 1024), 86: (128, 512), 89: (128, 512), 90: (128, 2048), 100: (128, 4096)}


class Limits(NamedTuple):
    """tflops: by precision, None where the device has no such units. gbytes: GB/s read and written."""

    tflops: dict[str, float | None]
    gbytes: float | None
    source: str

    def share(self, precision: str, flops: int, nbytes: int, ms: float) -> dict[str, Any]:
        """{"limit", "share_of_limit"}: which roof is lower here, and how near the time comes to it; {} if unknown."""
        times = self.milliseconds(precision, flops, nbytes)
        if None in times.values():
            return {}
        limit = max(times, key=times.get)
        return {"limit": limit, "share_of_limit": round(times[limit] / ms, 3)}

    def milliseconds(self, precision: str, flops: int, nbytes: int) -> dict[str, float | None]:
        """{limit: the least time under it}"""
        peak = self.tflops.get(precision)
        return {
            UNITS[precision]: flops / peak / 1e9 if peak else None,
            "memory": nbytes / self.gbytes / 1e6 if self.gbytes else None,
        }


UNITS = {"fp32": "multiply-adds", "tf32": "tensor cores", "bf16": "tensor cores"}
H200 = Limits({"fp32": 67.0, "tf32": 495.0, "bf16": 990.0}, 4800.0, "data sheet of an H200")


def of_device(about: dict[str, Any], gbytes: float | None) -> Limits:
    """The limits of the device that `Device.describe` tells about, whose copy was measured at so many GB/s."""
    capability, clock = int(str(about.get("architecture", "sm_0"))[3:]), about.get("clock_mhz")
    plain, tensor = MULTIPLY_ADDS.get(capability, (0, 0))
    scale = 2e-6 * about.get("multiprocessors", 0) * (clock or 0)  # TFLOP/s of one multiply-add a clock
    peaks = {"fp32": plain * scale, "tf32": tensor * scale / 2, "bf16": tensor * scale}
    tflops = {name: round(peak, 1) if peak else None for name, peak in peaks.items()}
    return Limits(tflops, gbytes, "peaks computed from multiprocessors and clock, bandwidth of a copy measured")


class Work(NamedTuple):
    """FLOPs of a layer's plain sum, and bytes of its arrays in float32, each touched once."""

    flops: int
    nbytes: int


def work(layer: layers.Layer, batch: int = 1) -> Work:
    """A layer's forward pass, by the contract's own count. Both gradients have as many FLOPs, and the same arrays."""
    k, size = layer.kernel, layer.output_size()
    outer, inner = (layer.c, layer.o) if layer.transposed else (layer.o, layer.c)
    shapes = ((batch, layer.size, layer.size, layer.c), (outer, k, k, inner), (layer.o,), (batch, size, size, layer.o))
    with backends.use_backend("shapes"), backends.count() as counted:
        layers.our_calls(layer, *map(ShapeArray, shapes))["forward"]()
    return Work(counted.flops, counted.bytes)


def table(limits: Limits = H200, batches: tuple[int, ...] = (1, 8)) -> str:
    """A Markdown table: what U-Net's layers at 572 x 572 take at least, computed from their shapes and the limits."""
    heads = ["layer", "shape", "GFLOP", "MB", "FLOP/byte"]
    for batch in batches:
        heads += [f"{precision}, batch {batch}" for precision in UNITS]
    rows = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    sums = [0.0] * (len(heads) - 5)
    for layer in layers.unet(64, 572):
        one = work(layer)
        cells = [layer.name, f"{layer.size}², {layer.c} → {layer.output_size()}², {layer.o}", f"{one.flops / 1e9:.2f}"]
        cells += [f"{one.nbytes / 1e6:.1f}", f"{one.flops / one.nbytes:.0f}"]
        for number, (batch, precision) in enumerate((b, p) for b in batches for p in UNITS):
            times = limits.milliseconds(precision, *work(layer, batch))
            limit = max(times, key=times.get)
            sums[number] += times[limit]
            cells.append(f"{1e3 * times[limit]:.1f}{' *' if limit == 'memory' else ''}")
        rows.append(f"| {' | '.join(cells)} |")
    rows.append(f"| all | | | | | {' | '.join(f'{1e3 * s:.0f}' for s in sums)} |")
    peaks = ", ".join(f"{name} {peak:.0f} TFLOP/s" for name, peak in limits.tflops.items())
    note = (
        f"Computed, not measured: microseconds of a forward pass at the limits of the {limits.source} ({peaks}, memory"
        f" {limits.gbytes / 1e3:.1f} TB/s), arrays in float32, each touched once; the star: memory is the limit, else"
        " arithmetic. Each gradient takes as much."
    )
    return "\n".join([note, "", *rows])
