"""What goes wrong in training, and where: numbers that are not finite, dead ReLUs, one class only, a loss that stays.

Nothing here runs in a training step: modules are watched only inside `watching`, at validations and after a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from minunet import backends
from minunet.nn.layers import Dropout
from minunet.nn.module import Module
from minunet.tensor import Tensor, no_grad

DEAD = 0.5  # share of all channels behind a ReLU from which on dead ones are worth a warning
ONE = 0.999  # share of the pixels that is "everything" ...
SOME = 0.99  # ... where the truth has no more than this of the class
STILL = 0.98  # a loss above this part of what it was at first has not moved
ROWS = 4  # rows of the log before that is judged


def named_modules(model: Module, name: str = "") -> Iterator[tuple[str, Module]]:
    """(dotted name, module) of the model, called "", and of all modules below it."""
    yield name, model
    for child, module in model.children():
        yield from named_modules(module, f"{name}.{child}" if name else child)


@contextmanager
def watching(model: Module, see: Callable[[str, Module, Any], None]) -> Iterator[None]:
    """Inside the block every module shows what its forward returned: see(name, module, result), inner modules first."""
    modules = {id(module): (name, module, vars(module).get("forward")) for name, module in named_modules(model)}
    for name, module, _ in modules.values():
        vars(module)["forward"] = _shown(name, module, module.forward, see)
    try:
        yield
    finally:
        for _, module, before in modules.values():
            del vars(module)["forward"]
            if before is not None:
                vars(module)["forward"] = before


def _shown(name: str, module: Module, forward: Callable, see: Callable[[str, Module, Any], None]) -> Callable:
    def instead(*inputs: Any, **options: Any) -> Any:
        result = forward(*inputs, **options)
        see(name, module, result)
        return result

    return instead


def culprit(model: Module, loss_again: Callable[[], Tensor]) -> str:
    """Where the numbers of a step that failed broke, in words; the model is not to be trained on afterwards.

    loss_again : computes the failed step's loss once more, from the weights that it had

    The first of these that is found: weights that the update before has broken (the gradient broke there first, since
    backward goes from the last layer to the first); the output of a layer; the loss itself; a gradient.
    """
    broken = [name for name, p in model.named_parameters() if not _finite(p.numpy())]
    if broken:
        return f"the update before broke the weights, those of {broken[-1]} first"
    for module in model.modules():
        if isinstance(module, Dropout) and module.rate > 0:
            module.calls -= 1  # the masks of the step that failed
    first: list[str] = []

    def see(name: str, module: Module, result: Any) -> None:
        outputs = result if isinstance(result, tuple) else (result,)
        if not first and not all(_finite(y.numpy()) for y in outputs if isinstance(y, Tensor)):
            first.append(f"{name or 'the network'} ({type(module).__name__})")

    with np.errstate(all="ignore"):
        with watching(model, see):
            loss = loss_again()
        if first:
            return f"the output of {first[0]} is the first that is not finite"
        if not _finite(loss.numpy()):
            return "all layers' outputs are finite, and the loss of them is not"
        model.zero_grad()
        loss.backward()
    gradients = [n for n, p in model.named_parameters() if p.grad is not None and not _finite(Tensor(p.grad).numpy())]
    return f"the gradient of {gradients[-1]} is the first that is not finite" if gradients else ""


def _finite(array: np.ndarray) -> bool:
    return bool(np.isfinite(array).all())


class Dead(NamedTuple):
    """Channels behind ReLUs that are 0 everywhere in the window."""

    share: float  # of all
    layer: str  # with the largest share of them
    worst: float  # that share


def dead_relus(model: Module, x: np.ndarray) -> Dead | None:
    """Which channels are 0 in all of a window x, float32 (N, H, W, C); None where no layer ends in a ReLU.

    Layers whose own last step is a ReLU count, those of a convolution with its batch-norm as one.
    """
    counts: dict[str, tuple[int, int]] = {}

    def see(name: str, module: Module, result: Any) -> None:
        last = getattr(module, "bn", module)
        if getattr(last, "options", {}).get("activation") == "relu" and isinstance(result, Tensor):
            y = result.numpy()
            counts[name] = (int((~(y > 0).any(axis=(0, 1, 2))).sum()), y.shape[-1])

    training = model.training
    model.eval()
    with no_grad(), watching(model, see):
        model(Tensor(backends.get().asarray(x)))
    model.train(training)
    if not counts:
        return None
    layer = max(counts, key=lambda name: counts[name][0] / counts[name][1])
    dead, channels = (sum(c[k] for c in counts.values()) for k in (0, 1))
    return Dead(dead / channels, layer, counts[layer][0] / counts[layer][1])


def warnings(losses: Sequence[float], matrix: np.ndarray, dead: Dead | None, classes: Sequence[str]) -> list[str]:
    """One line for each thing that looks wrong at a validation.

    losses : of the log's rows, from the first on      matrix : the validation's confusion matrix (K, K)
    """
    found = []
    quarter = max(1, len(losses) // 4)
    if len(losses) >= ROWS:
        first, now = float(np.mean(losses[:quarter])), float(np.mean(losses[-quarter:]))
        if now >= STILL * first:
            found.append(f"the loss does not move: {first:.4f} at first, {now:.4f} now; try another --lr (--find-lr)")
    total = max(int(matrix.sum()), 1)
    predicted, true = matrix.sum(axis=0) / total, matrix.sum(axis=1) / total
    k = int(predicted.argmax())
    if predicted[k] >= ONE and true[k] <= SOME:
        found.append(
            f"the network predicts one class: {classes[k]} on {predicted[k]:.1%} of the held-out pixels, which has"
            f" {true[k]:.1%}"
        )
    if dead is not None and dead.share >= DEAD:
        found.append(
            f"dead ReLUs: {dead.share:.0%} of the channels are 0 on a held-out window, {dead.worst:.0%} of those of"
            f" {dead.layer}; a lower --lr keeps more of them"
        )
    return found
