"""Prediction of images of any size: which windows a network is run on, and how their outputs become one image.

A network without padding ("valid") predicts the middle of what it sees. Its windows reach beyond the image by that
margin, filled by mirroring, and its outputs tile the image (Ronneberger 2015, figure 2). Windows start at multiples
of the network's stride, so that pooling falls on the same pixels in each: one window or many, the result is the same
to rounding error.

A network that pads with zeros ("same") predicts all that it sees, the border with the zeros in view. One window covers
the image, mirrored at the bottom and the right to a legal size. Where that is too much for the memory, windows overlap,
and CONTEXT pixels next to a cut are thrown away: beyond the reach of a pixel's surroundings nothing changes (U-Net of
depth 4: 95 px), but a network that sees farther than CONTEXT gives slightly different values near cuts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from minunet import backends, ops
from minunet.data.tiles import Tile, plan, symmetries
from minunet.errors import UserError
from minunet.models.base import Network
from minunet.tensor import Tensor, no_grad

MEMORY = 1 << 30  # bytes that the activations of one window may take
ARRAYS = 6  # full-resolution arrays of the first layer's width alive at once: U-Net's last concatenation needs 5
CONTEXT = 96  # pixels thrown away next to a cut, in networks that pad with zeros
STRIDE = 32  # of networks whose legal sizes do not tell: no network of this era pools more often than 5 times

Place = tuple[Tile, int, int]  # a tile, and the row and column of the network's output at which its target begins


def predict_image(
    model: Network,
    image: np.ndarray,
    tile: int | tuple[int, int] | None = None,
    average: int = 1,
    progress: Callable[[int, int], object] | None = None,
) -> np.ndarray:
    """Class probabilities (H, W, K); see `minunet.predict.predict`, which is this function."""
    dtype = model.parameters()[0].dtype
    image = _checked(model, image, dtype)  # (H, W, C)
    versions = symmetries(average)
    result = None
    done = 0
    with evaluating(model), no_grad():
        for apply, undo in versions:
            turned = np.ascontiguousarray(apply(image))  # (H, W, C) or (W, H, C)
            places = layout(model, turned.shape[:2], _turned_tile(tile, turned, image))
            p = None
            for place, top, left in places:
                x = Tensor(backends.get().asarray(np.ascontiguousarray(place.read(turned)[None])))  # (1, h, w, C)
                logits = _full(model(x), model.output_size(*place.source[2:]))
                y = (ops.softmax if logits.shape[-1] > 1 else ops.sigmoid)(logits).numpy()[0]  # (oh, ow, K)
                if p is None:
                    p = np.empty((*turned.shape[:2], y.shape[-1]), dtype)
                place.write(p, y[top:, left:])
                done += 1
                if progress is not None:
                    progress(done, len(places) * len(versions))
            result = undo(p) if result is None else result + undo(p)
    return np.ascontiguousarray(result) if average == 1 else result * dtype.type(1 / average)


def layout(model: Network, size: tuple[int, int], tile: tuple[int, int] | None = None) -> list[Place]:
    """The windows for an image of size (H, W). `tile`: the output (h, w) wanted of each; None: what MEMORY allows."""
    stride, same = _stride(model), keeps_size(model)
    context = math.ceil(CONTEXT / stride) * stride if same else 0
    least = 2 * context + stride  # a smaller output would leave nothing to keep
    if tile is None:
        sides = (_affordable(model, least),) * 2
    else:
        sides = model.input_size(*(max(t + 2 * context, least) for t in tile))
    sides = tuple(min(side, whole) for side, whole in zip(sides, model.input_size(*size)))
    if not same:
        return [(t, 0, 0) for t in plan(size, sides, model.output_size(*sides), align=stride)]
    rows, columns = (_spans(n, model.input_size(n, n)[0], side, context, stride) for n, side in zip(size, sides))
    pairs = [(r, c) for r in rows for c in columns]
    return [(Tile((i, j, *sides), (i + u, j + v, h, w), (h, w)), u, v) for (i, u, h), (j, v, w) in pairs]


def _spans(n: int, whole: int, side: int, context: int, stride: int) -> list[tuple[int, int, int]]:
    """(start, skipped, kept) of windows along a line of n pixels, mirrored to `whole`: each begins at `start`, skips
    its first pixels up to the end of the window before, and keeps so many that the next has its context.

    n = 800, side = 512, context = 96, stride = 16: (0, 0, 384), (288, 96, 416).
    """
    if whole <= side:
        return [(0, 0, n)]
    last = math.ceil((whole - side) / stride) * stride  # ends where the only window would end
    starts = [*range(0, last, (side - 2 * context) // stride * stride), last]
    begins = [0, *(start + context for start in starts[1:]), n]
    return [(s, begin - s, end - begin) for s, begin, end in zip(starts, begins, begins[1:])]


def keeps_size(model: Network) -> bool:
    """Whether the network predicts all that it sees, as networks do that pad with zeros, and not the middle of it."""
    first = model.input_size(1, 1)[0]
    return model.trace(first) == first


def _full(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """A window's logits (1, oh, ow, K) with a pixel for each of the (h, w) that they stand for: coarse ones (DeepLab:
    41 for 321) are interpolated, their corners on the corners where they are every s-th pixel of an odd size (s = 8).
    """
    coarse = logits.shape[1:3]
    if coarse == tuple(size):
        return logits
    corners = all(f > 1 and c > 1 and f % c and (f - 1) % (c - 1) == 0 for f, c in zip(size, coarse))
    return ops.upsample(logits, size=size, mode="bilinear", align_corners=corners)


def _stride(model: Network) -> int:
    """Product of the network's strides: the step between its legal sizes, or STRIDE where it takes every size."""
    first = model.input_size(1, 1)[0]
    step = next(s for s in range(1, 1 + STRIDE * STRIDE) if model.trace(first + s) is not None)
    return step if step > 1 else STRIDE


