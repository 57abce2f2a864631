"""`minunet evaluate PREDICTION TRUTH`: score a segmentation made by any program, from image files.

ISBI 2012 scores by default (prediction: probability of cell interior), confusion-matrix scores with --semantic, there
also of whole folders.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from minunet import cli
from minunet.errors import UsageError, UserError

if TYPE_CHECKING:  # NumPy and Numba are loaded by the work itself: --help stays quick
    import numpy as np

ROWS = (  # key of isbi_scores, name shown, which way is better
    ("v_rand", "V_Rand, thinned", "1 best"),
    ("v_info", "V_Info, thinned", "1 best"),
    ("rand_error", "Rand error", "0 best"),
    ("pixel_error", "pixel error (1 - F1)", "0 best"),
    ("pixel_disagreement", "wrong pixels", "0 best"),
    ("warping_error", "warping error", "0 best"),
    ("warping_error_all", "warping, all kinds", "0 best"),
)


FIRST = 0.1  # threshold after 0
LARGEST = {"uint8": 255, "uint16": 65535}


def build_parser() -> argparse.ArgumentParser:
    p = cli.parser(
        "evaluate",
        "Score a predicted segmentation against the truth. Reads PNG, TIFF (many pages) and .npy from any program.",
    )
    p.add_argument(
        "prediction",
        help="probability of cell interior: 8-bit or 16-bit (scaled to 0..1), real numbers in 0..1, or a 0/1 or 0/255 "
        "mask; with --semantic, class numbers, or a folder of such files",
    )
    p.add_argument(
        "truth", help="cell interior where > 0 (0/1, 0/255, ...); with --semantic, class numbers, or a folder"
    )
    p.add_argument("--json", metavar="FILE", help="also write the scores to FILE")
    p.add_argument("--no-warping", action="store_true", help="leave out the warping error, the slowest score")
    p.add_argument("--membrane", action="store_true", help="the prediction is the probability of membrane: use 1 - p")
    p.add_argument("--channel", type=int, metavar="C", help="channel of a (H, W, C) prediction to score")
    p.add_argument("--semantic", action="store_true", help="score class maps from their confusion matrix")
    p.add_argument("--classes", type=int, metavar="K", help="number of classes, for --semantic")
    p.add_argument(
        "--ignore", type=int, default=255, metavar="LABEL", help="truth label that is not scored (--semantic)"
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    _check_usage(args)
    report = _semantic(args) if args.semantic else _isbi(args)
    if args.json:
        from minunet.files import atomic_write

        with atomic_write(args.json) as tmp:
            tmp.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return 0


def _check_usage(args: argparse.Namespace) -> None:
    if args.semantic and args.classes is None:
        raise UsageError("--semantic needs the number of classes: add --classes K")
    if args.semantic and args.classes < 1:
        raise UsageError(f"--classes {args.classes}: give 1 or more")
    if not args.semantic and args.classes is not None:
        raise UsageError("--classes is for class maps: add --semantic")
    if args.semantic and (args.membrane or args.no_warping or args.channel is not None):
        raise UsageError("--membrane, --no-warping and --channel are for ISBI scores: leave them out with --semantic")


def _load(path: str, channel: int | None = None) -> np.ndarray:
    """The pixels of a file; one channel of (H, W, C) if asked; a grey picture saved as RGB(A) becomes (H, W)."""
    import numpy as np

    from minunet.data.images import read_image

    a = read_image(path)
    if channel is not None:
        if a.ndim != 3 or not 0 <= channel < a.shape[-1]:
            raise UserError(f"{path}: has shape {a.shape}, no channel {channel}; leave out --channel or choose another")
        a = a[..., channel]
    elif _has_channels(a) and a.shape[-1] > 2 and (a[..., 1:3] == a[..., :1]).all():
        a = a[..., 0]
    if a.dtype.kind == "f" and np.isnan(a).any():
        raise UserError(f"{path}: holds NaN on {int(np.isnan(a).sum())} pixels; it cannot be scored")
    return a


def _has_channels(a: np.ndarray) -> bool:
    """Whether 3 axes mean (H, W, C) rather than (S, H, W): no slice is 4 pixels wide."""
    return a.ndim == 3 and a.shape[-1] in (2, 3, 4) and a.shape[-1] < min(a.shape[:2])


def _load_pair(predicted: str, true: str, channel: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and truth, both (H, W) or both (S, H, W)."""
    import numpy as np

    prediction, truth = _load(predicted, channel), _load(true)
    if prediction.shape != truth.shape:
        remedy = "give a prediction of the full size of the truth, with as many slices"
        if _has_channels(prediction):
            remedy = "choose the channel that is cell interior with --channel C"
        elif _has_channels(truth):
            remedy = "save the truth as a grey image"
        raise UserError(f"{predicted} is {_size(prediction)} but {true} is {_size(truth)}; {remedy}")
    if _has_channels(truth):  # some programs store a stack of 3 or 4 slices as the planes of one colour picture
        print(f"note: both files hold {truth.shape[-1]} planes, taken as slices", file=sys.stderr)
        prediction, truth = np.moveaxis(prediction, -1, 0), np.moveaxis(truth, -1, 0)
    return prediction, truth


