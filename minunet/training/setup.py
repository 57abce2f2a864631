"""What a run starts with: weights of the classes, the optimiser, the scale of the loss."""

from __future__ import annotations

import math

import numpy as np

from minunet import backends
from minunet.data import enet_weights, median_frequency_weights
from minunet.models import Network
from minunet.nn.optim import SGD, Adam, Optimizer
from minunet.training.config import Config


def class_weights(config: Config, labels: np.ndarray, n_classes: int) -> np.ndarray | None:
    """The weights of the classes that the Config names, float32 (K,), from the training labels."""
    if config.class_weights == "none":
        return None
    return {"median": median_frequency_weights, "enet": enet_weights}[config.class_weights](labels, n_classes)


def loss_scale(config: Config, pixels: int) -> float:
    """What the loss is multiplied with before backward, a power of two: 1, but for factors of float16.

    A mean over n pixels has gradients of about 1 / n at the logits: 8e-6 for 350 x 350, where float16 has 24 bits less
    than float32 and ends at 6e-8. So the scale is the power of two up to n, and not above 2^16, as float16 ends at
    65504: gradients at the logits are then about 1.
    """
    if backends.asked_precision() != "fp16" or config.reduction == "sum":
        return 1.0
    return float(2 ** min(16, int(math.log2(pixels))))


def make_optimizer(config: Config, model: Network) -> Optimizer:
    """The optimiser that the Config names."""
    if config.optimizer == "adam":
        return Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    options = {"momentum": config.momentum, "weight_decay": config.weight_decay, "nesterov": bool(config.nesterov)}
    return SGD(model.parameters(), lr=config.lr, **options)
