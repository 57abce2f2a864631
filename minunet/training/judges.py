"""How held-out images are scored: cells as in the ISBI challenge, scenes by their confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minunet import metrics
from minunet.data import IGNORE, Dataset, instances_from_labels, write_tiff
from minunet.data.mixed import Mixed, gather
from minunet.errors import UserError
from minunet.training.pictures import panel, scene_panel
from minunet.training.seen import likeliest
from minunet.training.shown import alike

SHOWN = 6  # scenes in the picture
MOST = 15  # sections in the picture: half of ISBI's, in two folds


@dataclass
class Verdict:
    """What the last validation found."""

    scores: dict[str, Any]  # for metrics.json
    row: dict[str, float]  # for the log
    lines: list[str]  # for people
    maps: np.ndarray | Mixed  # P(cell) float32 (S, H, W), or classes uint8 (S, H, W)


class Cells:
    """Class 1 is the cells' interior: scores of P(cell) over the stack of sections (`minunet.metrics.isbi_scores`)."""

    columns = ("held_out_v_rand", "held_out_wrong_pixels")
    score, least = "V_Rand", 0.8  # of the curve: the first column

    def __init__(self, data: Dataset, held_out: np.ndarray):
        self.data, self.held_out = data, held_out
        if not (data.labels[held_out] == 1).any():  # noticed before the training, not at its first validation
            raise UserError(
                f"{data.name}: no pixel of the held-out sections {_numbers(held_out)} is {data.classes[1]}, so there"
                " is nothing to score; check the labels, or choose other sections with --held-out"
            )

    def quick(self, predictions: Iterable[np.ndarray]) -> tuple[dict[str, float], str]:
        """A row for the log and a text for the reader, from probabilities (H, W, K) of the held-out images."""
        p = self._cells(predictions)
        truth = self.data.labels[self.held_out]
        v_rand, wrong = metrics.v_rand(truth, p), metrics.pixel_disagreement(truth, p)
        row = {"held_out_v_rand": v_rand, "held_out_wrong_pixels": wrong}
        return row, f"V_Rand {v_rand:.4f}, wrong pixels {wrong:.2%}"

    def final(self, predictions: Iterable[np.ndarray]) -> Verdict:
        """All scores."""
        p = self._cells(predictions)
        scores = metrics.isbi_scores(self.data.labels[self.held_out], p)
        row = {"held_out_v_rand": scores["v_rand"].value, "held_out_wrong_pixels": scores["pixel_disagreement"].value}
        lines = ["held-out scores (1 is perfect for V_Rand and V_Info, 0 for the others)"]
        for name, score in scores.items():
            parts = f"   (split {score.split:.4f}, merge {score.merge:.4f})" if score.split is not None else ""
            at = "" if score.threshold is None else f"   at threshold {score.threshold:.1f}"
            lines.append(f"  {name:20s} {score.value:.6f}{at}{parts}")
        return Verdict({name: asdict(score) for name, score in scores.items()}, row, lines, p)

    def class_maps(self, verdict: Verdict) -> tuple[np.ndarray, float]:
        """(uint8 (S, H, W), 1 is cell; the threshold of P(cell) that they are made with: that of the best V_Rand)."""
        threshold = verdict.scores["v_rand"]["threshold"]
        return (verdict.maps > threshold).astype(np.uint8), threshold

    def write(self, folder: Path, verdict: Verdict, note: str, mark: str) -> None:
        """The picture of up to MOST sections, evenly chosen, and the probabilities of all, 16 bits."""
        p, chosen = verdict.maps, _evenly(len(self.held_out), MOST)
        rows = self.held_out[chosen]
        panel(folder / "held_out.png", rows.tolist(), self.data.images[rows], self.data.labels[rows], p[chosen], note)
        write_tiff(folder / f"held_out_probability{mark}.tif", np.round(p * 65535).astype(np.uint16))

    @staticmethod
    def _cells(predictions: Iterable[np.ndarray]) -> np.ndarray:
        """P(cell) float32 (S, H, W): the last of two classes, or the only one."""
        return np.stack([p[..., -1] for p in predictions])


