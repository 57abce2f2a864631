"""What parts of U-Net's recipe bring on ISBI 2012: `python -m bench ablation`.

Weight map, elastic deformation and test average, each with and without, three seeds each: 4 x 3 trainings of the same
number of steps, each scored with and without the average. Kept in bench/results/ablation.json, run by run, so that a
call that was stopped goes on where it was. A budget in steps makes every run repeatable and safe from a busy machine:
one runs on each core, with one thread.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from bench.report import RESULTS, cores, load, machine
from minunet.errors import UserError
from minunet.files import atomic_write

FILE = "ablation.json"
STEPS = 1500
WEIGHTS = {"plain": "plain", "paper": "the paper's"}  # --weights, and how the table calls it
ELASTIC = {0: "no", 10: "sd 10 px"}  # --elastic
AVERAGE = {1: "no", 8: "of 8"}  # --average
SEEDS = (0, 1, 2)
SHOWN = ("v_rand", "v_info", "pixel_error", "warping_error")


def run() -> None:
    """Make the runs that are missing."""
    results = load(FILE) or {"steps": STEPS, "machine": machine(), "runs": {}}
    if results["steps"] != STEPS:
        raise UserError(f"{RESULTS / FILE}: has runs of {results['steps']} steps, and these have {STEPS}; remove it")
    todo = [case for case in product(WEIGHTS, ELASTIC, SEEDS) if _key(*case) not in results["runs"]]
    lock = threading.Lock()

    def one(case: tuple[str, int, int]) -> None:
        found = _in_a_child(case)
        with lock:
            results["runs"][_key(*case)] = found
            _keep(results)
            print(f"{len(results['runs'])} of {len(WEIGHTS) * len(ELASTIC) * len(SEEDS)}: {_key(*case)}", flush=True)

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(one, todo))


def _key(weights: str, elastic: int, seed: int) -> str:
    return f"--weights {weights} --elastic {elastic} --seed {seed}"


def _in_a_child(case: tuple[str, int, int]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="minunet-") as scratch:
        command = [sys.executable, "-m", "bench.ablation", *map(str, case), scratch]
        done = subprocess.run(command, stdout=subprocess.DEVNULL)
        if done.returncode != 0:
            raise UserError(f"bench ablation: the run {_key(*case)} failed; its message is above")
        return json.loads((Path(scratch) / "scores.json").read_text(encoding="utf-8"))


def _keep(results: dict[str, Any]) -> None:
    results["runs"] = dict(sorted(results["runs"].items()))
    with atomic_write(RESULTS / FILE) as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def child(weights: str, elastic: str, seed: str, scratch: str) -> int:
    """One training, scored with each average: scores.json in `scratch`."""
    import minunet as mu
    from minunet import metrics, train
    from minunet.data import load_isbi, split
    from minunet.training.inputs import prepare

    data = load_isbi(None)
    if data.synthetic:
        raise UserError("bench ablation: the real stack is not here; bring it (MINUNET_DATA)")
    folder = Path(scratch) / "run"
    options = f"--steps {STEPS} --threads 1 --validate 1 --weights {weights} --elastic {elastic} --seed {seed} --quiet"
    if train.main(["isbi", *options.split(), "--out", str(folder)]) != 0:
        return 1
    parts = split(len(data.images))
    images = prepare(data, "section", *parts)[1]
    model = mu.checkpoint.load(folder / "checkpoint.safetensors").model
    model.eval()
    scores = {}
    for average in AVERAGE:
        p = [mu.predict(model, image, average=average)[..., -1] for image in images]
        found = metrics.isbi_scores(data.labels[parts[1]], np.stack(p))
        scores[str(average)] = {name: asdict(score) for name, score in found.items()}
    (Path(scratch) / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    return 0


def table() -> str:
    """Mean and sample sd over the seeds, for every combination."""
    results = load(FILE)
    if results is None:
        return "not measured"
    rows = [
        "| weight map | elastic deformation | test average | V_Rand | V_Info | pixel error | warping error |",
        "|---|---|---|---|---|---|---|",
    ]
    for weights, elastic, average in product(WEIGHTS, ELASTIC, AVERAGE):
        runs = [results["runs"].get(_key(weights, elastic, seed)) for seed in SEEDS]
        found = [run[str(average)] for run in runs if run is not None]
        cells = [_spread([run[name]["value"] for run in found], name) for name in SHOWN]
        rows.append(f"| {WEIGHTS[weights]} | {ELASTIC[elastic]} | {AVERAGE[average]} | {' | '.join(cells)} |")
    return "\n".join(
        [
            *rows,
            f"\nU-Net, width 16, {results['steps']:,} steps each, seeds {', '.join(map(str, SEEDS))}: mean ± sd on"
            f" sections 25 to 29. One thread of {results['machine']['processor']}.",
            f"\n    minunet train isbi --steps {results['steps']} --weights paper --elastic 10 --average 8 --seed 0",
        ]
    )


def _spread(values: list[float], name: str) -> str:
    digits = 6 if name == "warping_error" else 4
    if len(values) < 2:
        return "not measured"
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"


if __name__ == "__main__":
    from minunet import cli

    sys.exit(cli.run(lambda argv=None: child(*sys.argv[1:])))
