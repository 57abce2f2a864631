"""Keep a default run on the real ISBI stack as the measured result: `python -m bench isbi --run runs/isbi`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bench.report import RESULTS, ROOT
from minunet.data import read_image, write_png
from minunet.errors import UserError
from minunet.train import DEFAULT_STEPS
from minunet.training.config import Config

SHOWN = (27, 29)  # sections in README's picture: the network's output only, since the data's terms keep it out of here


def keep(run: str) -> None:
    """Copy scores, summary and a picture from a run's folder. Refuses what is no default run on real data."""
    folder = Path(run)
    if not (folder / "metrics.json").is_file():
        raise UserError(f"{folder}: has no metrics.json; name the output folder of a finished run")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    default = asdict(Config(steps=DEFAULT_STEPS))
    changed = [k for k, v in metrics["config"].items() if v != default[k] and k != "seed"]
    if metrics["data"]["synthetic"] or changed:
        what = f"changed {', '.join(changed)}" if changed else "was on synthetic data"
        raise UserError(f"{folder}: is no default run on the real stack ({what}); run `minunet train isbi`")
    metrics["data"]["source"] = "ISBI 2012 training stack"  # the path it had is nobody's business
    summary = (folder / "summary.txt").read_text(encoding="utf-8").splitlines()
    summary[0] = "data       ISBI 2012 training stack"
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "isbi.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    (RESULTS / "isbi.txt").write_text("\n".join(summary) + "\n", encoding="utf-8")
    p = read_image(folder / "held_out_probability.tif")  # (S, H, W), 16 bits
    shown = [p[metrics["held_out"].index(s)] >> 8 for s in SHOWN]
    (ROOT / "docs").mkdir(exist_ok=True)
    write_png(ROOT / "docs" / "held_out.png", np.concatenate(shown, axis=1).astype(np.uint8))
