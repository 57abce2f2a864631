"""The scores of the ISBI 2012 membrane challenge, old and new, swept over thresholds as the challenge does.

Polarity: truth > 0 is cell interior, and p_cell is the probability of **cell interior** in [0, 1]. A map of
P(membrane) gives plausible-looking nonsense. All scores are 2-D: cells are labelled slice by slice.

Old (the U-Net paper's table): pixel, Rand and warping error. Current: V_Rand and V_Info after border thinning
(Arganda-Carreras 2015, doi 10.3389/fnana.2015.00142). Thresholds are chosen per score.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minunet.errors import UserError
from minunet.metrics.segments import Agreement, Parts, TrueCells, info_parts, label_cells, rand_parts
from minunet.metrics.thinning import thin_plane
from minunet.metrics.warping import MERGE, SPLIT, warp_plane


@dataclass(frozen=True)
class Score:
    """One score, the threshold that gave it, and its two parts where it has them.

    For rand_error, v_rand, v_info: split and merge are recall and precision, 1 is perfect, and low means splits
    (merges) are common. For warping_error they are the shares of split and merger pixels, 0 is perfect.
    """

    value: float
    threshold: float
    split: float | None = None
    merge: float | None = None


def thresholds(last: float = 1.0) -> list[float]:
    """0.0 and then repeatedly + 0.1 in double precision while <= last: 11 values up to 1.0, 10 up to 0.9.

    The additions leave 0.30000000000000004 and 0.9999999999999999 in the list, which decide ties.
    """
    values, t = [], 0.0
    while t <= last:
        values.append(t)
        t += 0.1
    return values


def _stacks(truth: np.ndarray, p_cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Checked (S, H, W) views: truth as bool, p_cell in its own dtype."""
    truth, p_cell = np.asarray(truth), np.asarray(p_cell)
    if truth.shape != p_cell.shape:
        raise UserError(f"truth has shape {truth.shape} but p_cell {p_cell.shape}; give both as (S, H, W) or (H, W)")
    if truth.ndim not in (2, 3) or truth.size == 0:
        raise UserError(f"truth and p_cell have shape {truth.shape}; expected a non-empty (S, H, W) or (H, W)")
    for name, array in (("truth", truth), ("p_cell", p_cell)):
        if array.dtype.kind not in "buif":
            raise UserError(f"{name} has dtype {array.dtype}; give real numbers")
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise UserError(f"{name} holds NaN; no score can be given for it")
    low, high = p_cell.min(), p_cell.max()
    if not (low >= 0 and high <= 1):
        raise UserError(f"p_cell holds values from {low:g} to {high:g}; give probabilities of cell in [0, 1]")
    H, W = truth.shape[-2:]
    return (truth > 0).reshape(-1, H, W), p_cell.reshape(-1, H, W)


def _sweep(p_cell: np.ndarray, last: float = 1.0) -> list[float]:
    """The thresholds to try; a map that is already binary needs only 0.0."""
    return [0.0] if bool(np.all((p_cell == 0) | (p_cell == 1))) else thresholds(last)


class SliceCounts(NamedTuple):
    """What one slice contributes at one threshold; a field is None where it was not asked for."""

    pixels: tuple[int, int, int]  # true positives, false positives, false negatives
    plain: Agreement | None  # truth against the thresholded prediction
    thinned: Agreement | None  # truth against the prediction after thinning


def _slice_counts(truth: np.ndarray, p: np.ndarray, ts: list[float], plain: bool, thin: bool) -> list[SliceCounts]:
    """Counts of one slice (bool and real, both (H, W)) at each threshold of ts."""
    truth = np.ascontiguousarray(truth.T)  # (W, H): the reference scans x outer, y inner
    # p > t for all t at once: level = how many thresholds lie strictly below p, compared in double precision
    # (a float32 0.1 is above 0.1).
    level = np.searchsorted(ts, p.T.astype(np.float64).ravel(), side="left").reshape(truth.shape)  # (W, H)
    hist = np.bincount((2 * level + truth).ravel(), minlength=2 * len(ts) + 2).reshape(-1, 2)
    above = hist[::-1].cumsum(axis=0)[::-1][1:]  # [t, truth] pixels with p > t
    true_pixels = int(truth.sum())
    cells = TrueCells(truth) if plain or thin else None
    out: list[SliceCounts] = []
    for k in range(len(ts)):
        fp, tp = (int(v) for v in above[k])
        if k > 0 and hist[k].sum() == 0:  # no pixel lies between these two thresholds
            out.append(out[-1])
            continue
        agree, agree_thin = None, None
        if cells is not None:
            labels, count = label_cells(level > k)
            if plain:
                agree = cells.agreement(labels, count)
            if thin:
                agree_thin = cells.agreement(*thin_plane(labels, count))
        out.append(SliceCounts((tp, fp, true_pixels - tp), agree, agree_thin))
    return out


