"""What parts of U-Net's recipe bring on ISBI 2012: `python -m bench ablation`.

Weight map, elastic deformation and test average, each with and without, and images moved to where the masks lie or not:
5 x 3 trainings (three seeds) of the same number of steps, each scored with and without the average. Kept in
bench/results/ablation.json, run by run, so that a call that was stopped goes on where it was. A budget in steps makes
every run repeatable and safe from a busy machine: one runs on each core, with one thread.
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
from minunet.data import write_tiff
from minunet.errors import UserError
from minunet.files import atomic_write

FILE = "ablation.json"
STEPS = 1500
WEIGHTS = {"plain": "plain", "paper": "the paper's"}  # --weights, and how the table calls it
ELASTIC = {0: "no", 10: "sd 10 px"}  # --elastic
AVERAGE = {1: "no", 8: "of 8"}  # --average
ALIGN = {0: "no", 1: "yes"}  # --align
RECIPES = (*product(WEIGHTS, ELASTIC, (0,)), ("plain", 0, 1))
SEEDS = (0, 1, 2)
SHOWN = ("v_rand", "v_info", "pixel_error", "warping_error")
Recipe = tuple[str, int, int]  # weights, elastic, align
Case = tuple[Recipe, int]  # and seed


def run() -> None:
    """Make the runs that are missing."""
    results = load(FILE) or {"steps": STEPS, "machine": machine(), "runs": {}}
    if results["steps"] != STEPS:
        raise UserError(f"{RESULTS / FILE}: has runs of {results['steps']} steps, and these have {STEPS}; remove it")
    cases = [(recipe, seed) for recipe in RECIPES for seed in SEEDS]
    todo = [case for case in cases if _key(*case) not in results["runs"]]
    lock = threading.Lock()

    def one(case: Case) -> None:
        found = _in_a_child(*case)
        with lock:
            results["runs"][_key(*case)] = found
            _keep(results)
            print(f"{len(results['runs'])} of {len(cases)}: {_key(*case)}", flush=True)

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(one, todo))


def _key(recipe: Recipe, seed: int) -> str:
    weights, elastic, align = recipe
    return f"--weights {weights} --elastic {elastic}{' --align 1' * align} --seed {seed}"


def _in_a_child(recipe: Recipe, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="minunet-") as scratch:
        command = [sys.executable, "-m", "bench.ablation", _key(recipe, seed), scratch]
        done = subprocess.run(command, stdout=subprocess.DEVNULL)
        if done.returncode != 0:
            raise UserError(f"bench ablation: the run {_key(recipe, seed)} failed; its message is above")
        return json.loads((Path(scratch) / "scores.json").read_text(encoding="utf-8"))


def _keep(results: dict[str, Any]) -> None:
    results["runs"] = dict(sorted(results["runs"].items()))
    with atomic_write(RESULTS / FILE) as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def child(options: str, scratch: str) -> int:
    """One training with these options, scored with each average: scores.json in `scratch`."""
    import minunet as mu
    from minunet import metrics, train
    from minunet.data import load_isbi, split
    from minunet.data.reading import SectionFile

    data = load_isbi(None)
    if data.synthetic:
        raise UserError("bench ablation: the real stack is not here; bring it (MINUNET_DATA)")
    folder = Path(scratch) / "run"
    fixed = f"--steps {STEPS} --threads 1 --validate 1 --quiet"
    if train.main(["isbi", *fixed.split(), *options.split(), "--out", str(folder)]) != 0:
        return 1
    saved = mu.checkpoint.load(folder / "checkpoint.safetensors")
    saved.model.eval()
    held_out = split(len(data.images))[1]
    write_tiff(Path(scratch) / "held_out.tif", data.images[held_out])
    source, planes = SectionFile(str(Path(scratch) / "held_out.tif"), 1, saved.extra), []
    for s in range(len(held_out)):
        source.choose(s)
        planes.append(source.read(0, 0, *source.seen))  # (H, W, 1), as the command `predict` sees it
    scores = {}
    for average in AVERAGE:
        p = [mu.predict(saved.model, plane, average=average)[..., -1] for plane in planes]
        found = metrics.isbi_scores(data.labels[held_out], np.stack(p))
        scores[str(average)] = {name: asdict(score) for name, score in found.items()}
    (Path(scratch) / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    return 0


def table() -> str:
    """Mean and sample sd over the seeds, for every combination."""
    results = load(FILE)
    if results is None:
        return "not measured"
    rows = [
        "| weight map | elastic deformation | aligned | test average | V_Rand | V_Info | pixel error | warping error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for recipe, average in product(RECIPES, AVERAGE):
        weights, elastic, align = recipe
        runs = [results["runs"].get(_key(recipe, seed)) for seed in SEEDS]
        found = [run[str(average)] for run in runs if run is not None]
        cells = [_spread([run[name]["value"] for run in found], name) for name in SHOWN]
        parts = [WEIGHTS[weights], ELASTIC[elastic], ALIGN[align], AVERAGE[average]]
        rows.append(f"| {' | '.join([*parts, *cells])} |")
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
