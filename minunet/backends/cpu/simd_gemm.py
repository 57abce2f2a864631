"""Register-tiled products of small matrices: the kernel below every convolution on the CPU.

A block of `mr` rows by one or two vectors of C stays in registers while k runs; each step broadcasts mr elements of A,
loads one row of B and does mr multiply-adds per vector. With 12 rows and two AVX-512 vectors that is 24 multiply-adds
for 14 loads, so the multiply units bind and not the load ports. Every row count up to MAX_ROWS has its own code, so
that 22 rows run as 11 + 11 and not as 14 + 8.
"""

from __future__ import annotations

from itertools import chain

from llvmlite import ir

from minunet.jit import njit

from .simd import I64, MAX_ROWS, MAX_VECTORS, PTR, Emit, function, kernel

RELU, ACCUMULATE = 1, 2  # flags of matmul
LINE = 64  # bytes of a cache line, or half of one


def _choose(e: Emit, mr: ir.Value, nv: ir.Value, name: str, args: tuple, body) -> None:
    """Call the variant of `body(emit, rows, vectors, *args)` for these block sizes."""
    b = e.b
    after = b.append_basic_block("after")
    wrong = b.append_basic_block("wrong")
    switch = b.switch(b.add(mr, b.mul(nv, e.int(64))), wrong)
    for vectors in range(1, MAX_VECTORS + 1):
        for rows in range(1, MAX_ROWS + 1):

            def variant(emit, *a, rows=rows, vectors=vectors):
                body(emit, rows, vectors, *a)

            fn = function(b.module, e.elem, f"{name}_{rows}x{vectors}", len(args), variant)
            block = b.append_basic_block(f"case_{rows}x{vectors}")
            switch.add_case(e.int(rows + 64 * vectors), block)
            b.position_at_end(block)
            b.call(fn, args)
            b.branch(after)
    b.position_at_end(wrong)
    b.unreachable()
    b.position_at_end(after)


def _row_pointers(e: Emit, first: ir.Value, stride: ir.Value, rows: int) -> list[ir.Value]:
    return [e.at(first, e.b.mul(stride, e.int(r))) for r in range(rows)]


def _rank_one(e: Emit, acc: list[list[ir.Value]], a: list[ir.Value], b_row: ir.Value) -> None:
    """acc[r][v] += a[r] * B[k, vector v]."""
    vectors = [e.load(e.at(b_row, v * e.lanes * e.size)) for v in range(len(acc[0]))]
    for r, pointer in enumerate(a):
        x = e.broadcast(pointer)
        for v, slot in enumerate(acc[r]):
            e.b.store(e.fma(x, vectors[v], e.get(slot)), slot)


def _matmul_block(
    e, rows, vectors, a, a_row, table, segments, length, b, c, c_row, columns, bias, flags, ahead=None, ahead_row=None
):
    build, step = e.b, vectors * e.lanes * e.size
    zero = e.splat(0.0)
    acc = [[e.variable(init=zero) for _ in range(vectors)] for _ in range(rows)]
    panel = e.variable(PTR, e.pointer(b))
    table = e.pointer(table)
    pointers = _row_pointers(e, e.pointer(a), a_row, rows)

    def multiply(start, count):
        def inner(k):
            at_k = build.add(start, build.mul(k, e.int(e.size)))
            row = e.get(panel, PTR)
            _rank_one(e, acc, [e.at(p, at_k) for p in pointers], row)
            build.store(e.at(row, step), panel)

        e.loop(count, inner)

    def fetch_and_multiply(start, count):
        per_line = LINE // e.size
        fetched = e.at(e.pointer(a), ahead)

        def line(i):
            first, rest = build.add(start, build.mul(i, e.int(LINE))), build.sub(count, build.mul(i, e.int(per_line)))
            for pointer in _row_pointers(e, fetched, ahead_row, rows):
                e.prefetch(e.at(pointer, first), level=2)
            multiply(first, build.select(build.icmp_signed("<", rest, e.int(per_line)), rest, e.int(per_line)))

        e.loop(build.sdiv(build.add(count, e.int(per_line - 1)), e.int(per_line)), line)

    def segment(s):
        offset = build.load(e.at(table, build.mul(s, e.int(8))), typ=I64, align=8)
        (multiply if ahead is None else fetch_and_multiply)(offset, length)

    e.loop(segments, segment)

    def finish(masks):
        with build.if_then(build.icmp_signed("!=", build.and_(flags, e.int(ACCUMULATE)), e.int(0))):
            for r, pointer in enumerate(_row_pointers(e, e.pointer(c), c_row, rows)):
                for v, slot in enumerate(acc[r]):
                    old = e.load(e.at(pointer, v * e.lanes * e.size), masks[v])
                    build.store(build.fadd(e.get(slot), old), slot)
        with build.if_then(build.icmp_signed("!=", bias, e.int(0))):
            for v in range(vectors):
                add = e.load(e.at(e.pointer(bias), v * e.lanes * e.size), masks[v])
                for r in range(rows):
                    build.store(build.fadd(e.get(acc[r][v]), add), acc[r][v])
        with build.if_then(build.icmp_signed("!=", build.and_(flags, e.int(RELU)), e.int(0))):
            for slot in chain.from_iterable(acc):
                build.store(e.relu(e.get(slot)), slot)
        for r, pointer in enumerate(_row_pointers(e, e.pointer(c), c_row, rows)):
            for v, slot in enumerate(acc[r]):
                e.store(e.get(slot), e.at(pointer, v * e.lanes * e.size), masks[v])

    _full_or_masked(e, vectors, columns, finish)


