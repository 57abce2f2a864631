"""Products of matrices, and another shape for the same numbers. Kernel: matmul."""

from __future__ import annotations

from math import prod
from typing import Any

from minunet.ops.shared import Tensor, as_tensor, call, record


def matmul(a: Tensor, b: Tensor, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """y[n,m,p] = sum_k A[n,m,k] B[n,k,p]: one product of matrices for each sample

    a : (N, M, K), or (N, K, M) with transpose_a     b : (N, K, P), or (N, P, K) with transpose_b     returns (N, M, P)
    Gradients are products too: dA = dy B^T and dB = A^T dy, transposed as a and b are. Kept for backward: a and b.
    Raises ValueError where N or K differ. Attention without softmax (FANet, arXiv 2007.03815) is q (k^T v):
    matmul(q, matmul(k, v, transpose_a=True)) with q, k (N, HW, 32) and v (N, HW, C).
    """
    a, b = as_tensor(a), as_tensor(b)
    aa, ba = a.data, b.data
    y = call("matmul", aa, ba, transpose_a=transpose_a, transpose_b=transpose_b)

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any, Any]:
        da = db = None
        if need[0] and transpose_a:  # da = (dy B^T)^T = B dy^T
            da = call("matmul", ba, dy, transpose_a=transpose_b, transpose_b=True)
        elif need[0]:
            da = call("matmul", dy, ba, transpose_a=False, transpose_b=not transpose_b)
        if need[1] and transpose_b:  # db = (A^T dy)^T = dy^T A
            db = call("matmul", dy, aa, transpose_a=True, transpose_b=transpose_a)
        elif need[1]:
            db = call("matmul", aa, dy, transpose_a=not transpose_a, transpose_b=False)
        return da, db

    return record("matmul", y, (a, b), backward)


def reshape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The same numbers, in the same order, in another shape: y shares x's memory, and nothing is computed.

    One size may be -1: what is left. (N, H, W, C) as rows of pixels is reshape(x, (N, H * W, C)).
    Raises ValueError where the numbers of elements differ.
    """
    x = as_tensor(x)
    shape, before, size = tuple(int(n) for n in shape), x.shape, prod(x.shape)
    known = prod(n for n in shape if n != -1)
    free = shape.count(-1)
    if free > 1 or any(n < -1 for n in shape) or (size % known if free and known else size != known):
        raise ValueError(f"reshape: {before} has {size} elements, which do not make the shape {shape}")

    def backward(dy: Any, need: tuple[bool, ...]) -> tuple[Any]:
        return (dy.reshape(before),)

    return record("reshape", x.data.reshape(shape), (x,), backward)
