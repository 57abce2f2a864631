"""How soon training starts: `python -m bench start`, from the command to the end of the first training step.

Once as on a fresh machine (no compiled kernel, no compiled Python file), then again with what that run has kept. On the
real ISBI stack where MINUNET_DATA names its folder, else on sections that are drawn first: no download counts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from bench.load import BUSY, Others
from bench.report import load, machine, store
from minunet.errors import UserError

FILE = "start.json"
REPEATS = 3  # of the later run; what is fresh is so once
RUNS = {
    "U-Net, width 16": "--tile 316",
    "FusionNet, width 16": "--model fusionnet --width 16 --tile 256",
    "SegNet, width 16": "--model segnet --width 16 --tile 256",
}
# Ends without a trace as soon as a step is done, and leaves the time of that.
CHILD = """
import os, sys, time
from minunet import cli, train
from minunet.training import loop

step = loop.Trainer.step

def first(self, batch):
    step(self, batch)
    with open(sys.argv[1], "w") as file:
        file.write(repr(time.time()))
    os._exit(0)

loop.Trainer.step = first
sys.exit(cli.run(train.main, sys.argv[2:]))
"""


def keep() -> None:
    """Measure, print, and keep the result in bench/results."""
    results = measure()
    store(FILE, results)
    print(table(results))


def measure(options: str = "") -> dict[str, Any]:
    """Seconds to the end of the first step of each run, fresh and later; `options` are added to each command."""
    others, rows = Others(), {}
    data = "isbi" if os.environ.get("MINUNET_DATA") else "synthetic"
    for name, command in RUNS.items():
        argv = f"{data} {command} {options}".split()
        with tempfile.TemporaryDirectory(prefix="minunet-") as scratch:
            seconds = [to_first_step(argv, Path(scratch)) for _ in range(1 + REPEATS)]
        rows[name] = {"fresh_seconds": round(seconds[0], 2), "later_seconds": round(median(seconds[1:]), 2)}
    return {"machine": machine(), "data": data, "repeats": REPEATS, "others_share": others.share(), "rows": rows}


def to_first_step(command: list[str], scratch: Path) -> float:
    """Seconds from the start of `minunet train COMMAND` to the end of its first step. Caches lie in `scratch`."""
    own = {"MINUNET_CACHE": str(scratch / "cache"), "PYTHONPYCACHEPREFIX": str(scratch / "python")}
    shared = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "PYTHONDONTWRITEBYTECODE")}
    done = scratch / "done.txt"
    folder = tempfile.mkdtemp(dir=scratch)
    argv = [sys.executable, "-c", CHILD, str(done), *command, "--quiet", "--out", str(Path(folder) / "run")]
    begin = time.time()
    if subprocess.run(argv, env=shared | own).returncode != 0:
        raise UserError("bench start: the run failed; its message is above")
    return float(done.read_text()) - begin


def table(results: dict[str, Any] | None = None) -> str:
    """The result as a table: that in bench/results, or the one given."""
    results = results or load(FILE)
    if results is None:
        return "not measured"
    lines = ["| first training step done | on a fresh machine | later |", "|---|---|---|"]
    for name, r in results["rows"].items():
        lines.append(f"| {name} | {r['fresh_seconds']:.1f} s | {r['later_seconds']:.1f} s |")
    m, share = results["machine"], results["others_share"]
    busy = f" Other programs took {share:.0%} of the processors meanwhile." if share and share > BUSY else ""
    data = "the real ISBI stack" if results["data"] == "isbi" else "a stack that is drawn first"
    where = f"{m['cores']} cores of {m['processor']}; later: median of {results['repeats']}.{busy}"
    return "\n".join([*lines, f"\nFrom the command on, its data read: {data}. {where}"])
