"""`python -m bench gpu --out DIR`: on a machine with a GPU, check every kernel, then time it; in at most 8 minutes.

Sections run one after the other, each with a share of the time; what fails is written down and the next one starts.
Ends by writing DIR/results.json and DIR/results.txt. Needs no network; PyTorch, where it is, is the peer.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import gpu_checks, gpu_layers, gpu_networks, gpu_numba, gpu_resources, gpu_table
from bench.gpu_device import Clock, Device
from bench.report import machine
from minunet import backends, cli
from minunet.errors import UserError
from minunet.files import atomic_write

SECONDS = 440.0  # in all: 8 minutes, less what starting and one slow call may take
Section = tuple[str, Callable[[Device, Clock], Any], float]
SECTIONS: tuple[Section, ...] = (  # name, what runs, its share of the time; what one leaves, the next may use
    ("conformance", gpu_checks.conformance, 0.15),
    ("ladder", gpu_checks.ladder, 0.11),
    ("network gradients", gpu_checks.network_gradients, 0.03),
    ("training run", gpu_checks.training_run, 0.04),
    ("layers", gpu_layers.measure, 0.25),
    ("memory-bound", gpu_layers.memory_bound, 0.05),
    ("networks", gpu_networks.measure, 0.14),
    ("numba", gpu_numba.measure, 0.12),
    ("sanitizer", gpu_checks.sanitizer, 0.08),
    ("resources", gpu_resources.measure, 0.03),
)


def run(device: Device, seconds: float) -> dict[str, Any]:
    """All sections: {"device", "machine", "sections": {name: {"result" or "failed", "seconds"}}}."""
    whole, promised = Clock(seconds), 0.0
    results: dict[str, Any] = {"device": device.describe(), "machine": machine(), "sections": {}}
    for name, section, share in SECTIONS:
        promised += share * seconds
        print(f"{whole.spent():6.0f} s  {name}", file=sys.stderr, flush=True)
        start = time.monotonic()
        try:
            device.wait()
            entry = {"result": section(device, Clock(max(1.0, promised - whole.spent())))}
            device.wait()
        except Exception as error:  # the rest of the sections must still run
            traceback.print_exc()
            entry = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
        results["sections"][name] = {**entry, "seconds": round(time.monotonic() - start, 1)}
    return results


def failures(results: dict[str, Any]) -> list[str]:
    """One line for each check that failed, wherever it stands in the results."""
    found = []

    def search(where: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key == "failed" and inner:
                    said = inner.items() if isinstance(inner, dict) else [("", inner)]
                    found.extend(f"{where}: {name} {text}".replace("  ", " ") for name, text in said)
                elif key == "wrong":
                    found.append(f"{where}: {inner}")
                else:
                    search(f"{where}, {key}" if where else str(key), inner)
        elif isinstance(value, str) and value.startswith("failed: "):
            found.append(f"{where}: {value}")

    search("", results["sections"])
    return found


def write(results: dict[str, Any], folder: Path) -> None:
    contents = {"results.json": json.dumps(results, indent=1) + "\n", "results.txt": gpu_table.text(results)}
    for name, content in contents.items():
        with atomic_write(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """The command. Returns 0, or 1 where a check failed; raises UserError where there is no GPU."""
    p = argparse.ArgumentParser(
        prog="python -m bench gpu", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    p.add_argument("--out", metavar="DIR", default="gpu-results", help="where results.json and results.txt are written")
    p.add_argument("--dry", action="store_true", help="run it all without a GPU, on tiny sizes; nothing is timed")
    p.add_argument("--seconds", type=float, default=SECONDS, help="time for all sections together")
    p.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = p.parse_args(argv)
    backend = "cuda_host" if args.dry else "cuda"
    if backend not in backends.available():
        remedy = "" if args.dry else "; --dry runs the command without one"
        raise UserError(f"bench gpu: {backends.get(backend).reason()}{remedy}")
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    results = run(Device(args.dry), args.seconds)
    write(results, folder)
    print(gpu_table.text(results))
    print(f"written: {folder / 'results.json'}, {folder / 'results.txt'}")
    failed = failures(results)
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
