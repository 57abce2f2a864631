"""Fixtures that every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

# The tests' arrays are too small to share between BLAS threads, and on a busy machine those threads wait for each
# other: a reference convolution takes 0.28 s instead of 1.3 ms. NumPy reads this when it is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(20150518)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets: $MINUNET_DATA, or shared/data beside the repository. Skips where there is none."""
    given = os.environ.get("MINUNET_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data sets at {folder}; set MINUNET_DATA to their folder")
    return folder
