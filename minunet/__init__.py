"""minunet: segmentation networks in plain NumPy and CuPy, every forward and backward pass written by hand.

import minunet as mu; see README.md. Parts are imported when first used, so that `import minunet` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# public name -> (module, name in it); a name of None means the module itself
_WHERE = {
    "Tensor": ("minunet.tensor", "Tensor"),
    "no_grad": ("minunet.tensor", "no_grad"),
    "backends": ("minunet.backends", None),
    "use_backend": ("minunet.backends", "use_backend"),
    "precision": ("minunet.backends", "precision"),
    "ops": ("minunet.ops", None),
    "nn": ("minunet.nn", None),
    "optim": ("minunet.nn.optim", None),
    "models": ("minunet.models", None),
    "predict": ("minunet.predict", None),  # a module that can be called: mu.predict(model, image)
    "checkpoint": ("minunet.checkpoint", None),
    "from_torch": ("minunet.interop", "from_torch"),
    "to_torch": ("minunet.interop", "to_torch"),
    "export_onnx": ("minunet.export", "export_onnx"),
    "metrics": ("minunet.metrics", None),
    "data": ("minunet.data", None),
    "gradcheck": ("minunet.differences", "gradcheck"),
}
__all__ = [*_WHERE, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'minunet' has no attribute {name!r}")
    module, attribute = _WHERE[name]
    value = import_module(module)
    if attribute is not None:
        value = getattr(value, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
