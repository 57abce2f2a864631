"""Vector code for Numba: a thin layer over LLVM IR, with the host's vector width chosen when code is generated.

Numba's own vectoriser works on one loop at a time and cannot keep a block of accumulators in registers, which is
what a matrix product lives from. So the innermost kernels are written as LLVM vector instructions: loads, stores
and multiply-adds on `<LANES x float>`. LLVM turns them into AVX-512, AVX2, SSE or NEON; nothing here names one.

A kernel is a Python function that emits the body of an LLVM function; `kernel` makes it callable from `@njit` code.
Its first argument only carries the element type (`np.float32(0)` or `np.float64(0)`), all others are integers:
sizes, and byte addresses from `address`. Nothing checks bounds, so callers must.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import cache
from types import FunctionType

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

from minunet.jit import njit


def _has(feature: str) -> bool:
    """Whether the processor that Numba compiles for, this one or NUMBA_CPU_FEATURES's, has a feature of LLVM's name."""
    if config.CPU_FEATURES is None:
        return llvm.get_host_cpu_features().get(feature, False)
    return f"+{feature}" in config.CPU_FEATURES.split(",")


VECTOR_BYTES = 64 if _has("avx512f") else 32 if _has("avx") else 16
# 32 vector registers (AVX-512, NEON) hold 14 x 2 accumulators; 16 (AVX2, SSE) hold 6 x 2.
MAX_ROWS = 14 if VECTOR_BYTES == 64 or platform.machine().lower() in ("arm64", "aarch64") else 6
MAX_VECTORS = 2  # vectors side by side in a register block

I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
PTR = ir.PointerType()
BYTE = ir.IntType(8)


def lanes(dtype: np.dtype | type) -> int:
    """Elements of `dtype` in one vector register."""
    return VECTOR_BYTES // np.dtype(dtype).itemsize


def address(a: np.ndarray) -> int:
    """Byte address of the first element of `a`, which must outlive the use of it."""
    return a.__array_interface__["data"][0]


class Emit:
    """An IR builder that speaks of vectors of one element type, addressed in bytes."""

    def __init__(self, builder: ir.IRBuilder, elem: ir.Type):
        self.b = builder
        self.elem = elem
        self.size = 4 if isinstance(elem, ir.FloatType) else 8
        self.lanes = VECTOR_BYTES // self.size
        self.vec = ir.VectorType(elem, self.lanes)
        self.masktype = ir.VectorType(I1, self.lanes)
        self.suffix = f"v{self.lanes}f{8 * self.size}"

    # -- integers and control flow --------------------------------------------------------------------------------
    def int(self, value: int) -> ir.Constant:
        return ir.Constant(I64, value)

    def at(self, pointer: ir.Value, offset: ir.Value | int) -> ir.Value:
        """Pointer moved by `offset` bytes."""
        if isinstance(offset, int):
            if offset == 0:
                return pointer
            offset = self.int(offset)
        return self.b.gep(pointer, [offset], source_etype=BYTE)

    def pointer(self, addr: ir.Value) -> ir.Value:
        return self.b.inttoptr(addr, PTR)

    def loop(self, count: ir.Value, body: Callable[[ir.Value], None]) -> None:
        """`for i in range(count): body(i)`, never unrolled: twice the body would spill a full block of accumulators."""
        b = self.b
        before = b.block
        head, inside, after = (b.function.append_basic_block(s) for s in ("head", "inside", "after"))
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(I64)
        i.add_incoming(self.int(0), before)
        b.cbranch(b.icmp_signed("<", i, count), inside, after)
        b.position_at_end(inside)
        # An empty asm statement costs nothing; marked convergent, it may not be copied into a remainder loop.
        nothing = ir.InlineAsm(ir.FunctionType(ir.VoidType(), []), "", "", side_effect=True)
        b.call(nothing, [], attrs=("convergent", "nounwind"))
        body(i)
        i.add_incoming(b.add(i, self.int(1)), b.block)
        b.branch(head)
        b.position_at_end(after)

    # -- vectors --------------------------------------------------------------------------------------------------
    def splat(self, value: float) -> ir.Constant:
        return ir.Constant(self.vec, [value] * self.lanes)

    def variable(self, typ: ir.Type | None = None, init: ir.Value | None = None) -> ir.Value:
        """A local variable; LLVM keeps it in a register."""
        with self.b.goto_entry_block():
            slot = self.b.alloca(typ or self.vec)
        if init is not None:
            self.b.store(init, slot)
        return slot

    def get(self, slot: ir.Value, typ: ir.Type | None = None) -> ir.Value:
        return self.b.load(slot, typ=typ or self.vec)

    def load(self, pointer: ir.Value, mask: ir.Value | None = None) -> ir.Value:
        """One vector; with a mask, the other lanes are 0 and their memory is not touched."""
        if mask is None:
            return self.b.load(pointer, align=self.size, typ=self.vec)
        fn = self._declare(f"llvm.masked.load.{self.suffix}.p0", self.vec, [PTR, I32, self.masktype, self.vec])
        return self.b.call(fn, [pointer, ir.Constant(I32, self.size), mask, self.splat(0.0)])

    def store(self, value: ir.Value, pointer: ir.Value, mask: ir.Value | None = None, stream: bool = False) -> None:
        """One vector; with `stream` past the caches to memory, which takes a pointer aligned to vectors and no mask."""
        if mask is None:
            stored = self.b.store(value, pointer, align=VECTOR_BYTES if stream else self.size)
            if stream:
                stored.set_metadata("nontemporal", self.b.module.add_metadata([ir.Constant(I32, 1)]))
            return
        fn = self._declare(f"llvm.masked.store.{self.suffix}.p0", ir.VoidType(), [self.vec, PTR, I32, self.masktype])
        self.b.call(fn, [value, pointer, ir.Constant(I32, self.size), mask])

    def prefetch(self, pointer: ir.Value, write: bool = False, level: int = 1) -> None:
        """Start to bring the cache line at `pointer`, which need not be valid memory, into the cache of that level."""
        fn = self._declare("llvm.prefetch.p0", ir.VoidType(), [PTR, I32, I32, I32])
        self.b.call(fn, [pointer, *(ir.Constant(I32, i) for i in (int(write), 4 - level, 1))])  # 1: data

    def mask(self, count: ir.Value) -> ir.Value:
        """Lanes 0 .. count - 1."""
        ints = ir.VectorType(I64, self.lanes)
        return self.b.icmp_signed("<", ir.Constant(ints, list(range(self.lanes))), self._spread(count, ints))

    def broadcast(self, pointer: ir.Value) -> ir.Value:
        """The element at `pointer` in every lane."""
        return self._spread(self.b.load(pointer, align=self.size, typ=self.elem), self.vec)

    def fma(self, a: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
        """a * x + y, in one instruction where the machine has it."""
        return self.b.call(self._declare(f"llvm.fmuladd.{self.suffix}", self.vec, [self.vec] * 3), [a, x, y])

    def relu(self, x: ir.Value) -> ir.Value:
        zero = self.splat(0.0)
        return self.b.select(self.b.fcmp_ordered("<", x, zero), zero, x)

    def transpose(self, rows: list[ir.Value]) -> list[ir.Value]:
        """The elements of `rows`, a power of two of vectors, in the order of columns: LANES rows are a square block.

        After log2(rows) rounds of interleaving row i with row i + rows / 2.
        """
        n, half = self.lanes, len(rows) // 2
        low = ir.Constant(ir.VectorType(I32, n), [i // 2 + (i % 2) * n for i in range(n)])
        high = ir.Constant(ir.VectorType(I32, n), [i // 2 + (i % 2) * n + n // 2 for i in range(n)])
        for _ in range(len(rows).bit_length() - 1):
            out = []
            for i in range(half):
                out.append(self.b.shuffle_vector(rows[i], rows[i + half], low))
                out.append(self.b.shuffle_vector(rows[i], rows[i + half], high))
            rows = out
        return rows

    def _spread(self, scalar: ir.Value, typ: ir.VectorType) -> ir.Value:
        first = self.b.insert_element(ir.Constant(typ, ir.Undefined), scalar, ir.Constant(I32, 0))
        zeros = ir.Constant(ir.VectorType(I32, typ.count), [0] * typ.count)
        return self.b.shuffle_vector(first, ir.Constant(typ, ir.Undefined), zeros)

    def _declare(self, name: str, result: ir.Type, args: list[ir.Type]) -> ir.Function:
        found = self.b.module.globals.get(name)
        return found or ir.Function(self.b.module, ir.FunctionType(result, args), name)


def function(module: ir.Module, elem: ir.Type, name: str, n_args: int, body: Callable | None) -> ir.Function:
    """The function `name` of `n_args` int64, in `module` once: emitted by `body(emit, *args)`, or only declared."""
    name = f"minunet_{name}_{elem}"
    if name in module.globals:
        return module.globals[name]
    fn = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * n_args), name)
    fn.attributes.add("nounwind")
    if body is None:
        return fn
    fn.attributes.add("noinline")
    entry = fn.append_basic_block("entry")
    builder = ir.IRBuilder(entry)
    start = fn.append_basic_block("start")
    builder.branch(start)  # variables live in `entry`, code starts here
    builder.position_at_end(start)
    body(Emit(builder, elem), *fn.args)
    builder.ret_void()
    return fn


_entries: dict[str, object] = {}  # name of a kernel -> the compiled function that contains its code


def kernel(name: str, n_args: int, body: Callable) -> Callable:
    """`k(t, (ints...))` for @njit code: calls the function emitted by `body(emit, *ints)` for the type of `t`.

    The callers hold only the symbol, so that the kernel is compiled once and not again with each of them; whoever runs
    them must have called `prepare` first.
    """

    def caller(emitted: Callable | None):
        def typed(typingctx, t, args):
            if not isinstance(t, types.Float) or not isinstance(args, types.BaseTuple) or len(args) != n_args:
                return None

            def codegen(context, builder, signature, values):
                fn = function(builder.module, context.get_value_type(t), name, n_args, emitted)
                items = [builder.extract_value(values[1], i) for i in range(n_args)]
                builder.call(fn, [context.cast(builder, v, a, types.int64) for v, a in zip(items, args)])
                return context.get_dummy_value()

            return types.void(t, args), codegen

        return intrinsic(typed)

    # Numba stores compiled code under the file, line and name of a function: those of `body`, where the kernel is.
    code = _entry.__code__.replace(
        co_filename=body.__code__.co_filename, co_firstlineno=body.__code__.co_firstlineno, co_name=name
    )
    entry = FunctionType(code, {"call": caller(body)}, name)
    entry.__qualname__ = name
    entry.__module__ = body.__module__
    _entries[name] = njit(entry), n_args
    return caller(None)


def _entry(t, args):
    call(t, args)  # noqa: F821 (each kernel's entry has its own globals)


@cache
def prepare(dtype: np.dtype, *names: str) -> None:
    """Compile, or load from Numba's cache, the kernels that cached callers refer to by symbol."""
    for name in names:
        entry, n_args = _entries[name]
        signature = (from_dtype(np.dtype(dtype)), types.UniTuple(types.int64, n_args))
        entry.compile(signature)
        symbol = f"minunet_{name}_{'float' if signature[0] == types.float32 else 'double'}"
        llvm.add_symbol(symbol, entry.overloads[signature].library.get_pointer_to_function(symbol))


