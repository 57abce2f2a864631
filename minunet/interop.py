"""Weights from PyTorch arrays. No PyTorch is imported: whatever NumPy can read as an array will do.

A state dict is taken apart into layers ("conv1": weight and bias; "bn1": weight, bias, running_mean, running_var), and
so is the model. Which layer goes where is said by a known naming scheme (minunet/models/ports.py), or, where none fits,
by order. Then each tensor is brought into this project's layout:

    convolution             (O, C, KH, KW)          -> (O, KH, KW, C)
    transposed convolution  (C_in, C_out, KH, KW)   -> (C_in, KH, KW, C_out): the convolution it is the adjoint of
      of 1x1, for a convolution  (C, O, 1, 1)       -> (O, 1, 1, C)
    linear layer            (O, C KH KW)            -> (O, KH, KW, C): a convolution that covers its whole input
    PReLU with one slope    (1,)                    -> (C,)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from minunet import backends
from minunet.models.ports import Pair, encoder_schemes
from minunet.models.ports_networks import arguments, other_forms, schemes
from minunet.nn import Module
from minunet.torchpickle import printable

ROLES = {"w": "weight", "b": "bias", "gamma": "weight", "beta": "bias", "slope": "weight"}  # ours -> PyTorch's
Layers = dict[str, dict[str, str]]  # layer -> {role, in PyTorch's words: name of the tensor}


class Misfit(NamedTuple):
    """A tensor that was given for one of the model's, and cannot be it. Shapes as PyTorch writes them."""

    ours: str
    theirs: str
    needed: tuple[int, ...]
    given: tuple[int, ...]
    cause: str

    def __str__(self) -> str:
        return f"{printable(self.theirs)} has shape {self.given}, {self.ours} needs {self.needed}: {self.cause}"


@dataclass
class Match:
    """What goes where, before anything is changed."""

    how: str  # in words: whose names, or by order
    values: dict[str, np.ndarray] = field(default_factory=dict)  # our tensor -> what it becomes
    source: dict[str, str] = field(default_factory=dict)  # our tensor -> theirs
    zeros: list[str] = field(default_factory=list)  # our biases, where the file's layer has none: they become zero
    misfits: list[Misfit] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # our tensors that nothing was given for: they stay
    unused: list[str] = field(default_factory=list)  # their tensors that go nowhere

    @property
    def fits(self) -> bool:
        """Whether most of what was paired fits: a file of another network agrees in a few small vectors at best."""
        return len(self.values) > len(self.misfits)


def from_torch(
    model: Module, state_dict: Mapping[str, Any], names: Mapping[str, str] | None = None, *, encoder: bool = False
) -> Module:
    """Fill `model` with a PyTorch state dict: by a map of names, by known names, or by order.

    state_dict : {PyTorch name: array or tensor}, in PyTorch's layouts (see above); biases that a convolution of it
        lacks become zero
    names   : {this model's tensor: PyTorch's}; without it the naming schemes of well-known ports and of torchvision are
        tried, then the layers are taken in order
    encoder : fill only the VGG16 or ResNet inside the model, from weights in torchvision's names; what else the state
        dict holds (its classifier) is left alone

    Returns the model. Raises ValueError, and changes nothing, where a tensor is missing, left over or of another
    shape: naming the tensors, both shapes and the likely cause.
    """
    found = match_tensors(model, state_dict, names) if names is not None else match(model, state_dict, encoder)
    if found.misfits:
        more = f" (and {len(found.misfits) - 1} more)" if len(found.misfits) > 1 else ""
        raise ValueError(f"from_torch: {found.misfits[0]}{more}")
    if found.kept:
        raise ValueError(f"from_torch: nothing given for {some(found.kept)} ({found.how})")
    if found.unused and not encoder:
        raise ValueError(f"from_torch: not used: {some(found.unused)} ({found.how})")
    fill(model, found)
    return model


def to_torch(model: Module) -> tuple[str, dict[str, np.ndarray]]:
    """(whose names, PyTorch state dict) of a model: `from_torch` the other way round.

    The names are those of the first known port of this network, in this form, that has all of its layers; else the
    names here, with "weight" and "bias". Layouts are PyTorch's: (O, C, KH, KW), transposed ones (C_in, C_out, KH, KW).
    """
    own = own_tensors(model)
    needed = layers(own)
    known = (*schemes(model, prefixed=True), own_scheme(model))
    whose, pairs = next((t, pairs) for t, pairs in known if {pair.ours for pair in pairs} == needed.keys())
    state = {}
    for pair in pairs:
        for role, name in needed[pair.ours].items():
            value = backends.to_numpy(own[name])
            if value.ndim == 4:
                value = value.transpose(3, 0, 1, 2) if pair.kind == "transposed" else value.transpose(0, 3, 1, 2)
                value = value[:, :, 0, 0] if pair.kind == "linear" else value
            state[f"{pair.theirs}.{role}"] = np.ascontiguousarray(value)
    return whose, state


