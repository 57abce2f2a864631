"""Winograd's transforms as vector code: each works on one tile for a vector of channels at a time.

A correlation of r taps with m results needs a = m + r - 1 products (Winograd 1980; Lavin and Gray, CVPR 2016):

    y = A^T [(G g) * (B^T d)]        d: a inputs, g: r taps, y: m results; in 2-D each matrix acts on rows and columns

The matrices follow from interpolation at a - 1 points and infinity (Cook and Toom): A^T[i, j] = p_j^i,
G[j, k] = p_j^k / N_j with N_j = prod over k != j of (p_j - p_k), and row j of B^T holds the coefficients of
prod over k != j of (x - p_k). B depends on the points only, so the convolution (m = 4, r = 3) and its gradient in w
(m = 3, r = 4) share the transform of x. Points come in pairs +-p: two rows that differ in the signs of the odd terms
are one sum and one difference of shared halves, which saves about a third of the additions.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from .simd import Emit, kernel
from .simd_gemm import RELU

STREAM = 4  # flag of results, beside RELU: they go past the caches to memory

_POINTS = {6: (0, 1, -1, 2, -2), 8: (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2))}


def matrices(m: int, r: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(A^T (m, a), G (a, r), B^T (a, a)) in float64, for m results of r taps; a = m + r - 1 is 6 or 8."""
    a = m + r - 1
    points = [Fraction(p) for p in _POINTS[a]]
    at = [[p**i for p in points] + [Fraction(int(i == m - 1))] for i in range(m)]
    g, bt = [], []
    for j, p in enumerate(points):
        others = points[:j] + points[j + 1 :]
        norm = Fraction(1)
        for q in others:
            norm *= p - q
        g.append([p**k / norm for k in range(r)])
        bt.append([*_product(others), Fraction(0)])
    g.append([Fraction(int(k == r - 1)) for k in range(r)])
    bt.append(_product(points))
    return tuple(np.array(rows, dtype=np.float64) for rows in (at, g, bt))


def _product(roots: list[Fraction]) -> list[Fraction]:
    """Coefficients of prod (x - root), lowest power first."""
    poly = [Fraction(1)]
    for root in roots:
        poly = [low - root * high for low, high in zip([Fraction(0), *poly], [*poly, Fraction(0)])]
    return poly


def _combine(e: Emit, coefficients: np.ndarray, vectors: list):
    """Sum of coefficient * vector with the fewest instructions; None for an empty sum."""
    terms = sorted(((c, v) for c, v in zip(coefficients, vectors) if c), key=lambda t: (abs(t[0]) != 1, -t[0]))
    if not terms:
        return None
    c, total = terms[0]
    if c != 1:
        total = e.b.fmul(total, e.splat(c))
    for c, v in terms[1:]:
        if abs(c) == 1:
            total = e.b.fadd(total, v) if c > 0 else e.b.fsub(total, v)
        else:
            total = e.fma(v, e.splat(c), total)
    return total


def _add(e: Emit, x, y, sign: int):
    if y is None or x is None:
        return x if y is None else y if sign > 0 else e.b.fsub(e.splat(0.0), y)
    return e.b.fadd(x, y) if sign > 0 else e.b.fsub(x, y)


def apply(e: Emit, matrix: np.ndarray, vectors: list) -> list:
    """matrix @ vectors, with pairs of columns or of rows that differ in signs sharing their work."""
    matrix, vectors = matrix.copy(), list(vectors)
    for j in range(matrix.shape[1]):
        for k in range(j + 1, matrix.shape[1]):
            p, q = matrix[:, j].copy(), matrix[:, k].copy()
            same, opposite = (p == q) & (p != 0), (p == -q) & (p != 0)
            if np.array_equal(abs(p), abs(q)) and same.any() and opposite.any():
                x, y = vectors[j], vectors[k]
                vectors[j], vectors[k] = e.b.fadd(x, y), e.b.fsub(x, y)
                matrix[:, j], matrix[:, k] = p * same, p * opposite
    out = [None] * len(matrix)
    for i, row in enumerate(matrix):
        if out[i] is not None:
            continue
        for k in range(i + 1, len(matrix)):
            same, opposite = row == matrix[k], (row == -matrix[k]) & (row != 0)
            if np.array_equal(abs(row), abs(matrix[k])) and (same & (row != 0)).any() and opposite.any():
                even, odd = _combine(e, row * same, vectors), _combine(e, row * opposite, vectors)
                out[i], out[k] = _add(e, even, odd, 1), _add(e, even, odd, -1)
                break
        else:
            out[i] = _combine(e, row, vectors)
    return out