def _size(a: np.ndarray) -> str:
    return " x ".join(str(n) for n in a.shape)


def _probability(a: np.ndarray, path: str) -> np.ndarray:
    """Values of a prediction file as probabilities; masks become exactly 0 and 1.

    8-bit and 16-bit values are divided by 255 and 65535 in float32, as ImageJ would hold them: 51 / 255 is then
    just above 0.2, as it is in the challenge's own threshold sweep.
    """
    import numpy as np

    for one in (1, 255):
        if np.all((a == 0) | (a == one)):
            return (a > 0).astype(np.float32)
    if a.dtype.name in LARGEST:
        return a.astype(np.float32) / np.float32(LARGEST[a.dtype.name])
    low, high = a.min(), a.max()
    if a.dtype.kind == "f" and low >= 0 and high <= 1:
        return a
    raise UserError(
        f"{path}: {a.dtype} values from {low:g} to {high:g} are no probabilities; save 8-bit, 16-bit, "
        "real numbers in 0..1, or a 0/255 mask"
    )


def _isbi(args: argparse.Namespace) -> dict[str, Any]:
    import numpy as np
    from tqdm import tqdm

    prediction, truth = _load_pair(args.prediction, args.truth, args.channel)
    p = _probability(prediction, args.prediction)
    if args.membrane:
        p = 1 - p
    _note_labels(args.prediction, prediction)
    cells = truth > 0
    if not cells.any():
        raise UserError(f"{args.truth}: has no cell pixel (> 0), so there is nothing to score; is it the right file?")
    _warn(args, p, cells, len(np.unique(truth)))

    from minunet.metrics import isbi_scores

    slices = len(p) if p.ndim == 3 else 1
    with tqdm(total=slices * (1 if args.no_warping else 2), desc="scoring", unit="slice", disable=None) as bar:
        found = isbi_scores(cells, p, warping=not args.no_warping, on_slice=bar.update)

    print(f"{args.prediction} against {args.truth}: {_size(p)}")
    print(f"{'score':<22}{'':<8}{'value':>10}{'threshold':>11}{'split':>11}{'merge':>11}")
    for key, name, best in ROWS:
        if key in found:
            s = found[key]
            parts = "".join(f"{part:>11.6f}" for part in (s.split, s.merge) if part is not None)
            print(f"{name:<22}{best:<8}{s.value:>10.6f}{s.threshold:>11.1f}{parts}")
    print("split, merge: 1 is best for V_Rand, V_Info and Rand (recall, precision); share of pixels for warping.")
    scores = {key: vars(found[key]) for key in found}
    return {"prediction": args.prediction, "truth": args.truth, "shape": list(p.shape), "scores": scores}


def _note_labels(path: str, a: np.ndarray) -> None:
    """Say that a prediction of integers looks like numbers of cells or classes: nothing in it reaches 0.1, the first
    threshold after 0, of its type's range.
    """
    if a.dtype.kind == "u" and 1 < int(a.max()) <= FIRST * LARGEST.get(a.dtype.name, 0):
        words = f"its largest value is {int(a.max())} of {LARGEST[a.dtype.name]}"
        print(
            f"note: {path}: {words}; if these are numbers of cells, cells that touch are scored as one, as all above 0"
            " is cell: part them by a line of 0",
            file=sys.stderr,
        )


def _warn(args: argparse.Namespace, p: np.ndarray, cells: np.ndarray, levels: int) -> None:
    """Say what is legal but probably not meant."""
    if levels > 2:
        print(f"note: {args.truth}: has {levels} different values; all above 0 count as cell", file=sys.stderr)
    if cells.all():
        print(f"note: {args.truth}: has no membrane (0)", file=sys.stderr)
    elif p[cells].mean(dtype="f8") < p[~cells].mean(dtype="f8"):
        remedy = "drop --membrane" if args.membrane else "use --membrane"
        print(f"note: {args.prediction}: is higher on membrane than on cells; if inverted, {remedy}", file=sys.stderr)


