"""Segment images with a trained network: `minunet predict CHECKPOINT FILE... --out DIR`, or `mu.predict(model, image)`.

For input NAME.tif the folder DIR gets NAME_mask (the likeliest class: 0/255 for two classes, class numbers spread over
0..255 for more, which then stand unspread in NAME_classes, and for a single image in the classes' colours, where the
checkpoint knows them, in NAME_colours) and NAME_probability (16 bits, P(class 1) 0..1 as 0..65535): PNG for an image,
TIFF with a page a section for a stack. predictions.json says what the last run wrote and with what.
A network that was trained on images brought to one size (--size) sees these at that size too; its probabilities are
brought back to the image's.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from minunet import __version__, cli
from minunet.errors import UsageError, UserError

if TYPE_CHECKING:  # loaded by the work itself: --help stays quick
    import numpy as np

    from minunet.checkpoint import Checkpoint
    from minunet.models.base import Network

RECORD = "predictions.json"


def predict(
    model: Network,
    image: np.ndarray,
    tile: int | tuple[int, int] | None = None,
    average: int = 1,
    progress: Callable[[int, int], object] | None = None,
) -> np.ndarray:
    """Class probabilities (H, W, K) of an image of any size, with mirrored context: softmax of the network's logits.

    image    : (H, W) or (H, W, C), real, normalised as in training (`minunet.data.normalise`)
    tile     : pixels (or rows, columns) to predict at once; rounded up to the next output size that the network has.
               None: as many as MEMORY allows. The size changes the result by rounding error only, except in networks
               that pad with zeros and see farther than CONTEXT (see `minunet.tiled`).
    average  : mean over so many of the 8 symmetries of `minunet.data.symmetries` (Ronneberger 2015 used 7)
    progress : called with (windows done, windows in all) after each

    float32 (float64 from a float64 model), each pixel's sum is 1; a network with one output gives its sigmoid. The
    network predicts in evaluation mode, records nothing, and is left as it was. Raises UserError for an empty image,
    NaN, the wrong number of channels, tile < 1, or average outside 1..8.

    >>> predict(mu.models.build("unet", width=4), np.zeros((100, 70), np.float32)).shape
    (100, 70, 2)
    """
    from minunet.tiled import predict_image

    return predict_image(model, image, tile, average, progress)


class _Callable(ModuleType):
    __call__ = staticmethod(predict)


# `mu.predict(...)` is public, and so is `python -m minunet.predict`: importing this module binds the name
# `minunet.predict` to it, whatever stood there. So the module itself is made callable.
sys.modules[__name__].__class__ = _Callable


def build_parser() -> argparse.ArgumentParser:
    p = cli.parser("predict", "Segment images with a trained network. Reads PNG, JPEG, BMP, TIFF (stacks too), .npy.")
    p.add_argument("checkpoint", metavar="CHECKPOINT", help="file that `minunet train` has written")
    p.add_argument("files", metavar="FILE", nargs="+", help="images or stacks, of any sizes")
    p.add_argument("--out", metavar="DIR", required=True, help="folder for the results, made if missing")
    p.add_argument("--tile", type=int, metavar="N", help="pixels a side to predict at once; None: as fit in memory")
    p.add_argument("--average", type=int, default=1, metavar="K", help="orientations to average, 1 to 8")
    p.add_argument("--classes", default="1", metavar="LIST", help='classes whose probability to write, such as "1,2"')
    p.add_argument("--backend", metavar="NAME", help="who computes; None: cpu")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0, or 1 when a file failed; the other files are predicted all the same."""
    args = build_parser().parse_args(argv)
    classes = _check_usage(args)
    outputs = _outputs(args, classes)

    from minunet import backends, checkpoint

    if args.backend not in (None, *backends.available()):
        raise UsageError(f"--backend {args.backend}: there are {', '.join(backends.available())}")
    with backends.use_backend(args.backend or backends.get().name):
        saved = checkpoint.load(args.checkpoint)
        n_classes = max(2, saved.model.config["n_classes"])  # one output is P(class 1)
        if max(classes) >= n_classes:
            raise UsageError(f"--classes {args.classes}: {args.checkpoint} has the classes 0 to {n_classes - 1}")
        Path(args.out).mkdir(parents=True, exist_ok=True)
        return _predict_all(args, classes, saved, outputs)


def _check_usage(args: argparse.Namespace) -> list[int]:
    """The classes asked for. Raises UsageError for options that no checkpoint could make sense of."""
    if args.tile is not None and args.tile < 1:
        raise UsageError(f"--tile {args.tile}: must be at least 1")
    if not 1 <= args.average <= 8:
        raise UsageError(f"--average {args.average}: there are 8 orientations; give 1 to 8")
    if Path(args.out).exists() and not Path(args.out).is_dir():
        raise UsageError(f"--out {args.out}: is a file; name a folder")
    parts = args.classes.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f'--classes {args.classes}: cannot be read; write class numbers like "1" or "0,2"')
    return sorted({int(part) for part in parts})