@intrinsic
def copy_bytes(typingctx, target, source, count):
    """Copy `count` bytes between addresses that do not overlap."""

    def codegen(context, builder, signature, values):
        ints = [context.cast(builder, v, a, types.int64) for v, a in zip(values, signature.args)]
        fn = _intrinsic(builder.module, "llvm.memcpy.p0.p0.i64", [PTR, PTR, I64, I1])
        pointers = [builder.inttoptr(v, PTR) for v in ints[:2]]
        builder.call(fn, [*pointers, ints[2], ir.Constant(I1, 0)])
        return context.get_dummy_value()

    return types.void(target, source, count), codegen


@intrinsic
def zero_bytes(typingctx, target, count):
    """Fill `count` bytes with zero."""

    def codegen(context, builder, signature, values):
        ints = [context.cast(builder, v, a, types.int64) for v, a in zip(values, signature.args)]
        fn = _intrinsic(builder.module, "llvm.memset.p0.i64", [PTR, BYTE, I64, I1])
        builder.call(fn, [builder.inttoptr(ints[0], PTR), ir.Constant(BYTE, 0), ints[1], ir.Constant(I1, 0)])
        return context.get_dummy_value()

    return types.void(target, count), codegen


@intrinsic
def fence(typingctx):
    """Whoever sees a later write of this thread also sees its streamed stores."""

    def codegen(context, builder, signature, values):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


def _intrinsic(module: ir.Module, name: str, args: list[ir.Type]) -> ir.Function:
    found = module.globals.get(name)
    return found or ir.Function(module, ir.FunctionType(ir.VoidType(), args), name)
