"""Module: a tree of parameters and buffers with names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from minunet import backends
from minunet.tensor import Tensor


class Parameter(Tensor):
    """A Tensor that training changes; Modules find it among their attributes.

    requires_grad : False freezes it: it has no gradient, and optimisers leave it alone
    lr_factor, decay_factor : what optimisers multiply the learning rate and the weight decay by (Caffe's lr_mult and
        decay_mult; its recipes double the rate of biases and do not decay them)
    """

    __slots__ = ("decay_factor", "lr_factor")

    def __init__(self, array: Any, requires_grad: bool = True, lr_factor: float = 1.0, decay_factor: float = 1.0):
        super().__init__(array, requires_grad=requires_grad)
        self.lr_factor, self.decay_factor = float(lr_factor), float(decay_factor)


class Module:
    """Base of layers and networks. Attributes that are Parameters, Modules, lists of Modules or (listed in
    `_buffers`) arrays are found in the order in which they were set; names are joined with dots.

    Subclasses define `forward`; calling the module calls it. `training` tells dropout and batch-norm what to do.
    """

    training = True
    _buffers: tuple[str, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *inputs: Any) -> Any:
        return self.forward(*inputs)

    def children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the modules directly below; those in a list are called `name.0`, `name.1`, ..."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, list | tuple):
                yield from ((f"{name}.{k}", m) for k, m in enumerate(value) if isinstance(m, Module))

    def modules(self) -> Iterator[Module]:
        """This module and all below it, depth first."""
        yield self
        for _, child in self.children():
            yield from child.modules()

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """(dotted name, Parameter) of every parameter, in order of definition."""
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                yield prefix + name, value
        for name, child in self.children():
            yield from child.named_parameters(f"{prefix}{name}.")

    def parameters(self) -> list[Parameter]:
        """Every parameter, in the order of `named_parameters`."""
        return [p for _, p in self.named_parameters()]

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """(dotted name, array) of what is saved but not trained: batch-norm's running statistics."""
        for name in self._buffers:
            yield prefix + name, getattr(self, name)
        for name, child in self.children():
            yield from child.named_buffers(f"{prefix}{name}.")

    def state_dict(self) -> dict[str, np.ndarray]:
        """{dotted name: NumPy copy} of all parameters and buffers."""
        state = {name: p.numpy().copy() for name, p in self.named_parameters()}
        state.update({name: backends.to_numpy(b).copy() for name, b in self.named_buffers()})
        return state

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Copy the values in, after checking all of them: names and shapes must match, nothing missing or left over.

        Raises ValueError that names the first offending tensors with both shapes; the module is then unchanged.
        """
        own: dict[str, Any] = {name: p.data for name, p in self.named_parameters()}
        own.update(self.named_buffers())
        missing, extra = [n for n in own if n not in state], [n for n in state if n not in own]
        if missing or extra:
            raise ValueError(
                f"these weights are not this model's: {len(missing)} tensors missing ({_some(missing)}),"
                f" {len(extra)} unknown ({_some(extra)})"
            )
        for name, array in own.items():
            if tuple(state[name].shape) != array.shape:
                raise ValueError(f"tensor {name} has shape {tuple(state[name].shape)}; this model needs {array.shape}")
        for name, array in own.items():
            backends.write(array, state[name])

    def train(self, mode: bool = True) -> Module:
        """Training behaviour of dropout and batch-norm, here and below. Returns self."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Prediction behaviour: no dropout, batch-norm by its running statistics. Returns self."""
        return self.train(False)

    def to(self, backend: str) -> Module:
        """Bring every parameter and batch-norm's statistics to the arrays of a backend, and forget gradients: to a GPU
        with `model.to("cuda")`, back with `model.to("cpu")`. Dropout's counts stay where they are: the host reads them.

        To be done before an optimiser is made, which keeps arrays of the parameters' kind. Returns self.
        """
        module_of = backends.get(backend)

        def moved(array: Any) -> Any:
            return array if isinstance(array, module_of.Array) else module_of.asarray(backends.to_numpy(array))

        for module in self.modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter):
                    value.data, value.grad = moved(value.data), None
                elif name in module._buffers and value.dtype.kind == "f":
                    setattr(module, name, moved(value))
        return self

    def zero_grad(self) -> None:
        """Forget every gradient."""
        for p in self.parameters():
            p.grad = None

    def astype(self, dtype: Any) -> Module:
        """Convert every parameter and floating-point buffer to `dtype`, and forget gradients. Returns self."""
        for module in self.modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter):
                    value.data, value.grad = value.data.astype(dtype), None
                elif name in module._buffers and value.dtype.kind == "f":
                    setattr(module, name, value.astype(dtype))
        return self


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") if names else "none"
