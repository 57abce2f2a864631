"""Which function launches which row: by name, in the module of the row's stem."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper

from minunet.backends.cuda import augment, conv, join, loss, matmul, norm, optim, pointwise, pool, resample
from minunet.backends.cuda.launch import Device
from minunet.contract import ROWS

STEMS = {
    "conv": conv,
    "pool": pool,
    "resample": resample,
    "join": join,
    "norm": norm,
    "loss": loss,
    "matmul": matmul,
    "pointwise": pointwise,
    "optim": optim,
    "augment": augment,
}


def bind(device: Device) -> dict[str, Callable[..., None]]:
    """{row name: launcher on this device}, for the rows that have one."""
    found = {}
    for row in ROWS.values():
        launcher = getattr(STEMS.get(row.stem), row.name, None)
        if launcher is not None:
            found[row.name] = update_wrapper(partial(launcher, device), launcher)
    return found
