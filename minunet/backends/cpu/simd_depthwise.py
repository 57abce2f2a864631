"""Register blocks of the depthwise convolution: vectors along channels, all operands straight from NHWC memory."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from .simd import I64, MAX_ROWS, PTR, Emit, function, kernel

MAX_PIXELS = min(8, MAX_ROWS)  # 8 independent multiply-adds hide their latency of 4 cycles on two units


def _choose(e: Emit, count: ir.Value, most: int, name: str, args: tuple, body: Callable) -> None:
    """Call the variant of `body(emit, count, *args)` for this count, 1 .. most."""
    b = e.b
    after, wrong = b.append_basic_block("after"), b.append_basic_block("wrong")
    switch = b.switch(count, wrong)
    for rows in range(1, most + 1):

        def variant(emit, *a, rows=rows):
            body(emit, rows, *a)

        fn = function(b.module, e.elem, f"{name}_{rows}", len(args), variant)
        block = b.append_basic_block(f"case_{rows}")
        switch.add_case(e.int(rows), block)
        b.position_at_end(block)
        b.call(fn, args)
        b.branch(after)
    b.position_at_end(wrong)
    b.unreachable()
    b.position_at_end(after)


def _each_vector(e: Emit, channels: ir.Value, body: Callable) -> None:
    """body(byte offset, mask) for each vector of a pixel; only the last one, if it is short, has a mask."""
    build, step = e.b, e.lanes * e.size
    whole = build.sdiv(channels, e.int(e.lanes))
    e.loop(whole, lambda k: body(build.mul(k, e.int(step)), None))
    rest = build.sub(channels, build.mul(whole, e.int(e.lanes)))
    with build.if_then(build.icmp_signed(">", rest, e.int(0))):
        body(build.mul(whole, e.int(step)), e.mask(rest))


def _convolve_block(
    e, pixels, x, x_step, x_row, x_col, w, w_row, w_col, n_rows, n_cols, y, y_step, channels, bias, lowest
):  # fmt: skip
    build = e.b
    floor = e.broadcast(e.pointer(lowest))
    acc = [e.variable() for _ in range(pixels)]
    x_line, w_line, x_at, w_at = (e.variable(PTR) for _ in range(4))
    # A block reads a vector of each of many pixels, which no prefetcher of the hardware sees through. So each vector
    # asks for what the next block is the first to read, its last line of taps, and for where that will write: about a
    # third less time where a map of 128 channels or more does not fit the L2 cache.
    last = build.add(build.mul(x_row, build.sub(n_rows, e.int(1))), build.mul(x_col, build.sub(n_cols, e.int(1))))
    x_next, y_next = build.add(last, build.mul(x_step, e.int(pixels))), build.mul(y_step, e.int(pixels))
    x_shift, y_shift = ([build.mul(step, e.int(r)) for r in range(pixels)] for step in (x_step, y_step))

    def vector(offset, mask):
        start = e.load(e.at(e.pointer(bias), offset), mask)
        for slot in acc:
            build.store(start, slot)
        build.store(e.at(e.pointer(x), offset), x_line)
        build.store(e.at(e.pointer(w), offset), w_line)

        def line(_):
            build.store(e.get(x_line, PTR), x_at)
            build.store(e.get(w_line, PTR), w_at)

            def tap(_):
                px, pw = e.get(x_at, PTR), e.get(w_at, PTR)
                weights = e.load(pw, mask)
                for slot, shift in zip(acc, x_shift):
                    build.store(e.fma(e.load(e.at(px, shift), mask), weights, e.get(slot)), slot)
                build.store(e.at(px, x_col), x_at)
                build.store(e.at(pw, w_col), w_at)

            e.loop(n_cols, tap)
            build.store(e.at(e.get(x_line, PTR), x_row), x_line)
            build.store(e.at(e.get(w_line, PTR), w_row), w_line)

        for shift in x_shift:
            e.prefetch(e.at(e.at(e.at(e.pointer(x), offset), x_next), shift))
        for shift in y_shift:
            e.prefetch(e.at(e.at(e.at(e.pointer(y), offset), y_next), shift))
        e.loop(n_rows, line)
        to = e.at(e.pointer(y), offset)
        for slot, shift in zip(acc, y_shift):
            v = e.get(slot)
            e.store(build.select(build.fcmp_ordered("<", v, floor), floor, v), e.at(to, shift), mask)

    _each_vector(e, channels, vector)


def _convolve(e, pixels, *args):
    _choose(e, pixels, MAX_PIXELS, "depthwise", args, _convolve_block)


# convolve(t, (pixels, x, x_step, x_row, x_col, w, w_row, w_col, n_rows, n_cols, y, y_step, channels, bias, lowest)):
#   Y[r, c] = max(lowest, bias[c] + sum over u < n_rows, v < n_cols of
#                 x[r * x_step + u * x_row + v * x_col + c] * w[u * w_row + v * w_col + c])
#   for r < pixels <= MAX_PIXELS, c < channels; Y's rows are y_step apart. Steps are in bytes, `lowest` is an address.
convolve = kernel("depthwise", 15, _convolve)


def _correlate_block(e, taps, table, x, x_step, dy, dy_step, pixels, sums, channels):
    build = e.b
    acc = [e.variable() for _ in range(taps)]
    x_at, dy_at = e.variable(PTR), e.variable(PTR)
    entries = e.pointer(table)
    x_shift, out_shift = (
        [build.load(e.at(entries, 16 * t + 8 * k), typ=I64, align=8) for t in range(taps)] for k in (0, 1)
    )

    def vector(offset, mask):
        to = e.at(e.pointer(sums), offset)
        for slot, shift in zip(acc, out_shift):
            build.store(e.load(e.at(to, shift), mask), slot)
        build.store(e.at(e.pointer(x), offset), x_at)
        build.store(e.at(e.pointer(dy), offset), dy_at)

        def pixel(_):
            px, pdy = e.get(x_at, PTR), e.get(dy_at, PTR)
            grad = e.load(pdy, mask)
            for slot, shift in zip(acc, x_shift):
                build.store(e.fma(e.load(e.at(px, shift), mask), grad, e.get(slot)), slot)
            build.store(e.at(px, x_step), x_at)
            build.store(e.at(pdy, dy_step), dy_at)

        e.loop(pixels, pixel)
        for slot, shift in zip(acc, out_shift):
            e.store(e.get(slot), e.at(to, shift), mask)

    _each_vector(e, channels, vector)


def _correlate(e, taps, *args):
    _choose(e, taps, MAX_ROWS, "depthwise_grad_w", args, _correlate_block)


# correlate(t, (taps, table, x, x_step, dy, dy_step, pixels, sums, channels)):
#   sums[table[k, 1] + c] += sum over j < pixels of dy[j * dy_step + c] * x[table[k, 0] + j * x_step + c]
#   for k < taps <= MAX_ROWS, c < channels. Steps and the int64 table (taps, 2) in bytes.
correlate = kernel("depthwise_grad_w", 9, _correlate)
