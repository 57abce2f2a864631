"""Losses as functions of arrays, for test_gradients: every reduction, every kind of weight, ignored elements."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minunet import ops

Rng = np.random.Generator
LOSSES: dict[str, tuple[Callable, Callable[[Rng], np.ndarray]]] = {}  # label: the loss, and its input


def normal(*shape: int) -> Callable[[Rng], np.ndarray]:
    return lambda rng: rng.normal(size=shape)


def away(*shape: int) -> Callable[[Rng], np.ndarray]:
    """Numbers of both signs whose size is neither near 0 nor near 1, where |d| and smooth L1 have a corner."""
    return lambda rng: rng.choice((-1.0, 1.0), shape) * rng.choice((0.1, 0.5, 0.8, 1.2, 3.0), shape)


# --- classes
TARGET = np.random.default_rng(5).integers(0, 4, (2, 3, 5))
HOLES = np.random.default_rng(6).random(TARGET.shape) < 0.3
SOME = np.where(HOLES, 255, TARGET).astype(np.uint8)
WEIGHT_MAP = np.random.default_rng(7).uniform(0, 5, TARGET.shape)
CLASS_WEIGHT = np.array([0.2, 1.0, 3.0, 0.0])
for reduction in ("mean", "sum", "weighted"):
    for label, target, options in (
        ("plain", TARGET, {}),
        ("ignored pixels", SOME, {}),
        ("class 0 ignored", TARGET, {"ignore_index": 0}),
        ("weight map", TARGET, {"weight_map": WEIGHT_MAP}),
        ("class weights", TARGET, {"class_weight": CLASS_WEIGHT}),
        ("all", SOME, {"weight_map": WEIGHT_MAP, "class_weight": CLASS_WEIGHT}),
        ("nothing counts", np.full_like(TARGET, 255), {}),
    ):
        LOSSES[f"softmax_cross_entropy {reduction}, {label}"] = (
            lambda x, t=target, r=reduction, o=options: ops.softmax_cross_entropy(x, t, reduction=r, **o),
            normal(2, 3, 5, 4),
        )
for label, target, options in (
    ("by threshold", TARGET, {}),
    ("few pixels", TARGET, {"threshold": 0.1}),
    ("least number", SOME, {"threshold": 0.05, "min_kept": 9}),
    ("class weights", SOME, {"threshold": 0.2, "class_weight": CLASS_WEIGHT}),
    ("nothing kept", TARGET, {"threshold": 1e-9}),
):
    LOSSES[f"ohem_cross_entropy {label}"] = (
        lambda x, t=target, o=options: ops.ohem_cross_entropy(x, t, **o),
        normal(2, 3, 5, 4),
    )

# --- two classes: logits (2, 3, 5, 1), target (2, 3, 5)
BITS = TARGET % 2
BITS_SOME = np.where(HOLES, 255, BITS).astype(np.uint8)
SOFT = np.random.default_rng(8).uniform(0, 1, TARGET.shape)
for reduction in ("mean", "sum", "weighted"):
    for label, target, options in (
        ("plain", BITS, {}),
        ("ignored pixels", BITS_SOME, {}),
        ("0 ignored", BITS, {"ignore_index": 0}),
        ("between 0 and 1", SOFT[..., None], {}),
        ("weight map, ignored pixels", BITS_SOME, {"weight_map": WEIGHT_MAP}),
        ("nothing counts", np.full_like(BITS, 255), {}),
    ):
        LOSSES[f"sigmoid_cross_entropy {reduction}, {label}"] = (
            lambda x, t=target, r=reduction, o=options: ops.sigmoid_cross_entropy(x, t, reduction=r, **o),
            normal(2, 3, 5, 1),
        )
for reduction in ("mean", "sum"):
    for label, target, options in (
        ("plain", BITS, {}),
        ("ignored pixels", BITS_SOME, {}),
        ("gamma 0", BITS, {"gamma": 0.0, "alpha": 0.5}),
        ("gamma 0.5", BITS, {"gamma": 0.5, "alpha": 0.9}),
        ("gamma 3.7", BITS_SOME, {"gamma": 3.7, "alpha": 0.1}),
        ("nothing counts", np.full_like(BITS, 255), {}),
    ):
        LOSSES[f"focal_loss {reduction}, {label}"] = (
            lambda x, t=target, r=reduction, o=options: ops.focal_loss(x, t, reduction=r, **o),
            normal(2, 3, 5, 1),
        )
for name in ("dice_loss", "jaccard_loss"):
    for label, target, smooth in (
        ("plain", BITS, 1.0),
        ("not smooth", BITS, 0.0),
        ("very smooth", BITS, 40.0),
        ("between 0 and 1", SOFT, 1.0),
        ("no object", np.zeros_like(BITS), 1.0),
    ):
        LOSSES[f"{name} {label}"] = (
            lambda p, n=name, t=target, s=smooth: getattr(ops, n)(p, t, s),
            lambda rng: rng.uniform(0.05, 0.95, (2, 3, 5, 1)),
        )

# --- differences
for name in ("mse_loss", "mae_loss", "smooth_l1_loss"):
    LOSSES[f"{name}"] = (lambda x, n=name: getattr(ops, n)(x, np.zeros((2, 3, 5, 3))), away(2, 3, 5, 3))
    LOSSES[f"{name} one number"] = (lambda x, n=name: getattr(ops, n)(x, np.full((1,), 7)), away(1))
