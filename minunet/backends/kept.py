"""What kernels made of weights that stay as they are: filters packed or transformed once instead of in every call.

No array tells that somebody wrote into it, so nothing is kept unless the caller says which weights stand still: inside
of `fixed_weights()`, as prediction does. In training there is nothing to gain: each step changes every filter, and its
forward and its backward pass want different orders.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

LIMIT = 2**29  # bytes; U-Net's 31 M weights, transformed by Winograd, are 450 MB


class _Kept:
    """The arrays that stand still, by id (they are held, so no other gets their id or address), and what was made.

    made : those of them that `derived` made, by id
    """

    def __init__(self, arrays: Iterable[Any], limit: int) -> None:
        self.arrays, self.limit, self.nbytes = {id(a): a for a in arrays}, limit, 0
        self.made: dict[int, Any] = {}
        self.entries: dict[Hashable, Any] = {}

    def holds(self, array: Any) -> bool:
        return id(array) in self.arrays or id(array) in self.made


_kept: ContextVar[_Kept | None] = ContextVar("minunet_kept", default=None)


@contextmanager
def fixed_weights(arrays: Iterable[Any], limit: int = LIMIT) -> Iterator[None]:
    """These arrays stay as they are inside of this block, so what kernels make of them is made once.

    arrays : weights, such as `[p.data for p in model.parameters()]`, and statistics; of others nothing is kept
    limit  : bytes that may be kept; of a block inside of another one with the same arrays the outer one's counts

    Writes that go through minunet are seen, and forget everything: an optimiser's step, `load_state_dict`,
    `backends.write`. Other writes into these arrays (`p.data[...] = 0`) belong outside of the block. It holds for the
    thread that enters it, and for one stream of the device. Afterwards nothing is kept.
    """
    inner, outer = _Kept(arrays, limit), _kept.get()
    if outer is not None and inner.arrays.keys() <= outer.arrays.keys():
        yield
        return
    token = _kept.set(inner)
    try:
        yield
    finally:
        _kept.reset(token)
        if outer is not None:
            forget()  # what was written inside was told to the inner one


def keep(weights: Any, key: Hashable, make: Callable[[], Any]) -> Any:
    """make(), or what it made when it was last called for these weights and this key, which says all else that the
    result depends on."""
    kept = _kept.get()
    if kept is None or not kept.holds(weights):
        return make()
    made = kept.entries.get((id(weights), key))
    if made is None:
        made = make()
        if kept.nbytes + made.nbytes <= kept.limit:
            kept.nbytes += made.nbytes
            kept.entries[id(weights), key] = made
    return made


def derived(sources: tuple[Any, ...], key: Hashable, make: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
    """The arrays of make(), or those that it made when it was last called for these sources and this key.

    Where all sources stand still (None does), so do these: what kernels make of them is kept as well.
    """
    kept = _kept.get()
    if kept is None or not all(source is None or kept.holds(source) for source in sources):
        return make()
    key = (*map(id, sources), key)
    arrays = kept.entries.get(key)
    if arrays is None:
        arrays = make()
        nbytes = sum(array.nbytes for array in arrays)
        if kept.nbytes + nbytes <= kept.limit:
            kept.nbytes += nbytes
            kept.entries[key] = arrays
            kept.made.update({id(array): array for array in arrays})
    return arrays


def forget() -> None:
    """Weights may have changed: called wherever minunet writes into arrays that exist."""
    kept = _kept.get()
    if kept is not None:
        kept.entries.clear()
        kept.made.clear()
        kept.nbytes = 0
