"""One element in, one element out; dropout; and maps weighed by channel.

Math     y = f(x) or dx = f(dy, y): the scalar f is in minunet/backends/formulas.py, shared with the CPU
Layout   arrays of one shape, seen as flat; prelu and gate: (pixels, channels) and (N, H, W, C), channels contiguous
Threads  flat: a thread takes element t, then every gridsize-th; gate: x channels, y columns, z rows of maps
Memory   every array once; nothing is kept between elements
Limit    DRAM bandwidth: 8 to 12 bytes for one to four operations (float32)
Step     one kernel text for all: Numba closes over the formula and compiles it into the loop
Needs    nothing; 16-byte loads, which the twin has, cannot be written in Numba
Twin     kernels/cuda/pointwise.cu
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda

from minunet.backends import formulas
from minunet.kernels.numba_cuda.reduce import column_sum
from minunet.kernels.numba_cuda.sizes import THREADS

device = cuda.jit(device=True)
_elu, _not_positive, _sigmoid, _tanh, _leaky, _leaky_grad, _slope_grad, _splitmix, _dropout = map(
    device,
    (
        formulas.elu,
        formulas.not_positive,
        formulas.sigmoid,
        formulas.tanh,
        formulas.leaky_relu,
        formulas.leaky_relu_grad,
        formulas.prelu_grad_slope,
        formulas.splitmix,
        formulas.dropout,
    ),
)


def _elu_of(x, alpha):
    return _elu(x, type(x)(math.expm1(_not_positive(x))), alpha)


def _sigmoid_of(x):
    return _sigmoid(x, type(x)(math.exp(-abs(x))))


def _tanh_of(x):
    return _tanh(x, type(x)(math.expm1(-type(x)(2) * abs(x))))


def _unary(formula):
    """The kernel y = formula(x)."""
    f = device(formula)

    @cuda.jit
    def kernel(y, x):
        for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
            y[k] = f(x[k])

    return kernel


def _unary_with(formula):
    """The kernel y = formula(x, p), p a number."""
    f = device(formula)

    @cuda.jit
    def kernel(y, x, p):
        for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
            y[k] = f(x[k], p)

    return kernel


def _binary(formula):
    """The kernel y = formula(a, b)."""
    f = device(formula)

    @cuda.jit
    def kernel(y, a, b):
        for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
            y[k] = f(a[k], b[k])

    return kernel


def _binary_with(formula):
    """The kernel y = formula(a, b, p), p a number."""
    f = device(formula)

    @cuda.jit
    def kernel(y, a, b, p):
        for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
            y[k] = f(a[k], b[k], p)

    return kernel


relu, sigmoid, tanh = _unary(formulas.relu), _unary(_sigmoid_of), _unary(_tanh_of)
leaky_relu, elu, scale = _unary_with(formulas.leaky_relu), _unary_with(_elu_of), _unary_with(formulas.scale)
relu_grad, sigmoid_grad, tanh_grad = map(_binary, (formulas.relu_grad, formulas.sigmoid_grad, formulas.tanh_grad))
leaky_relu_grad, elu_grad = _binary_with(formulas.leaky_relu_grad), _binary_with(formulas.elu_grad)
_sum = device(formulas.add)


@cuda.jit
def add(y, a, b, alpha, beta):
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[k] = _sum(a[k], b[k], alpha, beta)


@cuda.jit
def dropout(y, x, seed, threshold, factor):
    """seed, threshold : uint64; Numba makes float of signed with unsigned, so the index is made unsigned too."""
    for k in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[k] = _dropout(x[k], _splitmix(seed, np.uint64(k)), threshold, factor)


@cuda.jit
def prelu(y, x, slope):
    """y, x (pixels, channels); block (channels, pixels)."""
    c, p0 = cuda.grid(2)
    _, step = cuda.gridsize(2)
    if c < x.shape[1]:
        a = slope[c]  # stays in a register for all pixels
        for p in range(p0, x.shape[0], step):
            y[p, c] = _leaky(x[p, c], a)


@cuda.jit
def prelu_grad(dx, partial, dy, x, slope):
    """dx, and each block's part of dslope: partial (1, blocks, channels)."""
    scratch = cuda.shared.array(THREADS, x.dtype)
    c, p0 = cuda.grid(2)
    _, step = cuda.gridsize(2)
    total = x.dtype.type(0)
    if c < x.shape[1]:
        a = slope[c]
        for p in range(p0, x.shape[0], step):
            dx[p, c] = _leaky_grad(dy[p, c], x[p, c], a)
            total += _slope_grad(dy[p, c], x[p, c])
    total = column_sum(total, scratch)
    if cuda.threadIdx.y == 0 and c < x.shape[1]:
        partial[0, cuda.blockIdx.y, c] = total


@cuda.jit
def gate(y, x, g):
    """y[n,i,j,c] = x[n,i,j,c] g[n,0,0,c]."""
    c0, j0, row0 = cuda.grid(3)
    cs, js, rows = cuda.gridsize(3)
    N, H, W, C = x.shape
    for row in range(row0, N * H, rows):
        n, i = row // H, row % H
        for j in range(j0, W, js):
            for c in range(c0, C, cs):
                y[n, i, j, c] = x[n, i, j, c] * g[n, 0, 0, c]
