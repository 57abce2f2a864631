"""Optimisers: one kernel call a large parameter, one for all small ones. `minunet.optim` is this module."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from minunet import backends
from minunet.tensor import Tensor

JOINED = 4096  # elements of a parameter that is updated together with others: a call takes as long as 50,000 of them


class Optimizer:
    """Base: `step()` updates every parameter that has a gradient, in place; `lr` may be changed between steps.

    Frozen parameters (requires_grad = False) are left out. A parameter's `lr_factor` and `decay_factor`, where it has
    them, multiply the learning rate and the weight decay that it gets.

    loss_scale : the gradients are those of loss_scale times the loss, a power of two, so that small ones survive as
    factors of float16 (Micikevicius et al. 2018, arXiv 1710.03740, section 3.2). Nothing is divided for it: the state
    is kept in the gradients' scale and the rates are put into it, which changes no bit of an update but where numbers
    leave the range of normal ones. `state_dict` holds the state of the loss itself. To be set before the first step.
    """

    slots: tuple[str, ...] = ()  # names of the arrays kept for each parameter
    powers: tuple[int, ...] = ()  # of the gradients' scale in each
    loss_scale = 1.0

    def __init__(self, parameters: Iterable[Tensor], lr: float, weight_decay: float = 0.0):
        self.parameters = [p for p in parameters if p.requires_grad]
        if not self.parameters:
            raise ValueError("an optimiser needs at least one parameter that is not frozen")
        if not lr > 0:
            raise ValueError(f"the learning rate is {lr}; it must be positive")
        _at_least_0("weight decay", weight_decay)
        self.lr, self.weight_decay = lr, float(weight_decay)
        self.steps = 0
        self.state: dict[str, list[Any]] = {s: [0 * p.data for p in self.parameters] for s in self.slots}

    def step(self) -> None:
        """One update from the gradients that `backward` left. Gradients stay until `zero_grad`."""
        self.steps += 1
        groups: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}  # by rates: arrays of small parameters
        for k, p in enumerate(self.parameters):
            if p.grad is None:
                continue
            rate = float(self.lr) * getattr(p, "lr_factor", 1.0)
            decay = self.weight_decay * getattr(p, "decay_factor", 1.0)
            arrays = (p.data, *(self.state[s][k] for s in self.slots), p.grad)
            if _joinable(arrays):
                groups.setdefault((rate, decay, p.dtype), []).append(arrays)
            else:
                self._update(*arrays, lr=rate, weight_decay=decay)
        for (rate, decay, _), members in groups.items():
            joined = [np.concatenate([a.reshape(-1) for a in same]) for same in zip(*members)]
            self._update(*joined, lr=rate, weight_decay=decay)
            ends = np.cumsum([member[0].size for member in members])[:-1]
            for same, flat in zip(list(zip(*members))[:-1], joined):
                for a, part in zip(same, np.split(flat, ends)):
                    a[...] = part.reshape(a.shape)

    def _update(self, p: Any, *state_and_grad: Any, **rates: float) -> None:
        """Update p and its state in place, from its gradient: all of them arrays."""
        raise NotImplementedError(f"{type(self).__name__} does not define _update")

    def zero_grad(self) -> None:
        """Forget every gradient."""
        for p in self.parameters:
            p.grad = None

    def state_dict(self) -> dict[str, np.ndarray]:
        """{"steps": count, "slot.k": array of parameter k} as NumPy copies."""
        out = {"steps": np.array([self.steps], np.int64)}
        for s in self.slots:
            scale = self._scale_of(s)
            out.update({f"{s}.{k}": backends.to_numpy(a) / scale for k, a in enumerate(self.state[s])})
        return out

    def _scale_of(self, slot: str) -> np.float32:
        """What the slot's numbers are multiplied with; of float32, so that float32 divided by it stays float32."""
        return np.float32(self.loss_scale ** self.powers[self.slots.index(slot)])

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """The reverse of `state_dict`. Raises ValueError where a tensor is missing or has another shape; the optimiser
        is then unchanged.
        """
        if "steps" not in state:
            raise ValueError("optimiser state has no count of steps; it was not written by state_dict()")
        for s in self.slots:
            for k, a in enumerate(self.state[s]):
                found = state.get(f"{s}.{k}")
                if found is None or found.shape != a.shape:
                    shape = None if found is None else found.shape
                    raise ValueError(f"optimiser state {s}.{k} has shape {shape}; this model needs {a.shape}")
        for s in self.slots:
            for k, a in enumerate(self.state[s]):
                backends.write(a, state[f"{s}.{k}"] * self._scale_of(s))
        self.steps = int(state["steps"][0])


def _joinable(arrays: tuple[Any, ...]) -> bool:
    """Whether these are small NumPy arrays that fit each other; what does not fit is for the kernel to refuse."""
    first = arrays[0]
    return first.size <= JOINED and all(
        isinstance(a, np.ndarray) and a.shape == first.shape and a.dtype == first.dtype for a in arrays
    )


class SGD(Optimizer):
    """velocity <- momentum velocity + h;  p <- p - lr velocity, with h = grad + weight_decay p

    `nesterov`: p <- p - lr (h + momentum velocity). The first velocity is h itself. (Sutskever et al. 2013, in the form
    in which lr may change without rescaling the velocity.)
    """

    slots, powers = ("velocity",), (1,)

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        super().__init__(parameters, lr, weight_decay)
        _at_least_0("momentum", momentum, below=1)
        self.options = {"momentum": momentum, "nesterov": nesterov}

    def _update(self, p: Any, velocity: Any, grad: Any, *, lr: float, weight_decay: float) -> None:
        rates = {"lr": lr / self.loss_scale, "weight_decay": weight_decay * self.loss_scale}
        backends.call("sgd", p, velocity, grad, out=(p, velocity), **rates, **self.options)


class Adam(Optimizer):
    """m <- beta1 m + (1 - beta1) h;  v <- beta2 v + (1 - beta2) h^2;  p <- p - lr m^ / (sqrt(v^) + eps)

    m^ = m / (1 - beta1^t), v^ = v / (1 - beta2^t), h = grad + weight_decay p (Kingma & Ba 2015, algorithm 1).
    """

    slots, powers = ("m", "v"), (1, 2)

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(parameters, lr, weight_decay)
        beta1, beta2 = betas
        _at_least_0("beta1", beta1, below=1)
        _at_least_0("beta2", beta2, below=1)
        _at_least_0("eps", eps)
        self.options = {"beta1": beta1, "beta2": beta2}
        self.eps = eps

    def _update(self, p: Any, m: Any, v: Any, grad: Any, *, lr: float, weight_decay: float) -> None:
        rates = {"lr": lr, "weight_decay": weight_decay * self.loss_scale, "eps": self.eps * self.loss_scale}
        backends.call("adam", p, m, v, grad, out=(p, m, v), step=self.steps, **rates, **self.options)


def _at_least_0(name: str, value: float, below: float = float("inf")) -> None:
    if not 0 <= value < below:
        limit = "" if below == float("inf") else f" and below {below}"
        raise ValueError(f"the {name} is {value}; it must be at least 0{limit}")