def fill(model: Module, found: Match) -> None:
    """Copy what was matched into the model, converted to its precision."""
    own = own_tensors(model)
    for name, value in found.values.items():
        backends.write(own[name], value)
    for name in found.zeros:
        backends.write(own[name], 0)


def match(model: Module, state_dict: Mapping[str, Any], encoder: bool = False, ordered: bool = True) -> Match:
    """Which tensors go where, by the naming scheme that most of the layers agree with, or else by order.

    ordered : whether the state dict is in the order of the layers, as PyTorch's own are

    Raises ValueError where neither names nor order say anything: what the file has, what the model needs.
    """
    own, arrays = own_tensors(model), {k: v for k, v in state_dict.items() if _counts(k)}
    given, needed = layers(arrays), layers(own)
    known = encoder_schemes(model) if encoder else [*schemes(model), own_scheme(model)]
    how, pairs = _by_names(known, given)
    if encoder and not pairs:
        raise ValueError(f"{some(given)}: these are not torchvision's names of the encoder of {type(model).__name__}")
    if not pairs and not encoder:
        other, _ = _by_names(other_forms(model), given)
        if other:
            raise ValueError(f"these are the weights of another form of the network, {other}")
        if not ordered:
            raise ValueError(
                f"{some(arrays)}: these names are of no known port, and the file does not keep the order of the layers;"
                " take the .pth it was made of, or pass from_torch names="
            )
    pairs = pairs or _by_order(arrays, given, own, needed)
    found, reached = Match(f"by the names of {how}" if how else "by order"), set()
    for ours, theirs, change, kind in pairs:
        for role, name in needed[ours].items():
            reached.add(name)
            other = given.get(theirs, {}).get(role)
            if other is not None:
                value = _array(arrays[other])
                value = value.transpose(1, 0, 2, 3) if kind == "transposed" and value.ndim == 4 else value
                _put(found, model, name, own[name].shape, other, change(value) if change else value)
            elif role == "bias" and theirs in given and "running_mean" not in needed[ours]:
                found.zeros.append(name)
            else:
                found.kept.append(name)
    if not encoder:
        found.kept += [name for name in own if name not in reached]
    taken = {*found.source.values(), *(misfit.theirs for misfit in found.misfits)}
    found.unused = [name for name in arrays if name not in taken]
    return found


def match_tensors(model: Module, state_dict: Mapping[str, Any], names: Mapping[str, str]) -> Match:
    """Which tensors go where, by a map {our tensor: theirs}."""
    own, given = own_tensors(model), {k: v for k, v in state_dict.items() if _counts(k)}
    found = Match("by the names given")
    for name, array in own.items():
        if name not in names or names[name] not in given:
            found.kept.append(name)
        else:
            _put(found, model, name, array.shape, names[name], _array(given[names[name]]))
    found.unused = [k for k in given if k not in names.values()]
    return found


def own_tensors(model: Module) -> dict[str, Any]:
    """{dotted name: array itself} of the parameters and the batch-norms' statistics."""
    own = {name: p.data for name, p in model.named_parameters()}
    own.update((name, b) for name, b in model.named_buffers() if b.dtype.kind == "f")
    return own


def own_scheme(model: Module) -> tuple[str, list[Pair]]:
    """(title, pairs) of the names that stand here, as `to_torch` uses them where no port has others."""
    return "minunet", [Pair(layer, layer) for layer in layers(own_tensors(model))]


def layers(tensors: Iterable[str]) -> Layers:
    """Names of tensors by layer: {"bn1": {"weight": "bn1.weight", "running_mean": ...}}, in order of appearance."""
    found: Layers = {}
    for name in tensors:
        layer, _, role = name.rpartition(".")
        found.setdefault(layer, {})[ROLES.get(role, role)] = name
    return found


