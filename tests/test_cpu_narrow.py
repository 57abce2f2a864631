"""The CPU backend's convolutions as processors with shorter vectors run them: 32 bytes (AVX2) and 16 (SSE, NEON).

Numba compiles for the processor that it is told of; the tests of convolution then run once more, in a process of
their own with a cache of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

TESTS = Path(__file__).parent / "test_cpu_conv.py"
CHILD = """
import sys, pytest
from minunet.backends.cpu import simd
assert (simd.VECTOR_BYTES, simd.MAX_ROWS) == (int(sys.argv[1]), 6), (simd.VECTOR_BYTES, simd.MAX_ROWS)
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", sys.argv[2]]))
"""
PROCESSORS = {  # bytes of a vector: the processor's name for LLVM, and what it can do
    16: ("x86-64", "+sse2"),
    32: ("haswell", "+sse2,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+fma,+bmi,+bmi2,+f16c,+lzcnt,+movbe"),
}


@pytest.mark.parametrize("vector", PROCESSORS)
def test_convolution_in_short_vectors(vector, tmp_path):
    name, features = PROCESSORS[vector]
    host = llvm.get_host_cpu_features()
    lacking = [f for f in features.replace("+", "").split(",") if not host.get(f)]
    if lacking:
        pytest.skip(f"this processor lacks {', '.join(lacking)}")
    told = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    argv = [sys.executable, "-c", CHILD, str(vector), str(TESTS)]
    done = subprocess.run(argv, env=os.environ | told, capture_output=True, text=True, cwd=TESTS.parent)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "[100%]" in done.stdout