def _warp_counts(truth: np.ndarray, p: np.ndarray, ts: list[float]) -> list[tuple[int, int, int]]:
    """(split, merger, all wrong) pixels of one slice after relaxation, at each threshold of ts."""
    truth = np.ascontiguousarray(truth.T)
    p = np.ascontiguousarray(p.T, dtype=np.float64)
    out = []
    for t in ts:
        kinds = warp_plane(truth, p, t).kinds
        out.append((int((kinds == SPLIT).sum()), int((kinds == MERGE).sum()), int((kinds > 0).sum())))
    return out


def _each_slice(function: Callable, truth: np.ndarray, p: np.ndarray, args: tuple, workers: int | None, done) -> list:
    """[function(truth[s], p[s], *args) for each s]; threads share the slices, results keep their order."""
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    results = []
    with ThreadPoolExecutor(max(1, min(workers, len(truth)))) as pool:  # the kernels release the interpreter lock
        for result in pool.map(lambda s: function(truth[s], p[s], *args), range(len(truth))):
            results.append(result)
            if done is not None:
                done()
    return results


def _best(values: Iterable[float]) -> int:
    """Index of the largest value, the first of equals: the challenge replaces only what is strictly better."""
    return int(np.argmax(list(values)))


def _f1(tp: int, fp: int, fn: int) -> float:
    return 2.0 * tp / (2 * tp + fp + fn)


def _pixel_score(counts: list[list[SliceCounts]], ts: list[float]) -> Score:
    f = [_f1(*(sum(c[k].pixels[m] for c in counts) for m in range(3))) for k in range(len(ts))]
    k = _best(f)
    return Score(1.0 - f[k], ts[k])


def _pooled_rand(tables: list[list[Agreement]], ts: list[float]) -> list[Parts]:
    """Rand parts at each threshold with pair counts added over slices (micro average)."""
    return [rand_parts(*(sum(a[k][m] for a in tables) for m in (1, 2, 3))) for k in range(len(ts))]


def _mean_parts(tables: list[list[Agreement]], ts: list[float], parts: Callable[[Agreement], Parts]) -> list[Parts]:
    """Parts at each threshold averaged over slices (macro); slices without a true cell have no score and no vote."""
    out = []
    for k in range(len(ts)):
        rows = [parts(a[k]) for a in tables if a[k].pixels]
        out.append(Parts(*(float(sum(column)) / len(rows) for column in zip(*rows))))
    return out


def _rand_of(a: Agreement) -> Parts:
    return rand_parts(a.both, a.truth, a.predicted)


def _at_best(parts: list[Parts], ts: list[float], error: bool = False) -> Score:
    k = _best(p.f for p in parts)
    return Score(1.0 - parts[k].f if error else parts[k].f, ts[k], parts[k].split, parts[k].merge)


def _need_cells(truth: np.ndarray) -> None:
    if not truth.any():
        raise UserError("truth has no cell pixel (> 0); this score needs at least one cell")


def _counts(truth, p_cell, workers, plain: bool = False, thin: bool = False):
    truth, p = _stacks(truth, p_cell)
    _need_cells(truth)
    ts = _sweep(p)
    return _each_slice(_slice_counts, truth, p, (ts, plain, thin), workers, None), ts


def pixel_error(truth: np.ndarray, p_cell: np.ndarray, *, workers: int | None = None) -> float:
    """1 - max over t of F1 of the cell pixels, TP / FP / FN summed over all slices.

    truth : (S, H, W) or (H, W), any real dtype; cell where > 0.   p_cell : same shape, P(cell) in [0, 1].
    Not the share of wrong pixels: that is `pixel_disagreement`.  Raises UserError (a ValueError) for NaN, values
    outside [0, 1], unequal shapes or a truth without cells; so do the other scores.
    """
    return _pixel_score(*_counts(truth, p_cell, workers)).value


def rand_error(truth: np.ndarray, p_cell: np.ndarray, *, workers: int | None = None) -> float:
    """1 - max over t of the foreground-restricted Rand F-score; no thinning, pairs summed over slices.

    Segments are the 4-connected components of p_cell > t; arguments as for `pixel_error`.
    """
    counts, ts = _counts(truth, p_cell, workers, plain=True)
    return _at_best(_pooled_rand([[c.plain for c in row] for row in counts], ts), ts, error=True).value