def _pairs(predictions: str, truths: str) -> list[tuple[str, str]]:
    """(prediction, truth) files: the two given, or of two folders each truth a.png with a_classes.png or a.png."""
    from pathlib import Path

    from minunet.data.images import list_images

    folders = [Path(p).is_dir() for p in (predictions, truths)]
    if not any(folders):
        return [(predictions, truths)]
    if not all(folders):
        raise UserError(f"{predictions}, {truths}: one is a folder and one is not; name two files or two folders")
    there = {path.stem: str(path) for path in list_images(predictions)}
    wanted = list_images(truths)
    if not wanted:
        raise UserError(f"{truths}: holds no images; name the folder of the true class maps")
    pairs = [(there.get(f"{t.stem}_classes") or there.get(t.stem), str(t)) for t in wanted]
    missing = [t for p, t in pairs if p is None]
    if missing:
        raise UserError(
            f"{predictions}: has no prediction for {len(missing)} of {len(pairs)} files of {truths}, such as"
            f" {missing[0]}; name it NAME_classes or NAME"
        )
    return pairs


def _semantic(args: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    from minunet.metrics import scores

    pairs = _pairs(args.prediction, args.truth)
    cm, contours, shape, pixels = _count(pairs, args.classes, args.ignore)
    try:
        s = scores(cm)
    except UserError as error:
        raise UserError(f"{args.prediction} against {args.truth}: {error}") from error

    if cm.sum() < pixels and np.count_nonzero(cm.sum(axis=1)) == 1:
        print(
            f"note: {args.truth}: of the pixels that are not {args.ignore}, which is ignored, all are class"
            f" {int(cm.sum(axis=1).argmax())}; if {args.ignore} is a class of yours, save it as a class number",
            file=sys.stderr,
        )
    bf = float(np.mean(contours))
    totals = {"acc": s.acc, "acc_cls": s.acc_cls, "mean_iu": s.mean_iu, "fwavacc": s.fwavacc, "boundary_f1": bf}
    what = " x ".join(map(str, shape)) if len(pairs) == 1 else f"{len(pairs)} files"
    print(f"{args.prediction} against {args.truth}: {what}, {cm.sum()} of {pixels} pixels scored")
    for name, value in totals.items():
        print(f"{name:<12}{value:>10.6f}")
    print(f"{'class':<12}{'IoU':>10}{'Dice':>10}{'pixels':>12}")
    for c in range(args.classes):
        iu, dice = (f"{v:>10.6f}" if math.isfinite(v) else f"{'-':>10}" for v in (s.iu[c], s.dice[c]))
        print(f"{c:<12}{iu}{dice}{cm[c].sum():>12}")
    per_class = {"iu": _finite(s.iu), "dice": _finite(s.dice), "confusion_matrix": cm.tolist()}
    return {
        "prediction": args.prediction,
        "truth": args.truth,
        **({"shape": shape} if len(pairs) == 1 else {"files": len(pairs)}),
        "scores": totals | per_class,
    }


def _count(pairs: list[tuple[str, str]], classes: int, ignore: int) -> tuple[np.ndarray, list[float], list[int], int]:
    """Over all files: the confusion matrix (K, K), each image's boundary F1, the last file's shape, pixels."""
    import numpy as np
    from tqdm import tqdm

    from minunet.metrics import boundary_f1, confusion_matrix

    cm = np.zeros((classes, classes), np.int64)
    contours, shape, pixels = [], [0], 0
    for file, true in tqdm(pairs, "scoring", unit="file", disable=None if len(pairs) > 1 else True, leave=False):
        predicted, truth = _load_pair(file, true)
        try:
            found = confusion_matrix(truth, predicted, classes, ignore)
            for t, q in zip(truth.reshape(-1, *truth.shape[-2:]), predicted.reshape(-1, *truth.shape[-2:])):
                if ((t != ignore) & (t >= 0)).any():  # the mean over images leaves out those without a label
                    contours.append(boundary_f1(t, q, classes, ignore))
        except UserError as error:  # the metrics know arrays; the user knows files
            raise UserError(f"{file} against {true}: {error}") from error
        cm += found
        pixels += truth.size
        shape = list(truth.shape)
    return cm, contours, shape, pixels


def _finite(values: np.ndarray) -> list[float | None]:
    """JSON has no NaN: null for a class absent from truth and prediction."""
    return [float(v) if math.isfinite(v) else None for v in values]


if __name__ == "__main__":
    sys.exit(cli.run(main))
