"""Weights for the loss: U-Net's map, which puts weight on the thin walls between touching cells; weights of classes."""

from __future__ import annotations

import math

import numpy as np

from minunet import backends
from minunet.errors import UserError

CLASS_WEIGHTS = ("balanced", "none", "max1")
HOST = "cpu"  # the backend that makes tiles and weight maps, whatever computes the network
REACH = 6.0  # in sigmas: what lies farther adds less than w0 * exp(-18) = 1.5e-8 * w0


def instances_from_labels(labels: np.ndarray) -> np.ndarray:
    """Number the cells of one section: 4-connected components of `labels > 0`, as int32 (H, W), 0 = background.

    >>> instances_from_labels(np.array([[1, 0, 1], [1, 0, 1]])).tolist()
    [[1, 0, 2], [1, 0, 2]]
    """
    from scipy import ndimage

    labels = np.asarray(labels)
    if labels.ndim != 2:
        raise UserError(f"labels: shape {labels.shape} is not one section (H, W); pass the sections one by one")
    return ndimage.label(labels > 0, output=np.int32)[0]


def weight_map(
    instances: np.ndarray,
    w0: float = 10.0,
    sigma: float = 5.0,
    class_weights: str = "balanced",
    where: str = "background",
) -> np.ndarray:
    """U-Net's weight map (Ronneberger 2015, equation 2) of one section, float32 (H, W).

        w(x) = w_c(x) + w0 exp(-(d1(x) + d2(x))^2 / (2 sigma^2))

    instances : integers (H, W), 0 = background, k > 0 = pixels of cell k
    d1, d2    : Euclidean distance in pixels from the pixel's centre to the nearest pixel centre of the nearest
                and of the second nearest cell (0 inside a cell, 1 for a 4-neighbour)
    w_c       : "balanced" n / (K n_k) for the K classes (background, cell) present, whose mean over the pixels
                is 1; "none" 1; "max1" balanced, scaled so that the rarest class has 1
    where     : the exponential is added on "background" pixels, or on "all"

    With fewer than two cells there is no exponential. Distances are measured up to 6 sigma from each cell, which
    changes w by less than 1.5e-8 w0. Raises UserError for negative or fractional instances and unknown options.

    >>> print(weight_map(np.array([[1, 0, 2]]), class_weights="none").round(3))
    [[ 1.    10.231  1.   ]]
    """
    instances = numbered(instances)
    w = border_term(instances, w0, sigma, where)
    classes = (instances > 0).view(np.uint8)
    w += class_weight_table(classes, class_weights)[classes]
    return w


def rim_of(sigma: float) -> int:
    """How many pixels outside of a window cells still matter for its border weights."""
    return math.ceil(REACH * sigma)


def border_term(
    instances: np.ndarray, w0: float = 10.0, sigma: float = 5.0, where: str = "background", rim: int = 0
) -> np.ndarray:
    """The exponential of `weight_map` alone, float32 (H - 2 rim, W - 2 rim): of all but the outer `rim` pixels."""
    if not (sigma > 0 and math.isfinite(sigma) and w0 >= 0 and math.isfinite(w0)):
        raise UserError(f"weight map: w0 = {w0} must be 0 or more and sigma = {sigma} px above 0")
    if where not in ("background", "all"):
        raise UserError(f'weight map: where = "{where}" is not known; use "background" or "all"')
    options = {"w0": w0, "sigma": sigma, "reach": rim_of(sigma), "rim": rim, "everywhere": where == "all"}
    with backends.use_backend(HOST):
        return backends.call("border_weights", numbered(instances)[None], **options)[0]


def class_weight_table(labels: np.ndarray, class_weights: str = "balanced", ignore_index: int = 255) -> np.ndarray:
    """Weight of each class from the class shares in `labels` (uint8), as float32 (256,): index it by the labels.

    Absent classes and `ignore_index` have weight 0. Modes as in `weight_map`.
    """
    if class_weights not in CLASS_WEIGHTS:
        raise UserError(f'class weights: "{class_weights}" is not known; use one of {", ".join(CLASS_WEIGHTS)}')
    counts = np.bincount(labels.ravel(), minlength=256).astype(np.float64)  # (256,)
    counts[ignore_index] = 0
    present = counts > 0
    table = np.zeros(256)
    if class_weights == "none":
        table[present] = 1
    else:
        table[present] = counts.sum() / (present.sum() * counts[present])
        if class_weights == "max1" and present.any():
            table /= table.max()
    return table.astype(np.float32)


def class_frequencies(labels: np.ndarray, n_classes: int, ignore_index: int = 255) -> tuple[np.ndarray, np.ndarray]:
    """(f, p), each float64 (K,), of label maps (S, H, W): f_c = pixels of c / counted pixels of the images that contain
    c, and p_c = pixels of c / all counted pixels; 0 for absent classes. Ignored pixels are not counted.
    """
    counts = np.stack([np.bincount(image.ravel(), minlength=256) for image in labels])  # (S, 256)
    counts[:, ignore_index] = 0
    counted = counts.sum(axis=1)  # (S,)
    counts = counts[:, :n_classes]  # (S, K)
    pixels, among = counts.sum(axis=0), ((counts > 0) * counted[:, None]).sum(axis=0)
    return pixels / np.maximum(among, 1), pixels / max(counted.sum(), 1)


def median_frequency_weights(labels: np.ndarray, n_classes: int, ignore_index: int = 255) -> np.ndarray:
    """w_c = median(f) / f_c, float32 (K,), f as in `class_frequencies`, the median over the classes present; 0 for
    absent ones. (Eigen and Fergus 2015; SegNet, arXiv 1511.00561, section 4.)

    >>> print(median_frequency_weights(np.array([[[0, 0, 0, 1]]]), 2).round(3))
    [0.667 2.   ]
    """
    f, _ = class_frequencies(labels, n_classes, ignore_index)
    present = f > 0
    weights = np.zeros(n_classes, np.float32)
    if present.any():
        weights[present] = np.median(f[present]) / f[present]
    return weights


def enet_weights(labels: np.ndarray, n_classes: int, ignore_index: int = 255) -> np.ndarray:
    """w_c = 1 / ln(1.02 + p_c), float32 (K,), p_c the share of class c's pixels (ENet, arXiv 1606.02147, sect. 5.1)."""
    _, p = class_frequencies(labels, n_classes, ignore_index)
    return (1 / np.log(1.02 + p)).astype(np.float32)


def numbered(instances: np.ndarray) -> np.ndarray:
    """The instances (H, W), integers of any kind, as C-contiguous int32."""
    instances = np.asarray(instances)
    if instances.ndim != 2 or instances.dtype.kind not in "bui":
        raise UserError(
            f"instances: {instances.dtype} {instances.shape} is not a section of cell numbers; "
            "pass integers (H, W), for example from instances_from_labels"
        )
    if instances.size and instances.min() < 0:
        raise UserError(f"instances: {instances.min()} is not a cell number; use 0 for background, 1, 2, ... for cells")
    if instances.size and instances.max() > np.iinfo(np.int32).max:
        used, index = np.unique(instances, return_inverse=True)
        instances = index.reshape(instances.shape) + (used[0] != 0)
    return np.ascontiguousarray(instances, np.int32)
