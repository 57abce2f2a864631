"""Winograd's arithmetic on small numbers, and its rounding errors: `python -m bench.winograd`.

minunet/backends/cpu/README.md explains what this prints.
"""

from __future__ import annotations

import sys
from fractions import Fraction

import numpy as np

from minunet import cli
from minunet.backends.cpu.winograd_transforms import matrices

SIGNAL, TAPS = (3, 1, 4, 1, 5, 9), (1, 2, -1)  # of the worked example
CHANNELS = (16, 256)
SIDE = 26  # of the image: 24 x 24 results, whole tiles of either size


def example() -> list[str]:
    """F(4, 3) on one row of numbers, with exact fractions."""
    at, g, bt = ([[Fraction(v).limit_denominator(1000) for v in row] for row in m] for m in matrices(4, 3))
    u, v = _times(g, TAPS), _times(bt, SIGNAL)
    products = [p * q for p, q in zip(u, v)]
    direct = [sum(SIGNAL[i + k] * t for k, t in enumerate(TAPS)) for i in range(4)]
    rows = [("d", SIGNAL), ("g", TAPS), ("u = G g", u), ("v = B^T d", v), ("u * v", products)]
    rows += [("y = A^T (u * v)", _times(at, products)), ("directly", direct)]
    return [f"{name:16}{' '.join(f'{value!s:>6}' for value in values)}".rstrip() for name, values in rows]


def _times(matrix: list[list[Fraction]], vector) -> list[Fraction]:
    return [sum(a * b for a, b in zip(row, vector)) for row in matrix]


def text_of(m: int, r: int) -> list[str]:
    """The three matrices, as fractions."""
    lines = []
    for name, matrix in zip(("A^T", "G", "B^T"), matrices(m, r)):
        cells = [[str(Fraction(v).limit_denominator(1000)) for v in row] for row in matrix]
        widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
        for i, row in enumerate(cells):
            numbers = " ".join(c.rjust(w) for c, w in zip(row, widths))
            lines.append(f"{name if i == 0 else '':4} {numbers}")
    return lines


def errors(channels: int, seed: int = 0) -> list[tuple[str, float, float, float, float]]:
    """(algorithm, products a result, largest entry of A, terms over result, float32 error of the kernel).

    Terms over result: the last sum with absolute values, |A^T| |M| |A|, over the sum itself, root mean square each.
    Normal x and w; error: norm of the difference from float64 over norm.
    """
    from numba import get_num_threads

    from minunet.backends.cpu import conv_direct, winograd

    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, SIDE, SIDE, channels), dtype=np.float32)
    w = rng.standard_normal((channels, 3, 3, channels), dtype=np.float32)
    size, threads = SIDE - 2, get_num_threads()
    y = np.empty((1, size, size, channels), np.float32)
    x8, w8 = x[0].astype(np.float64), w.astype(np.float64)
    taps = [x8[u : u + size, v : v + size] @ w8[:, u, v].T for u in range(3) for v in range(3)]
    truth = sum(taps)

    def relative(values: np.ndarray) -> float:
        return float(np.linalg.norm(values.ravel()) / np.linalg.norm(truth.ravel()))

    conv_direct.tap_conv(y, x, w, None, (1, 1), (0, 0, 0, 0), (1, 1), None, False, threads)
    rows = [("direct", 9.0, 1.0, relative(sum(abs(t) for t in taps)), relative(y[0] - truth))]
    for m in (4, 6):
        winograd.conv3x3(y, x, w, None, 0, 0, None, False, threads, m)
        at, g, bt = matrices(m, 3)
        terms = np.empty_like(truth)
        u = np.einsum("pr,orsc,qs->pqoc", g, w8, g, optimize=True)
        for i in range(0, size, m):
            for j in range(0, size, m):
                v = np.einsum("pr,rsc,qs->pqc", bt, x8[i : i + m + 2, j : j + m + 2], bt, optimize=True)
                sums = np.einsum("pqoc,pqc->pqo", u, v, optimize=True)
                terms[i : i + m, j : j + m] = np.einsum("ip,pqo,jq->ijo", abs(at), abs(sums), abs(at), optimize=True)
        products = (m + 2) ** 2 / m**2
        rows.append((f"F({m}x{m}, 3x3)", products, float(abs(at).max()), relative(terms), relative(y[0] - truth)))
    return rows


def table() -> list[str]:
    """The errors of all algorithms, for some numbers of channels."""
    lines = ["algorithm      channels  products a result  largest in A  terms / result  float32 error"]
    for channels in CHANNELS:
        for name, products, entry, terms, error in errors(channels):
            lines.append(f"{name:15}{channels:8}{products:19.2f}{entry:14.0f}{terms:16.1f}{error:15.1e}")
    return lines


def main(argv: list[str] | None = None) -> int:
    """Print the matrices of F(4, 3), the worked example, and the errors."""
    cli.parser("bench.winograd", __doc__.splitlines()[0]).parse_args(argv)
    print("\n".join([*text_of(4, 3), "", *example(), "", *table()]))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
