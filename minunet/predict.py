"""Segment images with a trained network: `minunet predict CHECKPOINT FILE... --out DIR`, or `mu.predict(model, image)`.

For input NAME.tif the folder DIR gets NAME_mask (the likeliest class: 0/255 for two classes, class numbers spread over
0..255 for more, which then stand unspread in NAME_classes, and for a single image in the classes' colours, where they
are known, in NAME_colours) and NAME_probability (16 bits, P(class 1) 0..1 as 0..65535): PNG for an image, TIFF with a
page a section for a stack. Where the network was trained on masks of a user's own values, these stand in NAME_labels;
--overlay adds NAME_overlay, the image with classes or their borders over it. predictions.json says what the last run
wrote and with what.

A network that was trained on images brought to one size (--size) sees these at that size too; its probabilities are
brought back to the image's.

An image that does not fit in memory at once is predicted in windows that overlap. Of U-Net the result is the same,
whatever the windows; networks that see farther than the overlap give slightly different values near the cuts, and
the command says so (`minunet.tiled`).

Images may be larger than memory: TIFF (uncompressed: mapped; compressed: unpacked to the disk) and .npy are read, and
results written, a window at a time; --memory says how much the program may take, and what it will take is printed.
After a kill, a full disk or Ctrl-C, the same command with --resume goes on, and ends with the same files.
`minunet predict CHECKPOINT - --out - < a.png > mask.tif` reads from stdin and writes one result to stdout.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from minunet import cli

if TYPE_CHECKING:  # loaded by the work itself: --help stays quick
    import numpy as np

    from minunet.models.base import Network

RECORD = "predictions.json"  # what a run says of itself, in the folder of its results


def predict(
    model: Network,
    image: np.ndarray,
    tile: int | tuple[int, int] | None = None,
    average: int = 1,
    progress: Callable[[int, int], object] | None = None,
) -> np.ndarray:
    """Class probabilities (H, W, K) of an image of any size, with mirrored context: softmax of the network's logits.

    image    : (H, W) or (H, W, C), real, normalised as in training (`minunet.data.normalise`), and moved as
               --align moved it (`minunet.data.align.displaced`)
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
    p.add_argument("files", metavar="FILE", nargs="+", help="images or stacks of any sizes, folders of them; -: stdin")
    p.add_argument("--out", metavar="DIR", required=True, help="folder for the results, made if missing; -: stdout")
    p.add_argument("--tile", type=int, metavar="N", help="pixels a side to predict at once; default: as fit in memory")
    p.add_argument("--memory", type=float, metavar="GIB", help="what the program may take; default: 1 GiB for a window")
    p.add_argument("--average", type=int, default=1, metavar="K", help="orientations to average, 1 to 8")
    p.add_argument("--classes", default="1", metavar="LIST", help='classes whose probability to write, such as "1,2"')
    p.add_argument(
        "--out-format",
        choices=("tiff", "npy", "zarr"),
        help="default: PNG for an image, TIFF for a stack or a large image",
    )
    p.add_argument(
        "--overlay", nargs="?", const="colours", choices=("colours", "edges"), help="images with the classes over them"
    )
    p.add_argument("--palette", metavar="LIST", help='a colour for each class: "#000000,#ff8000"')
    p.add_argument("--result", default="mask", metavar="KIND", help="what goes to stdout: mask, probability, ...")
    p.add_argument("--resume", action="store_true", help="go on with predictions that were interrupted")
    cli.computing(p, " (default: cpu)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0, or 1 when a file failed; the other files are predicted all the same."""
    args = build_parser().parse_args(argv)
    from minunet.prediction.command import run

    return run(args)


if __name__ == "__main__":
    sys.exit(cli.run(main))