def _affordable(model: Network, least: int) -> int:
    """The largest legal square window whose activations fit into MEMORY, or the smallest that gives `least` pixels."""
    weights = next(p for p in model.parameters() if p.data.ndim == 4)  # of the first layer, (O, KH, KW, C)
    pixel = ARRAYS * weights.shape[0] * weights.dtype.itemsize
    smallest = model.input_size(least, least)[0]
    sides = range(math.isqrt(MEMORY // pixel), smallest, -1)
    return next((s for s in sides if model.trace(s) is not None), smallest)


def _turned_tile(tile, turned, image) -> tuple[int, int] | None:
    """`tile` as (h, w), the two exchanged where the image was turned by a quarter."""
    if tile is None:
        return None
    h, w = (tile, tile) if isinstance(tile, int | np.integer) else tile
    if min(h, w) < 1:
        raise UserError(f"tile: {tile} must be at least 1 pixel; leave it out to have the size chosen")
    return (int(h), int(w)) if turned.shape == image.shape else (int(w), int(h))


def _checked(model: Network, image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The image as (H, W, C) of the model's dtype."""
    image = np.asarray(image)
    channels = model.channels if hasattr(model, "config") else (image.shape[2] if image.ndim == 3 else 1,)
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.size == 0 or image.dtype.kind not in "fiub":
        raise UserError(f"image: {image.dtype} {image.shape} is no image (H, W) or (H, W, C); pass one with pixels")
    if image.shape[2] not in channels:
        takes, grey = " or ".join(map(str, channels)), "grey image (H, W), and a stack section by section"
        raise UserError(
            f"image: has {image.shape[2]} channels (shape {image.shape}) where the network takes {takes}; pass "
            f"{f'a {grey}' if channels == (1,) else 'an image (H, W, C)'}"
        )
    if not np.isfinite(image).all():
        raise UserError("image: holds NaN or infinite values; replace them first")
    return image.astype(dtype, copy=False)


@contextmanager
def evaluating(model: Network) -> Iterator[None]:
    """Evaluation behaviour inside the block; afterwards every module's own training flag is back."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, flag in before:
            module.training = flag
