"""Prediction of images of any size: which windows a network is run on, and how their outputs become one image.

A network without padding ("valid") predicts the middle of what it sees. Its windows reach beyond the image by that
margin, filled by mirroring, and its outputs tile the image (Ronneberger 2015, figure 2). Windows start at multiples
of the network's stride, so that pooling falls on the same pixels in each: one window or many, the result is the same
to rounding error.

A network that pads with zeros ("same") predicts all that it sees, the border with the zeros in view. One window covers
the image, mirrored at the bottom and the right to a legal size. Where that is too much for the memory, windows overlap,
and CONTEXT pixels next to a cut are thrown away: beyond the reach of a pixel's surroundings nothing changes (U-Net of
depth 4: 95 px), but a network that sees farther than CONTEXT gives slightly different values near cuts.

Turned versions of an image are predicted target by target too: a target's place in the turned image says which window
there, on that image's own grid, covers it. So no more of an image than a window need ever be in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np

from minunet import backends, footprint, ops
from minunet.backends import kept
from minunet.boxes import Axis, Box, Layout, Size, turned, unturned  # noqa: F401 for who imports them here
from minunet.data.tiles import symmetries, window
from minunet.errors import DeviceMemoryError, UserError
from minunet.models.base import Network
from minunet.tensor import Tensor, no_grad

MEMORY = 1 << 30  # bytes that the activations of one window may take
SHARE = 0.8  # of a device's memory, where that is less; kernels need work space
CONTEXT = 96  # pixels thrown away next to a cut, in networks that pad with zeros
STRIDE = 32  # of networks whose legal sizes do not tell: no network of this era pools more often than 5 times


def layout(
    model: Network, size: Size, tile: int | Size | None = None, average: int = 1, memory: int | None = None
) -> Layout:
    """The windows for an image of size (H, W).

    tile   : the output (h, w) wanted of each; None: as large as `memory` allows
    memory : bytes for the arrays of one window (`minunet.footprint.activations`); None: MEMORY, or what a device has
    """
    stride, same = _stride(model), keeps_size(model)
    slack = stride - 1 if average > 1 else 0  # turned images have grids of their own
    context = math.ceil(CONTEXT / stride) * stride if same else 0
    least = 2 * context + stride + (stride if slack else 0)  # a smaller output would leave nothing to keep
    whole = model.input_size(*size)
    if tile is None:
        sides = _affordable(model, whole, least, room() if memory is None else memory)
    else:
        h, w = (tile, tile) if isinstance(tile, int | np.integer) else tile
        if min(h, w) < 1:
            raise UserError(f"tile: {tile} must be at least 1 pixel; leave it out to have the size chosen")
        sides = model.input_size(*(max(int(t) + 2 * context, least) for t in (h, w)))
    sides = tuple(_ending(model, *pair, stride, least) if same else min(pair) for pair in zip(sides, whole))
    outs = model.output_size(*sides)
    rows, columns = (Axis(*numbers, stride, context) for numbers in zip(size, whole, sides, outs))
    targets = [(i, j, h, w) for i, h in rows.targets(slack) for j, w in columns.targets(slack)]
    return Layout((rows, columns), targets, average)


def predict_image(
    model: Network,
    image: np.ndarray,
    tile: int | Size | None = None,
    average: int = 1,
    progress: Callable[[int, int], object] | None = None,
) -> np.ndarray:
    """Class probabilities (H, W, K); see `minunet.predict.predict`, which is this function."""
    image = _checked(model, image, model.parameters()[0].dtype)  # (H, W, C)
    symmetries(average)
    plan = layout(model, image.shape[:2], tile, average)
    total = len(plan.targets) * average
    result = None
    with fixed_weights(model):
        for k, target in enumerate(plan.targets):

            def show(done: int, k: int = k) -> None:
                if progress is not None:
                    progress(k * average + done, total)

            p = predict_target(model, lambda *box: window(image, *box), plan, target, show)  # (h, w, K)
            if len(plan.targets) == 1:
                return p
            if result is None:
                result = np.empty((*image.shape[:2], p.shape[2]), p.dtype)
            i, j, h, w = target
            result[i : i + h, j : j + w] = p
    return result


def predict_target(
    model: Network,
    read: Callable[[int, int, int, int], np.ndarray],
    plan: Layout,
    target: Box,
    progress: Callable[[int], object] | None = None,
) -> np.ndarray:
    """Class probabilities (h, w, K) of one target of a layout, C-contiguous, of the model's dtype.

    read     : (top, left, height, width) -> that window of the image (h, w, C), normalised, mirrored beyond its edges
    progress : called with the number of windows done after each
    """
    try:
        return _predict_target(model, read, plan, target, progress)
    except DeviceMemoryError as error:
        what = error.what
    raise UserError(f"{what}; {_fitting(model, plan)}")  # here, where the error no longer holds the window's arrays


def _predict_target(
    model: Network, read: Callable, plan: Layout, target: Box, progress: Callable[[int], object] | None
) -> np.ndarray:
    dtype = model.parameters()[0].dtype
    h, w = target[2:]
    result = None
    with evaluating(model), no_grad(), fixed_weights(model):
        for done, (box, (i, j), apply, undo) in enumerate(plan.windows(target), start=1):
            x = np.ascontiguousarray(apply(read(*box).astype(dtype, copy=False))[None])  # (1, wh, ww, C)
            size = x.shape[1:3]
            logits = full_size(model(Tensor(backends.get().asarray(x))), model.output_size(*size))
            y = (ops.softmax if logits.shape[-1] > 1 else ops.sigmoid)(logits).numpy()[0]  # (oh, ow, K)
            th, tw = (h, w) if (done - 1) % 2 == 0 else (w, h)
            p = undo(y[i : i + th, j : j + tw])
            del x, logits
            result = p.copy() if result is None else np.add(result, p, out=result)
            del y, p
            if progress is not None:
                progress(done)
    return result if plan.average == 1 else np.multiply(result, dtype.type(1 / plan.average), out=result)


def room() -> int:
    """Bytes that the arrays of a window may take where nobody says how many."""
    backend = backends.get()
    if not hasattr(backend, "capacity"):
        return MEMORY
    return min(MEMORY, max(0, int(SHARE * (backend.capacity() - backend.occupied()))))


def _fitting(model: Network, plan: Layout) -> str:
    """What to do where a device has no room for this layout's windows."""
    size = tuple(axis.n for axis in plan.axes)
    now = max(max(h, w) for _, _, h, w in plan.targets)
    fits = max(max(h, w) for _, _, h, w in layout(model, size, None, plan.average).targets)
    tile = min(fits, 3 * now // 4)
    return f"tiles of {tile} x {tile} pixels, one at a time, would fit: give --tile {tile} (tile={tile})"


def keeps_size(model: Network) -> bool:
    """Whether the network predicts all that it sees, as networks do that pad with zeros, and not the middle of it."""
    first = model.input_size(1, 1)[0]
    return model.trace(first) == first


def may_see_beyond(model: Network) -> bool:
    """Whether a pixel's result may depend on more than CONTEXT pixels around it, and so on where windows are cut: in
    networks that pad with zeros or look at the whole window, but for U-Net of depth 4 or less, which sees 95.
    """
    shallow = model.config["model"] == "unet" and model.config.get("depth", 4) <= 4
    return keeps_size(model) and not shallow


def full_size(logits: Tensor, size: Size) -> Tensor:
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


def _ending(model: Network, side: int, whole: int, stride: int, least: int) -> int:
    """`side`, or where a network takes every size the next smaller (or larger) one with which the last window ends
    where the only one would: SegNet, whole = 330, side = 262: 234.
    """
    if side >= whole or (whole - side) % stride == 0:
        return min(side, whole)
    smaller = whole - math.ceil((whole - side) / stride) * stride
    return next(s for s in range(smaller, whole + 1, stride) if s >= least and model.trace(s) is not None)


def _affordable(model: Network, whole: Size, least: int, memory: int) -> Size:
    """`whole` where it fits into `memory` bytes, else the largest legal square window that does, or the smallest
    that gives `least` pixels.
    """
    pixel = model.parameters()[0].dtype.itemsize  # no network takes less for a pixel than one number
    if math.prod(whole) * pixel <= memory and footprint.activations(model, whole) <= memory:
        return whole
    smallest = model.input_size(least, least)[0]
    end = min(max(whole), math.isqrt(memory // pixel))
    low, high = smallest, max(end, smallest) + 1  # low fits, or must; high does not
    while high - low > 1:
        middle = next((s for s in range((low + high) // 2, low, -1) if model.trace(s) is not None), None)
        if middle is None:  # no legal size in the lower half
            middle = next((s for s in range((low + high) // 2, high) if model.trace(s) is not None), None)
            if middle is None:
                break
        if footprint.activations(model, (middle, middle)) <= memory:
            low = middle
        else:
            high = middle
    return low, low


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


def fixed_weights(model: Network) -> AbstractContextManager[None]:
    """The model's weights and statistics stay as they are inside of the block.

    So batch-norms are folded into filters once and not for each tile, and a GPU packs filters once.
    """
    device = getattr(backends.get(), "capacity", None)
    limit = kept.LIMIT if device is None else min(kept.LIMIT, device() // 8)
    arrays = [p.data for p in model.parameters()] + [array for _, array in model.named_buffers()]
    return backends.fixed_weights(arrays, limit)


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
