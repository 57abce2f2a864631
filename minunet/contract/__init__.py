"""The contract: one row for every kernel that a backend can have.

A row is a function of what the gate sees of the inputs (shape and dtype, never values). It checks the sizes and
answers with the outputs' shapes and the floating-point operations one call costs. Its signature is the kernel's:

    def conv2d(x, w, b=None, *, stride, padding, dilation, activation): ...
               '-- arrays --'   '------------- options -------------'

and the kernel of that name, in every backend, takes outputs, inputs, options: `conv2d(y, x, w, b, stride=...)`.
An input whose default is None may be missing. Options listed in `shape_only` fix the output's shape and are not
passed on, for the kernel reads them from its output.

The gate (`minunet.backends.call`), the conformance tests, the benches and the documentation's tables are all
driven by `ROWS`. Arrays are NHWC; w[O,KH,KW,C]; padding is (top, bottom, left, right); the rest are (height, width).
"""

from minunet.contract import (  # each enters its rows
    augment,
    conv,
    join,
    loss,
    matmul,
    norm,
    optim,
    pointwise,
    pool,
    resample,
)
from minunet.contract.row import ROWS, Row, Spec, Work

__all__ = [
    "ROWS",
    "Row",
    "Spec",
    "Work",
    "augment",
    "conv",
    "join",
    "loss",
    "matmul",
    "norm",
    "optim",
    "pointwise",
    "pool",
    "resample",
]
