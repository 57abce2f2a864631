"""`python -m bench`: time minunet against PyTorch on this machine (`pip install -e ".[bench]"`)."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

with contextlib.suppress(ImportError):  # first: its threads shall wait as PyTorch chose, not as minunet.jit chooses
    import torch  # noqa: F401

from bench import isbi, report
from minunet import cli
from minunet.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """The command. Returns 0; errors are raised."""
    p = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    what = "time U-Net; keep a finished run on ISBI as README's result; only rewrite README's tables"
    p.add_argument("what", nargs="?", choices=("unet", "isbi", "report"), default="unet", help=what)
    p.add_argument("--run", metavar="DIR", default="runs/isbi", help="isbi: the run's output folder")
    p.add_argument("--cases", default="width 16, 316 tile", help='names with ";" between, or "all"')
    p.add_argument("--rounds", type=int, help="repeats of each contestant (default: by case)")
    p.add_argument("--out", metavar="DIR", help="write results.json there; bench/results is what README's tables show")
    p.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = p.parse_args(argv)
    if args.what == "isbi":
        isbi.keep(args.run)
    if args.what in ("isbi", "report"):
        report.rewrite_readme()
        return 0
    if find_spec("torch") is None:
        raise UserError('bench: PyTorch, the peer, is not installed; pip install -e ".[bench]"')

    from bench import unet

    names = list(unet.CASES) if args.cases == "all" else [n.strip() for n in args.cases.split(";")]
    unknown = [n for n in names if n not in unet.CASES]
    if unknown:
        raise UserError(f"--cases {unknown[0]}: is not known; there are: {'; '.join(unet.CASES)}")
    results = {"machine": report.machine(), "versions": _versions(), "unet": unet.bench(names, args.rounds)}
    print(report.speed(results))
    if args.out is not None:
        folder = Path(args.out)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "cpu.json"
        file.write_text(json.dumps(results, indent=2) + "\n")
        print(f"written: {file}")
    return 0


def _versions() -> dict[str, str]:
    found = {}
    for name in ("minunet", "numpy", "numba", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


if __name__ == "__main__":
    sys.exit(cli.run(main))
