"""The operations: mathematics once. Each file holds forward, derivative and policy; kernels are called by name."""

from minunet.ops.conv import Padding, conv2d, conv_transpose2d
from minunet.ops.join import concat, crop_concat, pad
from minunet.ops.loss import softmax, softmax_cross_entropy
from minunet.ops.norm import batch_norm
from minunet.ops.pointwise import ACTIVATIONS, add, dropout, elu, leaky_relu, prelu, relu, scale, sigmoid
from minunet.ops.pool import global_avg_pool, max_pool2d, max_unpool2d
from minunet.ops.resample import upsample
from minunet.tensor import Tensor

# `a + b` and `2.0 * a`: attached here, since arrows go one way and a Tensor knows no operations
Tensor.__add__ = lambda self, other: add(self, other)
Tensor.__mul__ = Tensor.__rmul__ = lambda self, factor: scale(self, factor)

__all__ = [
    "ACTIVATIONS",
    "Padding",
    "add",
    "batch_norm",
    "concat",
    "conv2d",
    "conv_transpose2d",
    "crop_concat",
    "dropout",
    "elu",
    "global_avg_pool",
    "leaky_relu",
    "max_pool2d",
    "max_unpool2d",
    "pad",
    "prelu",
    "relu",
    "scale",
    "sigmoid",
    "softmax",
    "softmax_cross_entropy",
    "upsample",
]
