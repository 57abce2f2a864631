"""What a kernel is held to: its row's tolerance, determinism, untouched inputs, nothing written beyond its output.

Every pass condition reads "finite and err <= tol", so that a NaN fails; tests/test_checks.py feeds these functions
wrong kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from cases import Case, cases

from minunet import backends
from minunet.contract import ROWS, Row, Spec

JOINT = ("add", "crop_concat")  # linear in their inputs together; in one of them when the other is zero
GUARD = 37  # odd, so that a guarded array is aligned to its element size and to nothing more
SENTINEL = -12345

Arrays = tuple[np.ndarray, ...]


def run(backend: str, row: Row, inputs: tuple, options: dict[str, Any]) -> Arrays:
    """NumPy in, NumPy out, through the gate and with poisoned outputs."""
    with backends.use_backend(backend) as module, backends.poison():
        result = backends.call(row.name, *(None if x is None else module.asarray(x) for x in inputs), **options)
        return tuple(module.numpy(y) for y in (result if isinstance(result, tuple) else (result,)))


def exact(row: Row, inputs: tuple, options: dict[str, Any]) -> Arrays:
    """The reference's answer in float64."""
    return run("reference", row, tuple(widen(x) for x in inputs), options)


def reference(row_name: str, *inputs: np.ndarray | None, **options: Any) -> np.ndarray | Arrays:
    """The reference's answer for these arrays as they are: one array, or a tuple where the row has several outputs."""
    result = run("reference", ROWS[row_name], inputs, options)
    return result[0] if len(result) == 1 else result


def sums(row_name: str, *inputs: np.ndarray | None, call: Any = reference, **options: Any) -> np.ndarray:
    """What a loss is made of, (sum w l, sum w, how many count), or (sum l, how many count) of the focal loss: read off
    the losses and factors of all reductions.
    """
    kinds = ("weighted", "mean")[row_name == "focal_loss" :]
    loss, one = call(row_name, *inputs, **options, reduction="sum")
    factors = [float(call(row_name, *inputs, **options, reduction=kind)[1]) for kind in kinds]
    assert one == 1
    return np.array([float(loss), *(1 / f if f else 0.0 for f in factors)])


def near(a: np.ndarray, b: np.ndarray, tolerance: float = 1e-12) -> bool:
    """Same shape, finite, and norm(a - b) <= tolerance norm(b)."""
    a, b = np.asarray(a), np.asarray(b)
    error = np.linalg.norm((a - b).ravel()) if a.shape == b.shape else np.inf
    return bool(np.isfinite(a).all() and error <= tolerance * np.linalg.norm(b.ravel()))


def widen(x: np.ndarray | None) -> np.ndarray | None:
    return x.astype(np.float64) if x is not None and x.dtype.kind == "f" else x


def sample(case: Case, dtype: np.dtype, seed: int = 0) -> tuple[np.ndarray | None, ...]:
    """The case's arrays; the same for every backend."""
    return case.inputs(np.random.default_rng(seed), np.dtype(dtype))


def compare(row: Row, result: Arrays, truth: Arrays, dtype: np.dtype, slack: float = 1.0) -> None:
    """Shapes equal, integers equal, every float finite and norm(result - truth) <= slack tolerance norm(truth)."""
    assert len(result) == len(truth), f"{row.name}: {len(result)} outputs instead of {len(truth)}"
    for k, (y, expected) in enumerate(zip(result, truth)):
        where = f"{row.name}, output {k}"
        assert y.shape == expected.shape, f"{where}: shape {y.shape}, not {expected.shape}"
        if expected.dtype.kind == "i":
            assert np.array_equal(y, expected), f"{where}: {(y != expected).sum()} of {y.size} integers differ"
            continue
        assert np.isfinite(y).all(), f"{where}: {np.count_nonzero(~np.isfinite(y))} of {y.size} values are not finite"
        error, size = np.linalg.norm((y - expected).ravel()), np.linalg.norm(expected.ravel())
        bound = slack * row.tolerance[np.dtype(dtype)]
        assert error <= bound * size, f"{where}: relative error {error / size if size else np.inf:.1e} > {bound:.1e}"


def check_case(backend: str, row: Row, case: Case, dtype: np.dtype, seed: int = 0) -> None:
    """One case: dtype, value, inputs unchanged, the same bits again."""
    inputs = sample(case, dtype, seed)
    before = [None if x is None else x.copy() for x in inputs]
    result = run(backend, row, inputs, case.options)
    specs = row.rule(*(None if x is None else Spec(x.shape, x.dtype) for x in inputs), **case.options).outputs
    assert [y.dtype for y in result] == [spec.dtype for spec in specs], f"{row.name}: wrong dtype"
    compare(row, result, exact(row, inputs, case.options), dtype)
    for name, x, old in zip(row.inputs, inputs, before):
        assert x is None or x.tobytes() == old.tobytes(), f"{row.name}: input {name} was changed"
    again = run(backend, row, inputs, case.options)
    for y, z in zip(result, again):
        assert y.tobytes() == z.tobytes(), f"{row.name}: a second call gives other bits"


