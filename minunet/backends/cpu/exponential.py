"""exp(x) for compiled loops that are to become vector instructions."""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import overload

from minunet.backends.cpu.loops import SERIAL

F, D = np.float32, np.float64
# ln 2 in two parts: k times the first is exact for every k that occurs.
_LN2_D = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")
_LN2_F = F(0.693359375), F(-2.12194440e-4)
_LOG2E_F, _ROUND_F, _LOWEST_F = F(1.0 / math.log(2.0)), F(1.5 * 2**23), F(-87.0)
_LOG2E_D, _ROUND_D, _LOWEST_D = 1.0 / math.log(2.0), 1.5 * 2.0**52, -708.0
_SERIES_F = tuple(F(1.0 / math.factorial(n)) for n in range(7, 1, -1))
_SERIES_D = tuple(1.0 / math.factorial(n) for n in range(13, 1, -1))


def exp_parts(x):
    """(s, q) with exp(x) = s + s q and exp(x) - 1 = (s - 1) + s q, for x <= 0 or NaN, in the precision of x.

    x = k ln 2 + r, |r| <= ln(2) / 2; s = 2^k, and 0 where it would not be a normal number; q = exp(r) - 1 by its
    series to r^13 (float32: r^7). Adding 1.5 * 2^52 leaves round(x / ln 2) = k in the low bits of the mantissa.
    There is no branch and no call, so loops around it become vector instructions, which a loop over libm's does not.
    """
    raise NotImplementedError("exp_parts is for compiled code")


@overload(exp_parts, jit_options=SERIAL)
def _exp_parts(x):
    return _exp_parts_single if x == types.float32 else _exp_parts_double


def _exp_parts_double(x):
    t = (_LOWEST_D if x < _LOWEST_D else x) * _LOG2E_D + _ROUND_D
    k = t - _ROUND_D
    r = ((_LOWEST_D if x < _LOWEST_D else x) - k * _LN2_D[0]) - k * _LN2_D[1]
    q = _SERIES_D[0]
    for n in range(1, 12):
        q = q * r + _SERIES_D[n]
    bits = (D(t).view(np.int64) + np.int64(1023)) << np.int64(52)
    return (0.0 if x < _LOWEST_D else np.int64(bits).view(np.float64)), q * r * r + r


def _exp_parts_single(x):
    t = (_LOWEST_F if x < _LOWEST_F else x) * _LOG2E_F + _ROUND_F
    k = t - _ROUND_F
    r = ((_LOWEST_F if x < _LOWEST_F else x) - k * _LN2_F[0]) - k * _LN2_F[1]
    q = _SERIES_F[0]
    for n in range(1, 6):
        q = q * r + _SERIES_F[n]
    bits = np.int32(np.int32(F(t).view(np.int32)) + np.int32(127)) << np.int32(23)
    return (F(0) if x < _LOWEST_F else np.int32(bits).view(np.float32)), q * r * r + r
