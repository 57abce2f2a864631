"""Networks' building blocks: Module, layers, blocks, initialisers, optimisers."""

from minunet.nn import init
from minunet.nn.blocks import ConvBN, Sequential, UpBN, lr_factors
from minunet.nn.layers import BatchNorm2d, Conv2d, ConvTranspose2d, Dropout, DropoutChannels, PReLU
from minunet.nn.module import Module, Parameter

__all__ = [
    "BatchNorm2d",
    "Conv2d",
    "ConvBN",
    "ConvTranspose2d",
    "Dropout",
    "DropoutChannels",
    "Module",
    "PReLU",
    "Parameter",
    "Sequential",
    "UpBN",
    "init",
    "lr_factors",
]
