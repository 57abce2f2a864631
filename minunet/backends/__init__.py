"""Backends: who can run a kernel, which one is asked, and the one gate that every call goes through.

A backend is a module with
    name            its public name
    Array           the class of its arrays
    kernels         {row name: function(outputs..., inputs..., options...)}
    empty(shape, dtype)        an uninitialised array of its own
    asarray(a), numpy(a)       from and to NumPy
and, where its arrays are not NumPy's,
    overlap(a, b)              whether two contiguous arrays share memory
    capacity()                 bytes that arrays may take on the device, those that are there now included
    occupied()                 bytes that arrays take there now
It is imported when first used, so that `import minunet` needs neither Numba nor CuPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np

from minunet.backends.checks import check_out, work_of
from minunet.backends.kept import derived, fixed_weights, forget  # noqa: F401
from minunet.contract import ROWS
from minunet.errors import UsageError

# Public names in the order in which they are listed. Those whose module is missing are not part of this installation.
NAMES = ("cpu", "reference", "cuda", "cuda_host", "numba_cuda")
SHAPES = "shapes"  # infers shapes and counts work, computes nothing: see minunet.backends.shapes
DEFAULT = "cpu"
# For `use_backend("cuda", prefer=MIXED)`: rows that move memory by index or pixel, where Numba lacks nothing that raw
# kernels have. Those do the rest: convolution wants tensor cores, plain maps 16-byte loads. Not measured.
MIXED = dict.fromkeys(
    (
        "max_pool2d",
        "scatter_by_index",
        "gather_by_index",
        "softmax",
        "softmax_cross_entropy",
        "softmax_cross_entropy_grad",
        "pixel_cross_entropy",
        "sigmoid_cross_entropy",
        "sigmoid_cross_entropy_grad",
        "overlap",
        "overlap_grad",
    ),
    "numba_cuda",
)
PRECISIONS = ("default", "strict", "tf32", "bf16", "fp16")
_chosen: ContextVar[str | None] = ContextVar("minunet_backend", default=None)
_preferred: ContextVar[Mapping[str, str]] = ContextVar("minunet_preferred", default=MappingProxyType({}))
_counters: ContextVar[tuple[Counter, ...]] = ContextVar("minunet_counters", default=())
_precision: ContextVar[str] = ContextVar("minunet_precision", default="default")
_poison: ContextVar[bool] = ContextVar("minunet_poison", default=False)
_loaded: dict[str, ModuleType] = {}


class Counter:
    """What the gate counted: calls, FLOPs and bytes (every array touched once), in all and by kernel."""

    def __init__(self) -> None:
        self.calls = self.flops = self.bytes = 0
        self.by_kernel: dict[str, list[int]] = {}

    def add(self, name: str, flops: int, nbytes: int) -> None:
        self.calls += 1
        self.flops += flops
        self.bytes += nbytes
        entry = self.by_kernel.setdefault(name, [0, 0, 0])
        for k, amount in enumerate((1, flops, nbytes)):
            entry[k] += amount


def installed() -> list[str]:
    """Backends whose code is part of this installation."""
    return [name for name in NAMES if find_spec(f"{__name__}.{name}") is not None]


def available() -> list[str]:
    """Backends that can run here: installed, and their device and packages at hand.

    A backend module without `available()` needs nothing that minunet itself does not need.
    """
    return [name for name in installed() if getattr(_module(name), "available", lambda: True)()]


def require(name: str) -> str:
    """The name itself. Raises UsageError, saying why, where that backend cannot run here."""
    if name not in (can := available()):
        why = getattr(_module(name), "reason", str)() if name in installed() else ""
        raise UsageError(f"--backend {name}: is not available here{why and f' ({why})'}; choose {', '.join(can)}")
    return name


def _module(name: str) -> ModuleType:
    if name not in _loaded:
        if name != SHAPES and name not in installed():
            raise ValueError(f"backend {name!r} is not known here; there are: {', '.join(installed())}")
        _loaded[name] = import_module(f"{__name__}.{name}")
    return _loaded[name]


def get(name: str | None = None) -> ModuleType:
    """The named backend, or the one in use."""
    return _module(name or _chosen.get() or DEFAULT)


def owner(array: Any) -> ModuleType:
    """The backend to move `array` with: the one in use if the array is its kind, else the first that it belongs to."""
    chosen = get()
    if isinstance(array, chosen.Array):
        return chosen
    for module in map(_module, [*installed(), SHAPES]):
        if isinstance(array, module.Array):
            return module
    raise TypeError(f"no backend here works on {type(array).__module__}.{type(array).__name__}")


def to_numpy(array: Any) -> np.ndarray:
    """The array as a NumPy array: itself where it is one, else a copy from its device."""
    return array if isinstance(array, np.ndarray) else owner(array).numpy(array)


def write(array: Any, values: Any) -> None:
    """array[...] = values, from a NumPy array or a number, wherever `array` lies; converted to its dtype."""
    forget()
    if isinstance(array, np.ndarray):
        array[...] = values
    else:
        array[...] = owner(array).asarray(np.asarray(values, array.dtype)).reshape(np.shape(values))


@contextmanager
def use_backend(name: str, prefer: Mapping[str, str] | None = None) -> Iterator[ModuleType]:
    """Run every kernel inside the `with` block on the named backend.

    prefer : {row: backend} of rows that another backend runs, on the same arrays: `{"max_pool2d": "numba_cuda"}`, or
             the table `MIXED`

    Raises ValueError for an unknown name, and where a preferred backend lacks the row or works on other arrays.
    """
    module = _module(name)
    for row, other in (prefer or {}).items():
        _check_preferred(row, module, _module(other))
    token, mixed = _chosen.set(name), _preferred.set(MappingProxyType(dict(prefer or {})))
    try:
        yield module
    finally:
        _preferred.reset(mixed)
        _chosen.reset(token)


def _check_preferred(row: str, module: ModuleType, other: ModuleType) -> None:
    """Raise ValueError unless `other` can run the row where `module` runs the rest."""
    if row not in ROWS:
        raise ValueError(f"prefer: {row!r} is no kernel of the contract; minunet.contract.ROWS lists them")
    if other.name not in available():
        raise ValueError(f"prefer: backend {other.name!r} cannot run here ({other.reason()}); leave {row!r} out")
    if other.Array is not module.Array:
        kinds = " and ".join(f"{m.name!r} on {m.Array.__module__}.{m.Array.__name__}" for m in (module, other))
        raise ValueError(f"prefer: {row!r} cannot run on {other.name!r}: {kinds}; both must work on the same arrays")
    if row not in other.kernels:
        raise ValueError(f"prefer: backend {other.name!r} has no kernel {row!r}; leave it out")


@contextmanager
def precision(name: str) -> Iterator[None]:
    """How exact kernels inside the block must be. Raises ValueError for an unknown name.

    "default" : each kernel within its row's tolerance; the CPU convolves 3x3 in float32 by Winograd's algorithm
    "strict"  : sums of products of the numbers as they are, in their own precision, in every kernel: no Winograd
    "tf32" "bf16" "fp16" : a GPU's tensor cores may round the factors of float32 convolutions to 10, 7 or 10 bits of
                fraction (fp16: and to numbers up to 65504), and add in float32; elsewhere the same as "default"
    """
    if name not in PRECISIONS:
        raise ValueError(f"precision {name!r} is unknown; it is one of {', '.join(PRECISIONS)}")
    token = _precision.set(name)
    try:
        yield
    finally:
        _precision.reset(token)


def asked_precision() -> str:
    """The precision in use, one of PRECISIONS."""
    return _precision.get()


def strict() -> bool:
    """Whether kernels must do without algorithms that trade exactness for speed."""
    return _precision.get() == "strict"


@contextmanager
def count() -> Iterator[Counter]:
    """Count the work of every call inside the block: `with count() as c: ...; c.flops`."""
    counter = Counter()
    token = _counters.set((*_counters.get(), counter))
    try:
        yield counter
    finally:
        _counters.reset(token)


@contextmanager
def poison() -> Iterator[None]:
    """Fill every output with NaN (integers: the lowest value) before its kernel runs, so that a hole shows."""
    token = _poison.set(True)
    try:
        yield
    finally:
        _poison.reset(token)


def call(name: str, *inputs: Any, out: tuple[Any, ...] | None = None, **options: Any) -> Any:
    """Run kernel `name` through its contract row: check, allocate the outputs, launch, count.

    inputs : arrays in the row's order, None for a missing optional one
    out    : arrays to write instead of new ones (optimisers pass their own state)
    Returns the output, or the tuple of outputs where the row has several.
    Raises ValueError / TypeError where the arrays break the contract, NotImplementedError where the backend lacks it,
    UserError where it cannot run here.
    """
    row = ROWS[name]
    backend = get()
    kernel = _module(_preferred.get().get(name, backend.name)).kernels.get(name)
    if kernel is None:
        have = [other for other in available() if name in _module(other).kernels]
        raise NotImplementedError(f"backend {backend.name!r} has no kernel {name!r}; {', '.join(have) or 'nobody'} has")
    inputs += (None,) * (len(row.inputs) - len(inputs))  # missing optional arrays at the end
    work = work_of(row, inputs, options, backend)
    if out is None:
        outputs = tuple([backend.empty(spec.shape, spec.dtype) for spec in work.outputs])
        if _poison.get():
            for array in outputs:
                array.fill(np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).min)
    else:
        forget()
        outputs = out
        check_out(row, work.outputs, out, inputs, getattr(backend, "overlap", np.may_share_memory))
    passed = {k: v for k, v in options.items() if k not in row.shape_only} if row.shape_only else options
    kernel(*outputs, *inputs, **passed)
    for counter in _counters.get():
        counter.add(name, work.flops, sum(a.nbytes for a in (*inputs, *outputs) if a is not None))
    return outputs[0] if len(outputs) == 1 else outputs