def some(names: Iterable[str]) -> str:
    """The first few names, and how many more."""
    names = list(names)
    shown = ", ".join(printable(n) for n in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _by_names(known: Iterable[tuple[str, list[Pair]]], given: Layers) -> tuple[str, list[Pair]]:
    """The scheme that most of its layers are found by, whatever stands before all their names; half at the least."""
    how, best, most = "", [], 0.5
    for scheme, pairs in known:
        first = pairs[0].theirs
        for prefix in {layer[: len(layer) - len(first)] for layer in given if f".{layer}".endswith(f".{first}")}:
            named = [pair._replace(theirs=prefix + pair.theirs) for pair in pairs]
            share = sum(pair.theirs in given for pair in named) / len(named)
            if share > most or (share == most and not best):
                how, best, most = scheme, named, share
    return how, best


def _by_order(arrays: Mapping[str, Any], given: Layers, own: Mapping[str, Any], needed: Layers) -> list[Pair]:
    """First to first, second to second, if both have the same kinds of layers in the same order."""
    theirs = {layer: _kind(arrays, tensors) for layer, tensors in given.items()}
    ours = {layer: _kind(own, tensors) for layer, tensors in needed.items()}
    if list(theirs.values()) == list(ours.values()):
        return [Pair(a, b) for a, b in zip(ours, theirs)]
    if Counter(theirs.values()) != Counter(ours.values()):
        raise ValueError(f"the weights are of another network: {_tally(theirs)} given, {_tally(ours)} needed")
    at = next(k for k, (a, b) in enumerate(zip(ours.values(), theirs.values())) if a != b)
    a, b = list(ours)[at], list(theirs)[at]
    raise ValueError(
        f"the layers stand in another order: number {at + 1} is {printable(b)}, a {theirs[b]}, where {a} needs a"
        f" {ours[a]}; pass from_torch names= to say which is which"
    )


def _kind(tensors: Mapping[str, Any], layer: Mapping[str, str]) -> str:
    """What a layer is, as far as its tensors say."""
    if "running_mean" in layer:
        return "batch-norm"
    axes = np.ndim(tensors[layer["weight"]]) if "weight" in layer else 0
    return "convolution" if axes in (2, 4) else "vector"


def _tally(kinds: Mapping[str, str]) -> str:
    counts = Counter(kinds.values())
    return ", ".join(f"{counts[k]} {k}{'s' if counts[k] != 1 else ''}" for k in sorted(counts)) or "nothing"


def _put(found: Match, model: Module, ours: str, shape: tuple[int, ...], theirs: str, value: np.ndarray) -> None:
    """Note what the tensor becomes, or why it does not fit."""
    needed = (shape[0], shape[3], *shape[1:3]) if len(shape) == 4 else tuple(shape)
    fitted = _fit(value, shape)
    if fitted is None:
        found.misfits.append(Misfit(ours, theirs, needed, value.shape, _cause(model, ours, needed, value.shape)))
    elif not np.isfinite(value).all():
        found.misfits.append(Misfit(ours, theirs, needed, value.shape, "it holds NaN or infinity; take another file"))
    else:
        found.values[ours], found.source[ours] = fitted, theirs


def _fit(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """`value` in our layout and of our shape, None if it cannot be."""
    if len(shape) == 4:
        o, kh, kw, c = shape
        if value.ndim == 2 and value.shape == (o, c * kh * kw):
            value = value.reshape(o, c, kh, kw)
        if value.shape == (c, o, 1, 1) and (kh, kw) == (1, 1) and c != o:
            value = value.transpose(1, 0, 2, 3)
        value = value.transpose(0, 2, 3, 1) if value.ndim == 4 else value
    elif value.shape == (1,):
        value = np.broadcast_to(value, shape)  # a single slope, the same for every channel
    return value if value.shape == tuple(shape) else None


def _cause(model: Module, ours: str, needed: tuple[int, ...], given: tuple[int, ...]) -> str:
    """The likely reason for another shape, and what to do; shapes as PyTorch writes them."""
    if len(needed) != len(given):
        return "another kind of layer"
    config = arguments(model)
    differ = [k for k in range(len(needed)) if needed[k] != given[k]]
    if len(needed) == 4 and given[:2] == (needed[1], needed[0]) and given[2:] == needed[2:]:
        return "a transposed convolution in the one is a convolution in the other"
    if any(k > 1 for k in differ):
        return "another size of kernel, so another form of the network"
    n_classes, in_channels = config.get("n_classes"), config.get("in_channels")
    first = ours == next(model.named_parameters())[0]
    if differ == [1] and needed[1] == in_channels and (first or in_channels != n_classes):
        return f"another number of image channels; build the model with in_channels={given[1]}"
    if {needed[k] for k in differ} == {n_classes} and len({given[k] for k in differ}) == 1:
        return f"another number of classes; build the model with n_classes={given[differ[0]]}"
    width = config.get("width")
    if width and (width * given[differ[0]]) % needed[differ[0]] == 0:
        return f"another width; if all layers differ so, build the model with width={width * given[0] // needed[0]}"
    return "another width or form of the network"


def _counts(name: str) -> bool:
    """Whether a tensor of PyTorch's is one of ours: its counter of batches is not."""
    return not name.endswith("num_batches_tracked")


def _array(value: Any) -> np.ndarray:
    """A NumPy view or copy of an array or of a tensor that may require a gradient."""
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
