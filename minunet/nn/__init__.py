"""Networks' building blocks: Module, layers, initialisers, optimisers."""

from minunet.nn.layers import BatchNorm2d, Conv2d, ConvTranspose2d, Dropout, PReLU
from minunet.nn.module import Module, Parameter

__all__ = ["BatchNorm2d", "Conv2d", "ConvTranspose2d", "Dropout", "Module", "PReLU", "Parameter"]
