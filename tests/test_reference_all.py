"""What holds for every kernel of the reference: single precision is double precision rounded once."""

from __future__ import annotations

import numpy as np
import pytest
from cases import cases
from checks import exact, run, sample

from minunet.backends import reference
from minunet.contract import ROWS


@pytest.mark.parametrize("name", ROWS)
def test_float32_is_float64_rounded_once(name):
    row = ROWS[name]
    for case in cases(name):
        inputs = sample(case, np.float32)
        for y, truth in zip(run("reference", row, inputs, case.options), exact(row, inputs, case.options)):
            assert y.tobytes() == truth.astype(y.dtype).tobytes(), case.label


def test_a_hole_in_a_kernel_shows_through_the_scratch_arrays():
    kernel = reference.in_float64(lambda y, x: None, 1)
    y = np.zeros(3, np.float32)
    kernel(y, np.ones(3, np.float32))
    assert np.isnan(y).all()


def test_arrays_come_and_go_as_they_are():
    x = np.arange(6.0).reshape(2, 3)
    assert reference.asarray(x) is x
    assert reference.numpy(x) is x
    assert reference.asarray(x.T).flags.c_contiguous
    assert reference.empty((2, 3), np.float32).dtype == np.float32
