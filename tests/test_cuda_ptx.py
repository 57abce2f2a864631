"""Tensor cores by the PTX manual: fragments laid out here by its formulas, products compared with the matrices'.

Runs on the emulation, and on a GPU where there is one, so that the emulation itself is judged by the hardware.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minunet import backends
from minunet.backends.cuda.launch import launch

TENSOR = str(Path(__file__).parent / "cuda" / "tensor.cu")
F32 = np.dtype(np.float32)
LANES = np.arange(32)
G, T = LANES // 4, LANES % 4  # "groupID" and "threadID_in_group" of the manual


@pytest.fixture(params=("cuda_host", "cuda"))
def device(request):
    if request.param not in backends.available():
        pytest.skip(f"{request.param}: {backends.get(request.param).reason()}")
    return backends.get(request.param)


def run(device, kernel: str, outputs: list[np.ndarray], *inputs) -> list[np.ndarray]:
    """The outputs, as NumPy arrays, after one block of 32 threads."""
    arrays = [device.asarray(a) for a in outputs]
    rest = (device.asarray(a) if isinstance(a, np.ndarray) else a for a in inputs)
    launch(device.device, TENSOR, kernel, F32, 1, 32, *arrays, *rest)
    return [device.numpy(a) for a in arrays]


def numbers(*shape: int, bits: int, seed: int) -> np.ndarray:
    """Small multiples of 2^-3 with few bits: exact in every format, and so are their sums of products."""
    return (np.random.default_rng(seed).integers(-(2**bits), 2**bits, shape) / 8).astype(np.float32)


def bf16(x: np.ndarray) -> np.ndarray:
    """The bits of numbers that bf16 holds exactly."""
    return (x.view(np.uint32) >> 16).astype(np.uint16)


def pairs(half: np.ndarray) -> np.ndarray:
    """Two neighbours along the last axis in one register, the first in the low half."""
    return half[..., 0].astype(np.uint32) | half[..., 1].astype(np.uint32) << 16


def accumulators(d: np.ndarray) -> np.ndarray:
    """(16, 8) -> (32, 4): c0, c1 in row g, c2, c3 in row g + 8; columns 2 t, 2 t + 1."""
    return np.stack([d[G + 8 * (k // 2), 2 * T + k % 2] for k in range(4)], axis=1)


def test_tf32_fragments(device):
    a, b, c = numbers(16, 8, bits=5, seed=0), numbers(8, 8, bits=5, seed=1), numbers(16, 8, bits=4, seed=2)
    fa = np.stack([a[G, T], a[G + 8, T], a[G, T + 4], a[G + 8, T + 4]], axis=1).view(np.uint32)
    fb = np.stack([b[T, G], b[T + 4, G]], axis=1).view(np.uint32)
    (d,) = run(device, "product_tf32", [accumulators(c)], fa, fb)
    assert np.array_equal(d, accumulators(c + a @ b))


@pytest.mark.parametrize("kernel", ("product_bf16", "product_f16"))
def test_16_bit_fragments(device, kernel):
    a, b, c = numbers(16, 16, bits=5, seed=3), numbers(16, 8, bits=5, seed=4), numbers(16, 8, bits=4, seed=5)
    bits = bf16 if kernel == "product_bf16" else lambda x: x.astype(np.float16).view(np.uint16)
    fa = np.stack(  # a0 a1: (g, 2t..), a2 a3: (g + 8, 2t..), a4 a5: (g, 2t + 8..), a6 a7: (g + 8, 2t + 8..)
        [pairs(bits(np.stack([a[G + i, 2 * T + k], a[G + i, 2 * T + k + 1]], axis=1))) for k in (0, 8) for i in (0, 8)],
        axis=1,
    )
    fb = np.stack([pairs(bits(np.stack([b[2 * T + k, G], b[2 * T + k + 1, G]], axis=1))) for k in (0, 8)], axis=1)
    (d,) = run(device, kernel, [accumulators(c)], fa, fb)
    assert np.array_equal(d, accumulators(c + a @ b))


@pytest.mark.parametrize("kernel", ("bf16_rows", "bf16_columns"))
def test_ldmatrix_lays_out_what_mma_wants(device, kernel):
    """The usual way: a row by row, b as its columns (k contiguous), or as its rows with .trans."""
    a, b = numbers(16, 16, bits=5, seed=6), numbers(16, 8, bits=5, seed=7)
    given = b if kernel == "bf16_columns" else b.T
    (d,) = run(device, kernel, [np.full((16, 8), np.nan, np.float32)], bf16(a), bf16(np.ascontiguousarray(given)))
    assert np.array_equal(d, a @ b)


def test_conversions_round_as_the_hardware_does(device):
    rng = np.random.default_rng(8)
    ties = [1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-8, 1 + 3 * 2**-8, *(2.0**-25 * np.arange(1, 6))]
    ends = [0.0, 1.0, 65504.0, 65519.0, 65520.0, 1e5, 1e-7, 6e-8]
    x = np.concatenate([ties, ends, rng.normal(size=200), 10 ** rng.uniform(-9, 9, 200)])
    x = x.astype(np.float32)
    outputs = [np.zeros(x.size, np.uint32) for _ in range(3)] + [np.full(x.size, np.nan, np.float32) for _ in range(2)]
    blocks = []
    for first in range(0, x.size, 32):  # one block a launch
        part = x[first : first + 32]
        blocks.append(run(device, "convert", [o[first : first + 32].copy() for o in outputs], part, part.size))
    tf32, as_bf16, as_f16, from_bf16, from_f16 = (np.concatenate(column) for column in zip(*blocks))

    bits = x.view(np.uint32).astype(np.uint64)
    assert np.array_equal(tf32, (bits + 0x1000) & 0xFFFFE000)  # nearest, ties away from zero
    nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16  # nearest, ties to even
    assert np.array_equal(as_bf16 & 0xFFFF, nearest)
    assert np.array_equal(as_bf16 >> 16, nearest ^ 0x8000)  # of -x
    with np.errstate(over="ignore"):
        half = x.astype(np.float16)
    assert np.array_equal(as_f16 & 0xFFFF, half.view(np.uint16))
    assert np.array_equal(as_f16 >> 16, half.view(np.uint16) ^ 0x8000)
    assert np.array_equal(from_bf16, (nearest << 16).astype(np.uint32).view(np.float32))
    assert np.array_equal(from_f16, half.astype(np.float32))
