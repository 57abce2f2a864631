"""`python -m bench`: time minunet against its peers on this machine (`pip install -e ".[bench]"`)."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from pathlib import Path
from typing import Any

# First: their threads shall wait as they chose, not as minunet.jit chooses. One that is broken is reported later.
with contextlib.suppress(ImportError, OSError):
    import torch  # noqa: F401
with contextlib.suppress(ImportError, OSError):
    import ncnn  # noqa: F401

from bench import ablation, isbi, report, scores, start, trained
from minunet import cli
from minunet.errors import UsageError
from minunet.files import atomic_write

WHAT = ("cpu", "isbi", "train", "ablation", "scores", "start", "report")


def main(argv: list[str] | None = None) -> int:
    """The command. Returns 0, or 1 where a result of ours was wrong, and so not timed; errors are raised."""
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == ["gpu"]:  # has options of its own
        from bench import gpu

        return gpu.main(given[1:])
    p = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    what = (
        "measure on the CPU; keep a finished run on ISBI as README's result; train by the recipes of bench/trained.py"
    )
    what += " and keep the results; what the parts of U-Net's recipe bring; how long scores and weight"
    what += " maps take; how soon training starts; only rewrite the tables of README and docs;"
    what += " `gpu`, see `python -m bench gpu --help`"
    p.add_argument("what", nargs="?", choices=WHAT, default="cpu", help=what)
    p.add_argument("names", nargs="*", metavar="NAME", help="train: the recipes (default: all)")
    p.add_argument("--run", metavar="DIR", default="runs/isbi", help="isbi: the run's output folder")
    p.add_argument("--quick", action="store_true", help="cpu: under two minutes, without the wide network")
    p.add_argument("--out", metavar="DIR", help="cpu: write cpu.json there; README shows that in bench/results")
    p.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = p.parse_args(argv)
    if args.what == "isbi":
        isbi.keep(args.run)
    if args.names and args.what != "train":
        raise UsageError(f"{args.what} takes no names; {' '.join(args.names)} is too much")
    if args.what == "train":
        trained.run(args.names)
    if args.what == "ablation":
        ablation.run()
    if args.what == "scores":
        scores.keep()
    if args.what == "start":
        start.keep()
    if args.what != "cpu":
        report.rewrite_readme()
        return 0

    from bench import cpu

    if args.quick and args.out is not None and Path(args.out).resolve() == report.RESULTS:
        raise UsageError("--quick leaves out what README shows, so it does not write there; choose another --out")
    if args.out is not None:  # before minutes of work
        Path(args.out).mkdir(parents=True, exist_ok=True)
    results, wrong = cpu.measure(args.quick)
    print(report.speed(results))
    if args.out is not None:
        file = Path(args.out) / "cpu.json"
        with atomic_write(file) as temporary:
            temporary.write_text(dumps(results), encoding="utf-8")
        print(f"written: {file}")
        if file.resolve().parent == report.RESULTS:
            report.rewrite_readme()
            print("README's tables are up to date")
    for text in wrong:
        print(f"error: not timed, {text}", file=sys.stderr)
    return 1 if wrong else 0


def dumps(results: dict[str, Any]) -> str:
    """JSON with each innermost object on a line of its own."""
    return re.sub(r"\{[^{}]*\}", lambda m: " ".join(m.group().split()), json.dumps(results, indent=1)) + "\n"


if __name__ == "__main__":
    sys.exit(cli.run(main))