def _full_or_masked(e, vectors, columns, finish) -> None:
    """Unmasked code for whole vectors; a mask only on the last columns."""
    build = e.b
    with build.if_else(build.icmp_signed(">=", columns, e.int(vectors * e.lanes))) as (whole, part):
        with whole:
            finish([None] * vectors)
        with part:
            finish([e.mask(build.sub(columns, e.int(v * e.lanes))) for v in range(vectors)])


def _matmul(e, mr, nv, *args):
    _choose(e, mr, nv, "matmul", args, _matmul_block)


def _matmul_ahead(e, mr, nv, *args):
    _choose(e, mr, nv, "matmul_ahead", args, _matmul_block)


# matmul(t, (mr, nv, a, a_row, table, segments, length, b, c, c_row, columns, bias, flags)):
#   C[r, q] = act(bias[q] + sum over segments s and k < length of A[r * a_row + table[s] + k] * B[s * length + k, q])
#   for r < mr <= MAX_ROWS and q < columns <= nv vectors. A's strides, c_row and the int64 table are in bytes;
#   B is a packed panel of nv whole vectors a row; bias may be 0. flags: RELU, ACCUMULATE (add to C first).
# matmul_ahead(t, (..., flags, ahead, ahead_row)): the same, and meanwhile the rows that begin `ahead` bytes after A,
#   ahead_row apart, are brought to L2, as far as those of A are read: A of a later call, or what it will be made of,
#   where that comes from memory. They need not be valid memory. Costs 3 % where they were in L2 anyway.
matmul = kernel("matmul", 13, _matmul)
matmul_ahead = kernel("matmul_ahead", 15, _matmul_ahead)


def _outer_block(e, rows, vectors, a, a_col, a_row, b, b_col, b_row, n_rows, n_cols, c, c_row, columns, flags):
    build = e.b
    zero = e.splat(0.0)
    acc = [[e.variable(init=zero) for _ in range(vectors)] for _ in range(rows)]
    a_line, b_line = e.variable(PTR, e.pointer(a)), e.variable(PTR, e.pointer(b))

    def sweep(masks):
        def line(i):
            del i
            a_at, b_at = e.variable(PTR), e.variable(PTR)
            build.store(e.get(a_line, PTR), a_at)
            build.store(e.get(b_line, PTR), b_at)

            def inner(j):
                del j
                pa, pb = e.get(a_at, PTR), e.get(b_at, PTR)
                row = [e.load(e.at(pb, v * e.lanes * e.size), masks[v]) for v in range(vectors)]
                for r in range(rows):
                    x = e.broadcast(e.at(pa, r * e.size))
                    for v in range(vectors):
                        build.store(e.fma(x, row[v], e.get(acc[r][v])), acc[r][v])
                build.store(e.at(pa, a_col), a_at)
                build.store(e.at(pb, b_col), b_at)

            e.loop(n_cols, inner)
            build.store(e.at(e.get(a_line, PTR), a_row), a_line)
            build.store(e.at(e.get(b_line, PTR), b_row), b_line)

        e.loop(n_rows, line)
        with build.if_then(build.icmp_signed("!=", build.and_(flags, e.int(ACCUMULATE)), e.int(0))):
            for r, pointer in enumerate(_row_pointers(e, e.pointer(c), c_row, rows)):
                for v, slot in enumerate(acc[r]):
                    old = e.load(e.at(pointer, v * e.lanes * e.size), masks[v])
                    build.store(build.fadd(e.get(slot), old), slot)
        for r, pointer in enumerate(_row_pointers(e, e.pointer(c), c_row, rows)):
            for v, slot in enumerate(acc[r]):
                e.store(e.get(slot), e.at(pointer, v * e.lanes * e.size), masks[v])

    _full_or_masked(e, vectors, columns, sweep)


def _outer(e, mr, nv, *args):
    _choose(e, mr, nv, "outer", args, _outer_block)


# outer(t, (mr, nv, a, a_col, a_row, b, b_col, b_row, n_rows, n_cols, c, c_row, columns, flags)):
#   C[r, q] = sum over i < n_rows, j < n_cols of A[i * a_row + j * a_col + r] * B[i * b_row + j * b_col + q]
#   for r < mr <= MAX_ROWS and q < columns <= nv vectors; strides in bytes, columns beyond the last are not read.
outer = kernel("outer", 14, _outer)


@njit(inline="always")
def split(total, most):
    """Number of nearly equal parts, none larger than `most`."""
    return (total + most - 1) // most


@njit(inline="always")
def part(total, parts, i):
    """Start of part i of `total`; sizes differ by at most one."""
    return total * i // parts