def _outputs(args: argparse.Namespace, classes: list[int]) -> list[dict[str, Path]]:
    """For each input: {kind of result: path without ending}. Raises UsageError where results would collide with each
    other or with an input.
    """
    kinds = {"mask": "mask", "classes": "classes", "colours": "colours"}
    kinds |= {f"probability {c}": "probability" if c == 1 else f"probability_class{c}" for c in classes}
    inputs = {_identity(Path(file)) for file in [*args.files, args.checkpoint]}
    taken: dict[str, str] = {}
    outputs = []
    for file in args.files:
        paths = {kind: Path(args.out) / f"{Path(file).stem}_{suffix}" for kind, suffix in kinds.items()}
        outputs.append(paths)
        name = os.path.normcase(paths["mask"])
        if name in taken:
            raise UsageError(
                f"{file}: its results would overwrite those of {taken[name]}, {name}...; rename one, or predict them "
                "into different folders"
            )
        taken[name] = file
        for path in (Path(f"{p}{ending}") for p in paths.values() for ending in (".png", ".tif")):
            if path.exists() and _identity(path) in inputs:
                raise UsageError(f"--out {args.out}: results would overwrite the input {path}; choose another folder")
    if _identity(Path(args.out) / RECORD) in inputs:
        raise UsageError(f"--out {args.out}: {RECORD} would overwrite an input; choose another folder")
    return outputs


def _identity(path: Path) -> Any:
    """Equal for two names of one file."""
    return (path.stat().st_dev, path.stat().st_ino) if path.exists() else os.path.realpath(path)


def _predict_all(args: argparse.Namespace, classes: list[int], saved: Checkpoint, outputs: list[dict]) -> int:
    source = saved.extra.get("data", {}).get("source")
    synthetic = bool(saved.extra.get("synthetic"))
    if synthetic:
        print(f"note: {args.checkpoint} was trained on SYNTHETIC images, not on real ones: {source}")
    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    for file, paths in zip(args.files, outputs):
        try:
            done.append(_predict_file(args, file, paths, classes, saved))
        except (UserError, OSError, MemoryError) as error:
            if args.debug:
                raise
            text = cli.one_line(error)
            failed.append({"input": file, "error": text})
            print(f"error: {text if file in text else f'{file}: {text}'}", file=sys.stderr)
    record = {
        "checkpoint": args.checkpoint,
        "network": saved.model.config,
        "classes": saved.extra.get("classes"),
        "trained_on": {"synthetic": synthetic, "source": source},
        "tile": args.tile,
        "average": args.average,
        "versions": {"minunet": __version__, "checkpoint": saved.version},
        "files": done,
        "failed": failed,
    }
    from minunet.files import atomic_write

    with atomic_write(Path(args.out) / RECORD) as tmp:
        tmp.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 1 if failed else 0


def _predict_file(
    args: argparse.Namespace, file: str, paths: dict[str, Path], classes: list[int], saved: Checkpoint
) -> dict[str, Any]:
    """Predict one file section by section, write and print its results; returns its entry in the record."""
    import numpy as np
    from tqdm import tqdm

    from minunet.data import paint, read_image, resize_map, write_png, write_tiff
    from minunet.data.sections import as_sections, network_input

    model = saved.model
    sections = as_sections(file, read_image(file), model.config["in_channels"])  # (S, H, W, C)
    S, H, W = sections.shape[:3]
    stack = S > 1
    n_classes = max(2, model.config["n_classes"])
    colours = [tuple(c) for c in saved.extra.get("colours") or ()]
    images: dict[str, np.ndarray] = {}

    with tqdm(desc=Path(file).name, unit="tile", leave=False, disable=None) as bar:
        for s in range(S):

            def show(windows: int, total: int, s: int = s) -> None:
                bar.total = S * total
                bar.update(s * total + windows - bar.n)

            x = network_input(sections[s], saved.extra, file)
            p = resize_map(predict(model, x, args.tile, args.average, show), (H, W))  # (H, W, K)
            if p.shape[2] == 1:
                p = np.concatenate([1 - p, p], axis=2)
            found = p.argmax(axis=2)
            results = {"mask": (found * 255 // (n_classes - 1)).astype(np.uint8)}
            if n_classes > 2:
                results["classes"] = found.astype(np.uint8 if n_classes <= 256 else np.uint16)
                if colours and not stack:
                    results["colours"] = paint(results["classes"], colours)
            results |= {f"probability {c}": np.round(p[..., c] * 65535).astype(np.uint16) for c in classes}
            for kind, image in results.items():
                images.setdefault(kind, np.empty((S, *image.shape), image.dtype))[s] = image

    written = {}
    for kind, pages in images.items():
        path = Path(f"{paths[kind]}{'.tif' if stack else '.png'}")
        write_tiff(path, pages) if stack else write_png(path, pages[0])
        written[kind] = str(path)
    shape = [S, H, W] if stack else [H, W]
    print(f"{file}: {' x '.join(map(str, shape))} -> {', '.join(written.values())}")
    return {"input": file, "shape": shape, "written": written}


if __name__ == "__main__":
    sys.exit(cli.run(main))
