"""A pickle reader that cannot run code: the few instructions PyTorch writes for a state dict, and nothing else.

A pickle is a program for a stack machine. Two of its instructions are the danger: GLOBAL names any function of any
module, REDUCE calls it. Python's own reader imports the name; this one never does. GLOBAL leaves a `Name` on the
stack if the name is on the lists below, REDUCE does what this file does for that name, and every other name or
instruction ends the reading. `pickletools.genops` splits the bytes into instructions; it runs none of them.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

_DICTS = {"collections.OrderedDict", "collections.Counter"}
_TENSORS = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"}
_PARAMETERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
_STORED = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
STORAGES = {f"torch.{kind}Storage": kind for kind in _STORED}
_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_INERT = {  # found beside the weights in training checkpoints; kept as a Name, never looked into
    *("argparse.Namespace", "numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    *("_codecs.encode", "torch.Size", "torch.device"),
    *(f"torch.{dtype}" for dtype in _DTYPES),
}
KNOWN = _DICTS | _TENSORS | _PARAMETERS | STORAGES.keys() | _INERT

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class RefusedError(ValueError):
    """The pickle asks for what no state dict needs. The message names it."""


@dataclass(frozen=True, eq=False)
class Name:
    """A module's name, as "torch.FloatStorage", or what calling an inert one would have made. Never imported."""

    text: str


@dataclass(frozen=True, eq=False)
class View:
    """A tensor: numbers offset + i0 stride0 + i1 stride1 + ... of a storage. Not checked yet."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any


def read(file: BinaryIO, storage: Callable[[Any], Any]) -> Any:
    """The object in the pickle at the file's position; the position is then just behind it.

    file    : bytes in memory (`io.BytesIO`), so that a length that the pickle claims reserves nothing
    storage : makes a storage of PyTorch's persistent id, ("storage", Name, key, location, numbers, ...)

    Returns dicts (of OrderedDict and Counter too), lists, tuples, strings, bytes, numbers, None, `View`s and `Name`s.
    Raises RefusedError for a name or instruction that is not known; ValueError, IndexError, TypeError or
    AttributeError for bytes that are no pickle. A structure may contain itself: walk it with care.
    """
    machine = _Machine(storage)
    for opcode, arg, _ in pickletools.genops(file):
        machine.step(opcode.name, arg)
    return machine.stack.pop()


class _Machine:
    """The stack; `below` keeps the stacks that MARK set aside; the memo holds what is used again."""

    def __init__(self, storage: Callable[[Any], Any]):
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storage = storage

    def step(self, op: str, arg: Any) -> None:
        """Carry out one instruction."""
        stack = self.stack
        if op in _LITERALS:
            stack.append(arg)
        elif op in ("BINPUT", "LONG_BINPUT"):
            self.memo[arg] = stack[-1]
        elif op == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif op in ("BINGET", "LONG_BINGET"):
            if arg not in self.memo:
                raise ValueError(f"memo {arg} is used before it is set")
            stack.append(self.memo[arg])
        elif op in _CONSTANTS:
            stack.append(_CONSTANTS[op])
        elif op in _EMPTY:
            stack.append(_EMPTY[op]())
        elif op in _TUPLES:
            items = [stack.pop() for _ in range(_TUPLES[op])]
            stack.append(tuple(reversed(items)))
        elif op == "MARK":
            self.below.append(stack)
            self.stack = []
        elif op == "TUPLE":
            items = self.above_mark()
            self.stack.append(tuple(items))
        elif op in ("SETITEM", "SETITEMS"):
            items = self.above_mark() if op == "SETITEMS" else [stack.pop(-2), stack.pop()]
            _update(self.stack[-1], list(zip(items[::2], items[1::2], strict=True)))
        elif op in ("APPEND", "APPENDS"):
            items = self.above_mark() if op == "APPENDS" else [stack.pop()]
            _expect(self.stack[-1], list).extend(items)
        elif op == "GLOBAL":
            stack.append(_name(arg.replace(" ", ".", 1)))
        elif op == "STACK_GLOBAL":
            name, module = _expect(stack.pop(), str), _expect(stack.pop(), str)
            stack.append(_name(f"{module}.{name}"))
        elif op in ("REDUCE", "NEWOBJ"):
            args, called = _expect(stack.pop(), tuple), _expect(stack.pop(), Name)
            stack.append(_call(called, args))
        elif op == "BUILD":  # attributes, such as OrderedDict's _metadata: nothing here needs them
            stack.pop()
            _expect(stack[-1], (dict, Name))
        elif op == "BINPERSID":
            stack.append(self.storage(stack.pop()))
        elif op not in ("PROTO", "FRAME", "STOP"):
            raise RefusedError(f"the pickle instruction {op}")

    def above_mark(self) -> list[Any]:
        """What was pushed since the last MARK, taken off."""
        items, self.stack = self.stack, self.below.pop()
        return items


def _name(text: str) -> Name:
    if text not in KNOWN:
        raise RefusedError(printable(text))
    return Name(text)


def _call(called: Name, args: tuple[Any, ...]) -> Any:
    """What REDUCE makes of a known name."""
    if called.text in _DICTS:
        made: dict[Any, Any] = {}
        for pairs in args:  # none, one dict, or one list of pairs (Python 2)
            _update(made, list(pairs.items() if isinstance(pairs, dict) else pairs))
        return made
    if called.text in _TENSORS:
        storage, offset, shape, strides = args[:4]
        return View(storage, offset, shape, strides)
    if called.text in _PARAMETERS:
        return _expect(args[0], View)
    if called.text in _INERT:
        return called
    raise RefusedError(f"a call of {called.text}")


def _update(target: Any, pairs: list[Any]) -> None:
    """Set items of a dict. Keys are plain: hashing a tuple nested a million deep would overflow C's stack."""
    for key, value in pairs:
        if not isinstance(key, str | bytes | int | float | None):
            raise RefusedError(f"a dict with a key of type {type(key).__name__}")
        _expect(target, dict)[key] = value


def _expect(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"the pickle uses a {type(value).__name__} as something else")
    return value


def printable(text: str) -> str:
    """A stranger's text, safe to print: ASCII without control characters, 80 characters at most."""
    shown = ascii(text[:80])[1:-1]
    return shown if len(text) <= 80 else shown + "..."