def _two_sided(name: str, matrix: np.ndarray, mask_loads: bool, ahead: int = 0):
    """The kernel `matrix @ tile @ matrix^T`; the mask guards the loads, or else the stores and the bias.

    `ahead`: columns to the next tile, which is fetched meanwhile: its rows are too short for the processor to foresee.
    """
    p, q = matrix.shape

    def body(e, count, src, src_step, src_row, src_col, dst, dst_step, dst_row, dst_col, columns, bias, flags):
        build = e.b

        def at(base, step, i, row, r, col, c):
            offset = build.add(build.mul(step, i), build.mul(row, e.int(r)))
            return e.at(e.pointer(base), build.add(offset, build.mul(col, e.int(c))))

        def has(flag):
            return build.icmp_signed("!=", build.and_(flags, e.int(flag)), e.int(0))

        def tiles(mask, stream=False):
            load_mask, store_mask = (mask, None) if mask_loads else (None, mask)

            def one(i):
                half = [[None] * q for _ in range(p)]
                for c in range(q):
                    column = [e.load(at(src, src_step, i, src_row, r, src_col, c), load_mask) for r in range(q)]
                    for r, value in enumerate(apply(e, matrix, column)):
                        half[r][c] = value
                    if c + ahead >= q:
                        for r in range(q):
                            e.prefetch(at(src, src_step, i, src_row, r, src_col, c + ahead))
                if mask_loads:
                    for r in range(p):
                        for c, value in enumerate(apply(e, matrix, half[r])):
                            e.store(value, at(dst, dst_step, i, dst_row, r, dst_col, c), store_mask)
                    return
                add = e.variable(init=e.splat(0.0))
                with build.if_then(build.icmp_signed("!=", bias, e.int(0))):
                    build.store(e.load(at(bias, dst_step, i, dst_row, 0, dst_col, 0), store_mask), add)
                low = e.variable(init=e.splat(-np.inf))
                with build.if_then(has(RELU)):
                    build.store(e.splat(0.0), low)
                add, low = e.get(add), e.get(low)
                for r in range(p):
                    for c, value in enumerate(apply(e, matrix, half[r])):
                        value = build.fadd(value, add)
                        value = build.select(build.fcmp_ordered("<", value, low), low, value)
                        e.store(value, at(dst, dst_step, i, dst_row, r, dst_col, c), store_mask, stream)

            e.loop(count, one)

        with build.if_else(build.icmp_signed(">=", columns, e.int(e.lanes))) as (whole, part):
            with whole:
                if mask_loads:
                    tiles(None)
                else:
                    with build.if_else(has(STREAM)) as (past, into):
                        with past:
                            tiles(None, stream=True)
                        with into:
                            tiles(None)
            with part:
                tiles(e.mask(columns))

    return kernel(name, 12, body)


# Each kernel: (t, (count, src, src_step, src_row, src_col, dst, dst_step, dst_row, dst_col, columns, bias, flags)),
# for i < count: the tile at src + i * src_step, its elements src_row and src_col bytes apart, is transformed to
# dst + i * dst_step. `columns` lanes are valid. Only results take a bias (at bias + i * dst_step, or 0) and the flags
# RELU and STREAM, which needs dst and its strides aligned to vectors.
input4 = _two_sided("winograd_input4", matrices(4, 3)[2], True, 4)  # 6x6 -> 6x6
filter4 = _two_sided("winograd_filter4", matrices(4, 3)[1], True)  # 3x3 -> 6x6
result4 = _two_sided("winograd_result4", matrices(4, 3)[0], False)  # 6x6 -> 4x4
input6 = _two_sided("winograd_input6", matrices(6, 3)[2], True, 6)  # 8x8 -> 8x8
filter6 = _two_sided("winograd_filter6", matrices(6, 3)[1], True)  # 3x3 -> 8x8
result6 = _two_sided("winograd_result6", matrices(6, 3)[0], False)  # 8x8 -> 6x6
# Gradient in w: 3 results of 4 or 6 "taps" (dy), same points, so the same input transform.
output_grad4 = _two_sided("winograd_output_grad4", matrices(3, 4)[1], True, 4)  # 4x4 -> 6x6
weight_grad4 = _two_sided("winograd_weight_grad4", matrices(3, 4)[0], False)  # 6x6 -> 3x3
output_grad6 = _two_sided("winograd_output_grad6", matrices(3, 6)[1], True, 6)  # 6x6 -> 8x8
weight_grad6 = _two_sided("winograd_weight_grad6", matrices(3, 6)[0], False)  # 8x8 -> 3x3

TRANSFORMS = tuple(
    f"winograd_{kind}{m}" for kind in ("input", "filter", "result", "output_grad", "weight_grad") for m in (4, 6)
)
