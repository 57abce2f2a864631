"""Where a network's time goes, kernel by kernel: `python -m bench.profile segnet --width 16 --size 180x240`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

import minunet as mu
from bench.networks import picture
from minunet import cli
from minunet.errors import UsageError

Times = dict[str, list[float]]  # seconds of each call


@contextmanager
def kernels() -> Iterator[Times]:
    """Inside, the time of every kernel on the CPU is noted, under its name and the shapes of its first arrays."""
    table, times = mu.backends.get("cpu").kernels, Times()
    before = dict(table)

    def timed(name: str, *arrays: Any, **options: Any) -> None:
        start = time.perf_counter()
        before[name](*arrays, **options)
        passed = time.perf_counter() - start
        shapes = ["x".join(map(str, a.shape)) for a in arrays[:3] if a is not None]
        times.setdefault(" ".join([name, *shapes]), []).append(passed)

    table.update({name: partial(timed, name) for name in before})
    try:
        yield times
    finally:
        table.update(before)


def measure(model: Any, size: tuple[int, int], batch: int, training: bool, rounds: int = 3) -> tuple[float, Times]:
    """Seconds of a training step or an inference (mean), and of its kernels' calls (first round); after a warm-up."""
    x = picture(size, model.channels[0], batch)
    optimizer = mu.optim.Adam(model.parameters(), lr=1e-4)
    y = np.zeros((batch, *model.output_size(*size)), np.int32)

    def step() -> None:
        optimizer.zero_grad()
        mu.ops.softmax_cross_entropy(model(mu.Tensor(x)), y).backward()
        optimizer.step()

    def inference() -> None:
        with mu.no_grad():
            model(mu.Tensor(x))

    call = step if training else inference
    model.train(training)
    call()
    with kernels() as times:
        start = time.perf_counter()
        for _ in range(rounds):
            call()
        return (time.perf_counter() - start) / rounds, {k: v[: len(v) // rounds] for k, v in times.items()}


def table(seconds: float, times: Times, rows: int) -> list[str]:
    """Every kernel, then the calls by shapes that took longest; milliseconds, share, number of calls."""
    kinds: Times = {}
    for name, found in times.items():
        kinds.setdefault(name.split()[0], []).extend(found)
    inside = sum(map(sum, kinds.values()))
    lines = [f"{1e3 * seconds:.1f} ms, of which {1e3 * inside:.1f} ms in kernels"]
    for entries, most in ((kinds, len(kinds)), (times, rows)):
        for name, found in sorted(entries.items(), key=lambda e: -sum(e[1]))[:most]:
            lines.append(f"{1e3 * sum(found):9.2f} ms {sum(found) / seconds:6.1%} {len(found):5} x  {name}")
        lines.append("")
    return lines[:-1]


def main(argv: list[str] | None = None) -> int:
    """Print the table of one network."""
    p = cli.parser("bench.profile", __doc__.split(":")[0])
    p.add_argument("network", choices=mu.models.names(), metavar="NETWORK", help="a name of `minunet models`")
    p.add_argument("--width", type=int, default=16, help="of its first level")
    p.add_argument("--size", default="256x256", metavar="HxW", help="of the images")
    p.add_argument("--batch", type=int, default=1, help="images at a time")
    p.add_argument("--inference", action="store_true", help="instead of a training step")
    p.add_argument("--rows", type=int, default=20, help="lines of calls by their shapes")
    args = p.parse_args(argv)
    try:
        h, w = (int(n) for n in args.size.split("x"))
    except ValueError:
        raise UsageError(f"--size {args.size}: expected HxW, e.g. 180x240") from None
    model = mu.models.build(args.network, width=args.width)
    print("\n".join(table(*measure(model, (h, w), args.batch, not args.inference), args.rows)))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
