"""Contract rows x backends x precisions x awkward inputs: one suite, whoever wrote the kernel.

The judge is the reference in float64 (tests/test_reference_*.py judge the judge). A backend that cannot run here is
listed as skipped, with its reason.
"""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, cases
from checks import NAN, check_bounds, check_case, check_in_place, check_linear, check_nan, missing, nan_cases

from minunet import backends
from minunet.contract import ROWS

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
BACKENDS = backends.available()
ABSENT = [name for name in backends.installed() if name not in BACKENDS]
CASES = {name: cases(name) for name in ROWS}
each_backend = pytest.mark.parametrize("backend", BACKENDS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def each_case(*, linear: bool = False, in_place: bool = False):
    """Parametrize `row, case` over the contract, or the part of it that is linear or works in place."""
    chosen = [
        pytest.param(row, case, id=f"{row.name}-{case.label}")
        for row in ROWS.values()
        for case in CASES[row.name]
        if (not linear or (row.linear and case.linear)) and (not in_place or row.in_place)
    ]
    return pytest.mark.parametrize("row, case", chosen)


@pytest.fixture(autouse=True)
def has_kernel(request):
    """Skip the rows that a backend lacks; `test_coverage` reports those."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    row, backend = parameters.get("row"), parameters.get("backend")
    if row is not None and row.name in missing(backend):
        pytest.skip(f"backend {backend!r} has no kernel {row.name!r}")


@pytest.mark.parametrize("backend", ABSENT)
def test_a_backend_that_cannot_run_here(backend):
    pytest.skip(f"{backend}: {getattr(backends.get(backend), 'reason', lambda: 'no device or package')()}")


@pytest.mark.parametrize("backend", backends.installed())
def test_coverage(backend):
    """Every backend has every row, and nothing that the contract does not know."""
    assert missing(backend) == []
    assert sorted(set(backends.get(backend).kernels) - set(ROWS)) == []


@each_backend
@each_dtype
@each_case()
def test_value(backend, row, case: Case, dtype):
    check_case(backend, row, case, dtype)
    if backends.get(backend).Array is np.ndarray:  # devices have memory of their own
        check_bounds(backend, row, case, dtype)


@each_dtype
@pytest.mark.parametrize("name", NAN)
def test_a_nan_shows_on_the_cpu(name, dtype):
    for case in nan_cases(name):
        check_nan("cpu", ROWS[name], case, dtype)


@each_backend
@each_dtype
@each_case(in_place=True)
def test_in_place(backend, row, case: Case, dtype):
    check_in_place(backend, row, case, dtype)


@each_backend
@each_dtype
@each_case(linear=True)
def test_linear(backend, row, case: Case, dtype):
    check_linear(backend, row, case, dtype)


def test_every_row_has_cases_with_distinct_labels():
    for name, listed in CASES.items():
        labels = [case.label for case in listed]
        assert labels, f"{name} has no cases"
        assert len(set(labels)) == len(labels), f"{name}: two cases share a label"