def v_rand(truth: np.ndarray, p_cell: np.ndarray, *, aggregate: str = "mean", workers: int | None = None) -> float:
    """max over t of V_Rand after border thinning; 1 is perfect. Arguments as for `pixel_error`.

    aggregate : "mean" averages the F-scores of the slices (the challenge's number); "pooled" adds pair counts
    over slices first, which weighs slices with large cells more and is not comparable with published scores.
    """
    if aggregate not in ("mean", "pooled"):
        raise UserError(f'aggregate is {aggregate!r}; give "mean" or "pooled"')
    counts, ts = _counts(truth, p_cell, workers, thin=True)
    tables = [[c.thinned for c in row] for row in counts]
    parts = _mean_parts(tables, ts, _rand_of) if aggregate == "mean" else _pooled_rand(tables, ts)
    return _at_best(parts, ts).value


def v_info(truth: np.ndarray, p_cell: np.ndarray, *, workers: int | None = None) -> float:
    """max over t of the mean over slices of V_Info after border thinning; 1 is perfect.

    It hardly moves (0.90 for a blurred raw image), so never quote it without V_Rand. Arguments as for `pixel_error`.
    """
    counts, ts = _counts(truth, p_cell, workers, thin=True)
    return _at_best(_mean_parts([[c.thinned for c in row] for row in counts], ts, info_parts), ts).value


def pixel_disagreement(truth: np.ndarray, p_cell: np.ndarray, t: float = 0.5) -> float:
    """Share of pixels where p_cell > t differs from truth > 0. Arguments as for `pixel_error`."""
    truth, p = _stacks(truth, p_cell)
    wrong = sum(int(((p[s].astype(np.float64) > t) != truth[s]).sum()) for s in range(len(truth)))
    return wrong / truth.size


def _warping_scores(truth: np.ndarray, p: np.ndarray, ts: list[float], workers, done=None) -> tuple[Score, Score]:
    """The warping error at its best threshold, and all pixels that stay wrong at that same threshold."""
    totals = np.sum(_each_slice(_warp_counts, truth, p, (ts,), workers, done), axis=0)  # (T, 3)
    k = _best(-(totals[:, 0] + totals[:, 1]))
    split, merge, wrong = (float(v) / truth.size for v in totals[k])
    return Score(float(totals[k, 0] + totals[k, 1]) / truth.size, ts[k], split, merge), Score(wrong, ts[k])


def warping_error(truth: np.ndarray, p_cell: np.ndarray, *, workers: int | None = None) -> float:
    """min over t (0 ... 0.9) of (split + merger pixels) / all pixels, "minimum splits and mergers"; 0 is perfect.

    See `minunet.metrics.warping` for the relaxation; arguments as for `pixel_error`.
    """
    truth, p = _stacks(truth, p_cell)
    return _warping_scores(truth, p, _sweep(p, 0.9), workers)[0].value


def warping_error_all(truth: np.ndarray, p_cell: np.ndarray, t: float = 0.5, *, workers: int | None = None) -> float:
    """Share of pixels still wrong after the truth is relaxed towards p_cell > t, of every kind (Jain 2010)."""
    truth, p = _stacks(truth, p_cell)
    return _warping_scores(truth, p, [float(t)], workers)[1].value


def isbi_scores(
    truth: np.ndarray,
    p_cell: np.ndarray,
    warping: bool = True,
    *,
    workers: int | None = None,
    on_slice: Callable[[], None] | None = None,
) -> dict[str, Score]:
    """Every ISBI score with the threshold chosen for it. Arguments as for `pixel_error`.

    Keys: v_rand, v_info, rand_error, pixel_error, pixel_disagreement (at 0.5), and with `warping` also warping_error
    and warping_error_all (at the threshold chosen for warping_error). workers : threads over slices (default: the
    processors this process may use); results do not depend on it. on_slice is called, from this thread, after each
    slice of the one pass over the stack, or of the two passes with `warping`.
    """
    truth, p = _stacks(truth, p_cell)
    _need_cells(truth)
    ts = _sweep(p)
    counts = _each_slice(_slice_counts, truth, p, (ts, True, True), workers, on_slice)
    plain = [[c.plain for c in row] for row in counts]
    thinned = [[c.thinned for c in row] for row in counts]
    found = {
        "v_rand": _at_best(_mean_parts(thinned, ts, _rand_of), ts),
        "v_info": _at_best(_mean_parts(thinned, ts, info_parts), ts),
        "rand_error": _at_best(_pooled_rand(plain, ts), ts, error=True),
        "pixel_error": _pixel_score(counts, ts),
        "pixel_disagreement": Score(pixel_disagreement(truth, p), 0.5),
    }
    if warping:
        found["warping_error"], found["warping_error_all"] = _warping_scores(
            truth, p, _sweep(p, 0.9), workers, on_slice
        )
    return found
