"""1x1 convolution to one, two or four channels, the head of a segmentation network: lanes are pixels.

    y[p, o] = act(b[o] + sum over c of x[p, c] * w[o, c])

The register block of `simd_gemm.py` has vectors of output channels; with two of them 14 lanes of 16 would be idle.
Here LANES pixels by LANES channels are loaded as they lie and transposed in registers (64 shuffles for 256 numbers);
each channel, now a vector over pixels, meets one weight for each output. The results are interleaved back.
Limit: memory, which is read once; shuffles where the image is in the cache.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minunet.jit import njit

from .simd import Emit, address, function, kernel, lanes, prepare
from .simd_gemm import RELU, part, split

OUTPUTS = (1, 2, 4)  # channels
_AHEAD = 4  # blocks of LANES pixels between what is fetched from memory and what is multiplied
_ITEM = 64  # blocks of LANES pixels in one work item, at least


def _block(e: Emit, outputs: int, x, w, w_row, bias, y, pixels, channels, flags):
    build, vector = e.b, e.lanes * e.size
    x, w, bias, y = (e.pointer(a) for a in (x, w, bias, y))
    x_row = build.mul(channels, e.int(e.size))
    ahead = build.mul(x_row, e.int(_AHEAD * e.lanes))
    sums = [e.variable(init=e.broadcast(e.at(bias, o * e.size))) for o in range(outputs)]

    def sweep(load_mask, store_mask):
        def some_channels(i):
            at = build.mul(i, e.int(vector))
            rows = [e.at(x, build.add(at, build.mul(x_row, e.int(r)))) for r in range(e.lanes)]
            for row in rows:  # a line each: the processor does not foresee so many short pieces
                e.prefetch(e.at(row, ahead), level=2)
            columns = e.transpose([e.load(row, load_mask(i, r)) for r, row in enumerate(rows)])
            for k, column in enumerate(columns):
                for o, total in enumerate(sums):
                    weight = e.at(w, build.add(at, build.add(build.mul(w_row, e.int(o)), e.int(k * e.size))))
                    build.store(e.fma(column, e.broadcast(weight), e.get(total)), total)

        e.loop(build.sdiv(build.add(channels, e.int(e.lanes - 1)), e.int(e.lanes)), some_channels)
        with build.if_then(build.icmp_signed("!=", build.and_(flags, e.int(RELU)), e.int(0))):
            for total in sums:
                build.store(e.relu(e.get(total)), total)
        for v, result in enumerate(e.transpose([e.get(total) for total in sums])):
            e.store(result, e.at(y, v * vector), store_mask(v))

    def least(a, b):
        return build.select(build.icmp_signed("<", a, b), a, b)

    def some(i, r):
        left = build.sub(channels, build.mul(i, e.int(e.lanes)))
        return e.mask(build.select(build.icmp_signed("<", e.int(r), pixels), left, e.int(0)))

    whole_vectors = build.icmp_signed("==", build.srem(channels, e.int(e.lanes)), e.int(0))
    full = build.and_(build.icmp_signed(">=", pixels, e.int(e.lanes)), whole_vectors)
    with build.if_else(full) as (whole, rest):
        with whole:
            sweep(lambda i, r: None, lambda v: None)
        with rest:
            last = build.mul(least(pixels, e.int(e.lanes)), e.int(outputs))
            sweep(some, lambda v: e.mask(build.sub(last, e.int(v * e.lanes))))


def _choose(e: Emit, outputs, *args):
    build = e.b
    for count in OUTPUTS:

        def variant(emit, *a, count=count):
            _block(emit, count, *a)

        with build.if_then(build.icmp_signed("==", outputs, e.int(count))):
            build.call(function(build.module, e.elem, f"narrow_{count}", len(args), variant), args)


# narrow(t, (outputs, x, w, w_row, bias, y, pixels, channels, flags)): y[p, o] for p < min(pixels, LANES), o < outputs;
#   w (outputs, whole vectors of channels, the last filled with 0), its rows w_row bytes apart. flags: RELU.
narrow = kernel("narrow", 9, _choose)


@njit(parallel=True)
def _narrow_conv(t, size, L, x, w, w_row, bias, y, pixels, C, O, flags, items):
    blocks = split(pixels, L)
    for item in prange(items):
        for k in range(part(blocks, items, item), part(blocks, items, item + 1)):
            p = k * L
            narrow(t, (O, x + p * C * size, w, w_row, bias, y + p * O * size, pixels - p, C, flags))


def narrow_conv(y, x, w, b, activation, threads: int) -> None:
    """conv2d of a 1x1 filter, stride 1, no padding: y (N, H, W, O), O in OUTPUTS; x (N, H, W, C), w (O, 1, 1, C)."""
    C, O, L = x.shape[3], y.shape[3], lanes(x.dtype)
    prepare(x.dtype, "narrow")
    weights, bias = np.zeros((O, -(-C // L) * L), x.dtype), np.zeros(O, x.dtype)
    weights[:, :C] = w.reshape(O, C)
    if b is not None:
        bias[:] = b
    pixels = x.size // C
    items = max(1, min(threads, pixels // (_ITEM * L)))
    _narrow_conv(
        x.dtype.type(0), x.itemsize, L, address(x), address(weights), weights.strides[0], address(bias), address(y),
        pixels, C, O, RELU if activation == "relu" else 0, items,
    )  # fmt: skip