def guarded(shape: tuple[int, ...], dtype: np.dtype, fill: float) -> tuple[np.ndarray, np.ndarray]:
    """An array in the middle of a larger buffer that is full of `fill`, and that buffer."""
    size = int(np.prod(shape))
    buffer = np.full(size + 2 * GUARD, fill, dtype)
    return buffer[GUARD : GUARD + size].reshape(shape), buffer


def check_bounds(backend: str, row: Row, case: Case, dtype: np.dtype, seed: int = 0) -> None:
    """Nothing outside the outputs is written; nothing outside the inputs is used: there is NaN (integers: -12345).

    For backends that work on NumPy arrays. These arrays also have the least alignment that NumPy arrays have.
    """
    plain = sample(case, dtype, seed)
    inputs: list[np.ndarray | None] = []
    for x in plain:
        if x is None:
            inputs.append(None)
            continue
        inside, _ = guarded(x.shape, x.dtype, np.nan if x.dtype.kind == "f" else SENTINEL)
        inside[...] = x
        inputs.append(inside)
    specs = row.rule(*(None if x is None else Spec(x.shape, x.dtype) for x in plain), **case.options).outputs
    outputs, buffers = zip(*(guarded(spec.shape, spec.dtype, SENTINEL) for spec in specs))
    with backends.use_backend(backend):
        backends.call(row.name, *inputs, out=outputs, **case.options)
    for buffer in buffers:
        outside = np.concatenate((buffer[:GUARD], buffer[-GUARD:]))
        assert (outside == SENTINEL).all(), f"{row.name}: wrote outside of its output"
    compare(row, outputs, exact(row, plain, case.options), dtype)


def check_in_place(backend: str, row: Row, case: Case, dtype: np.dtype, seed: int = 0) -> None:
    """Written over its own state, an update gives the bits that it gives into fresh arrays."""
    inputs = sample(case, dtype, seed)
    fresh = run(backend, row, inputs, case.options)
    with backends.use_backend(backend) as module:
        own = [module.asarray(x.copy()) for x in inputs]
        backends.call(row.name, *own, out=tuple(own[: len(fresh)]), **case.options)
        for y, z in zip(own, fresh):
            assert module.numpy(y).tobytes() == z.tobytes(), f"{row.name}: in place, the result differs"


# Rows whose reference has NaN just where the formula has it; others multiply by matrices whose zeros spread it.
NAN = (
    *("relu", "leaky_relu", "elu", "sigmoid", "tanh", "prelu", "max_pool2d", "channel_moments", "batch_norm"),
    *("l2_normalize", "l2_normalize_grad", "lrn", "softmax", "softmax_cross_entropy", "pixel_cross_entropy"),
    *("sigmoid_cross_entropy", "sigmoid_cross_entropy_grad", "overlap", "distance", "distance_grad"),
)


def nan_cases(name: str) -> list[Case]:
    """Cases of such a row, but for those where the reference multiplies a NaN by zero."""
    return [case for case in cases(name) if not any(words in case.label for words in ("below eps", "still"))]


def check_nan(backend: str, row: Row, case: Case, dtype: np.dtype, seed: int = 0) -> None:
    """A NaN in an input makes NaN of exactly those numbers of which it does in the reference: no maximum and no
    comparison loses it, and no index changes."""
    for k, x in enumerate(sample(case, dtype, seed)):
        if x is None or x.dtype.kind != "f" or not x.size:
            continue
        inputs = list(sample(case, dtype, seed))
        inputs[k].reshape(-1)[x.size // 2] = np.nan
        found, truth = run(backend, row, tuple(inputs), case.options), exact(row, tuple(inputs), case.options)
        for y, expected in zip(found, truth):
            if y.dtype.kind == "f":
                y, expected = np.isnan(y), np.isnan(expected)
            assert np.array_equal(y, expected), f"{row.name}, {case.label}: a NaN in {row.inputs[k]} does not show"


def check_linear(backend: str, row: Row, case: Case, dtype: np.dtype, seed: int = 0) -> None:
    """f(a u + b v) = a f(u) + b f(v) in each linear input, the others standing still (zero in `JOINT` rows)."""
    a, b = 0.75, -1.25
    inputs, others = sample(case, dtype, seed), sample(case, dtype, seed + 1)
    for name in row.linear:
        k = row.inputs.index(name)
        rest = [np.zeros_like(x) for x in inputs] if row.name in JOINT else list(inputs)

        def f(x: np.ndarray, rest: list = rest, k: int = k) -> Arrays:
            return run(backend, row, (*rest[:k], np.ascontiguousarray(x, dtype), *rest[k + 1 :]), case.options)

        u, v = inputs[k], others[k]
        for y, yu, yv in zip(f(a * u + b * v), f(u), f(v)):
            assert y.dtype.kind == "f"
            expected = a * yu.astype(np.float64) + b * yv.astype(np.float64)
            size = abs(a) * np.linalg.norm(yu) + abs(b) * np.linalg.norm(yv)
            error, tolerance = np.linalg.norm((y - expected).ravel()), 4 * row.tolerance[np.dtype(dtype)]
            fine = bool(np.isfinite(y).all() and error <= tolerance * size)
            assert fine, f"{row.name} is not linear in {name}: {error:.1e} of {size:.1e}"


def missing(backend: str) -> list[str]:
    """The rows for which a backend has no kernel."""
    return [name for name in ROWS if name not in backends.get(backend).kernels]