class Scenes:
    """One confusion matrix over all held-out images, and what follows from it."""

    columns = ("held_out_mean_iu", "held_out_acc_cls", "held_out_acc")
    score, least = "mean IoU", 0.0

    def __init__(self, data: Dataset, held_out: np.ndarray):
        self.data, self.held_out = data, held_out

    def quick(self, predictions: Iterable[np.ndarray]) -> tuple[dict[str, float], str]:
        """A row for the log and a text for the reader, from probabilities (H, W, K) of the held-out images."""
        found = metrics.scores(self._matrix(self._classes(predictions)))
        text = f"mean IoU {found.mean_iu:.4f}, class accuracy {found.acc_cls:.4f}, accuracy {found.acc:.4f}"
        return self._row(found), text

    def final(self, predictions: Iterable[np.ndarray]) -> Verdict:
        """All scores."""
        return self._verdict(self._classes(predictions))

    def _verdict(self, maps: np.ndarray | Mixed) -> Verdict:
        truth, names = self.data.labels[self.held_out], self.data.classes
        matrix = self._matrix(maps)
        found = metrics.scores(matrix)
        totals = {name: getattr(found, name) for name in ("mean_iu", "acc_cls", "acc", "fwavacc")}
        contours = [metrics.boundary_f1(t, m, len(names)) for t, m in zip(truth, maps) if (t != IGNORE).any()]
        totals["boundary_f1"] = float(np.mean(contours)) if contours else None
        rows = matrix.sum(axis=1)
        recall = np.divide(matrix.diagonal(), rows, out=np.full(len(names), np.nan), where=rows > 0)
        per_class = {"iu": dict(zip(names, _finite(found.iu))), "recall": dict(zip(names, _finite(recall)))}
        lines = ["held-out scores (1 is perfect)"]
        lines += [f"  {name:20s} {value:.6f}" for name, value in totals.items() if value is not None]
        lines += ["", f"  {'class':20s} {'IoU':>8s} {'recall':>8s}   share of pixels"]
        for name, iu, part, pixels in zip(names, found.iu, recall, rows):
            lines.append(f"  {name:20s} {_shown(iu)} {_shown(part)}   {pixels / max(rows.sum(), 1):.2%}")
        return Verdict({**totals, **per_class, "confusion_matrix": matrix.tolist()}, self._row(found), lines, maps)

    def class_maps(self, verdict: Verdict) -> tuple[np.ndarray | Mixed, float]:
        """(the likeliest classes, 1/2: the threshold where there is one probability)."""
        return verdict.maps, 0.5

    def write(self, folder: Path, verdict: Verdict, note: str, mark: str) -> None:
        """The picture of a few images, and the classes of all."""
        chosen = _evenly(len(self.held_out), SHOWN)
        rows = self.held_out[chosen]
        names = [self.data.called(s) for s in rows.tolist()]
        shown = alike(self.data.images[rows], self.data.labels[rows], verdict.maps[chosen])
        scene_panel(folder / "held_out.png", names, *shown, self.data.classes, self.data.colours, note)
        if not isinstance(verdict.maps, Mixed):
            write_tiff(folder / f"held_out_classes{mark}.tif", verdict.maps)
            return
        for k, found in enumerate(verdict.maps):
            write_tiff(folder / f"held_out_classes{mark}_{k}.tif", found)

    def _matrix(self, maps: np.ndarray | Mixed) -> np.ndarray:
        """One confusion matrix over all images, of whatever sizes."""
        n = self.data.n_classes
        return sum(metrics.confusion_matrix(t, m, n) for t, m in zip(self.data.labels[self.held_out], maps))

    @staticmethod
    def _classes(predictions: Iterable[np.ndarray]) -> np.ndarray | Mixed:
        """The likeliest classes, uint8 (S, H, W); of one logit, class 1 above 1/2."""
        return gather(likeliest(p) for p in predictions)

    @staticmethod
    def _row(found: metrics.Scores) -> dict[str, float]:
        return {"held_out_mean_iu": found.mean_iu, "held_out_acc_cls": found.acc_cls, "held_out_acc": found.acc}


class Instances(Scenes):
    """Cells one by one: the SEG measure of the 4-connected components of class 1 over the cells of the truth; and what
    `Scenes` has.
    """

    columns = ("held_out_seg", *Scenes.columns)
    score = "SEG"

    def quick(self, predictions: Iterable[np.ndarray]) -> tuple[dict[str, float], str]:
        """A row for the log and a text for the reader, from probabilities (H, W, K) of the held-out images."""
        maps = self._classes(predictions)
        found, seg = metrics.scores(self._matrix(maps)), self._seg(maps)
        text = f"SEG {seg:.4f}, cell IoU {found.iu[1]:.4f}, accuracy {found.acc:.4f}"
        return {"held_out_seg": seg, **self._row(found)}, text

    def final(self, predictions: Iterable[np.ndarray]) -> Verdict:
        """All scores."""
        verdict = self._verdict(self._classes(predictions))
        seg = self._seg(verdict.maps)
        head, *rest = verdict.lines
        lines = [head, f"  {'SEG':20s} {seg:.6f}   (cells one by one: Cell Tracking Challenge)", *rest]
        return Verdict(
            {"seg": _finite([seg])[0], **verdict.scores}, {"held_out_seg": seg, **verdict.row}, lines, verdict.maps
        )

    def _seg(self, maps: np.ndarray | Mixed) -> float:
        """Mean Jaccard index over all true cells; NaN where there is none."""
        total, cells = 0.0, 0
        for truth, found in zip(self.data.instances[self.held_out], maps):
            n = np.count_nonzero(np.unique(truth))
            if n:
                total += n * metrics.seg_measure(truth, instances_from_labels(found == 1))
                cells += n
        return total / cells if cells else math.nan


JUDGES = {"cells": Cells, "classes": Scenes, "instances": Instances}  # by Dataset.scored


def _evenly(count: int, most: int) -> np.ndarray:
    """Up to `most` of 0 ... count - 1, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, most).round().astype(int))


def _numbers(values: np.ndarray) -> str:
    """Numbers for a message, the first few of many."""
    first = ", ".join(map(str, values[:5].tolist()))
    return first if len(values) <= 5 else f"{first}, ..."


def _finite(values: np.ndarray) -> list[float | None]:
    """JSON has no NaN: null for a class that is not there."""
    return [float(v) if math.isfinite(v) else None for v in values]


def _shown(value: float) -> str:
    return f"{value:8.4f}" if math.isfinite(value) else f"{'-':>8s}"
