"""Products of matrices, one for each sample."""

from __future__ import annotations

from minunet.contract.row import SUM, Spec, Work, require, row


@row("matmul", linear=("a", "b"), tolerance=SUM)
def matmul(a, b, *, transpose_a, transpose_b):
    """y[n,m,p] = sum_k A[n,m,k] B[n,k,p].

    A = a (N, M, K), or with transpose_a its a (N, K, M) with the last two axes exchanged; B likewise from b (N, K, P).
    """
    require(
        len(a.shape) == len(b.shape) == 3,
        f"matmul: needs a (N, M, K) and b (N, K, P); got {a.shape} and {b.shape}",
    )
    m, k = a.shape[:0:-1] if transpose_a else a.shape[1:]
    inner, p = b.shape[:0:-1] if transpose_b else b.shape[1:]
    require(
        a.shape[0] == b.shape[0] and k == inner,
        f"matmul: a {a.shape}{' transposed' if transpose_a else ''} and b {b.shape}"
        f"{' transposed' if transpose_b else ''} differ in N, or in K: {k} columns against {inner} rows",
    )
    return Work((Spec((a.shape[0], m, p), a.dtype),), 2 * a.shape[0] * m * k * p)
