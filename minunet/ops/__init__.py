"""The operations: mathematics once. Each file holds forward, derivative and policy; kernels are called by name."""

from minunet.ops.binary import dice_loss, focal_loss, jaccard_loss, sigmoid_cross_entropy
from minunet.ops.conv import Padding, conv2d, conv_transpose2d
from minunet.ops.join import concat, crop, crop_concat, pad, pad_channels, split
from minunet.ops.loss import softmax, softmax_cross_entropy
from minunet.ops.matmul import matmul, reshape
from minunet.ops.norm import batch_norm, fold_batch_norm, l2_normalize, lrn
from minunet.ops.ohem import ohem_cross_entropy
from minunet.ops.pointwise import (
    ACTIVATIONS,
    add,
    dropout,
    dropout_channels,
    elu,
    gate,
    leaky_relu,
    prelu,
    relu,
    scale,
    sigmoid,
    tanh,
)
from minunet.ops.pool import avg_pool2d, global_avg_pool, max_pool2d, max_unpool2d
from minunet.ops.regression import mae_loss, mse_loss, smooth_l1_loss
from minunet.ops.resample import upsample
from minunet.tensor import Tensor

# `a + b` and `2.0 * a`: attached here, since arrows go one way and a Tensor knows no operations
Tensor.__add__ = lambda self, other: add(self, other)
Tensor.__mul__ = Tensor.__rmul__ = lambda self, factor: scale(self, factor)

__all__ = [
    "ACTIVATIONS",
    "Padding",
    "add",
    "avg_pool2d",
    "batch_norm",
    "concat",
    "conv2d",
    "conv_transpose2d",
    "crop",
    "crop_concat",
    "dice_loss",
    "dropout",
    "dropout_channels",
    "elu",
    "focal_loss",
    "fold_batch_norm",
    "gate",
    "global_avg_pool",
    "jaccard_loss",
    "l2_normalize",
    "leaky_relu",
    "lrn",
    "mae_loss",
    "matmul",
    "max_pool2d",
    "max_unpool2d",
    "mse_loss",
    "ohem_cross_entropy",
    "pad",
    "pad_channels",
    "prelu",
    "relu",
    "reshape",
    "scale",
    "sigmoid",
    "sigmoid_cross_entropy",
    "smooth_l1_loss",
    "softmax",
    "softmax_cross_entropy",
    "split",
    "tanh",
    "upsample",
]
