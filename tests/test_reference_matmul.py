"""The reference's products of matrices, judged by loops."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from cases import cases
from checks import near, reference, sample


@pytest.mark.parametrize("case", [pytest.param(case, id=case.label) for case in cases("matmul")])
def test_matmul_by_loops(case):
    a, b = sample(case, np.float64)
    y = reference("matmul", a, b, **case.options)
    left = [m.T.tolist() if case.options["transpose_a"] else m.tolist() for m in a]  # N lists of M rows of K
    right = [m.tolist() if case.options["transpose_b"] else m.T.tolist() for m in b]  # N lists of P columns of K
    assert y.shape == (len(a), len(left[0]), len(right[0]))
    expected = np.empty(y.shape)
    for n, m, p in product(*map(range, y.shape)):
        expected[n, m, p] = sum(u * v for u, v in zip(left[n][m], right[n][p], strict=True))
    assert near(y, expected)


def test_by_hand():
    a, b = np.array([[[1.0, 2], [3, 4], [5, 6]]]), np.array([[[1.0, 10], [100, 1000]]])
    flags = {"transpose_a": False, "transpose_b": False}
    assert reference("matmul", a, b, **flags).tolist() == [[[201, 2010], [403, 4030], [605, 6050]]]
    assert reference("matmul", a, b, **flags | {"transpose_b": True}).tolist() == [[[21, 2100], [43, 4300], [65, 6500]]]
    assert reference("matmul", a, a, transpose_a=True, transpose_b=False).tolist() == [[[35, 44], [44, 56]]]
