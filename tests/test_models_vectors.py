"""Every network of tests/small.py, with weights by formula, against the numbers in tests/vectors that PyTorch gave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from digest import differences, digest, file_name
from formula import images, u, weights_by_formula
from small import SMALL

from minunet import backends, models
from minunet.tensor import Tensor, no_grad, record

VECTORS = Path(__file__).parent / "vectors"


def test_the_files_are_those_of_the_networks():
    assert {p.name for p in VECTORS.glob("*.npz")} == {file_name(title) for title in SMALL}


@pytest.mark.parametrize("title", SMALL)
def test_against_stored_vectors(title):
    name, arguments, size = SMALL[title]
    with np.load(VECTORS / file_name(title)) as file:
        known = dict(file)
    with backends.use_backend("reference"):
        model = weights_by_formula(models.build(name, **arguments).astype(np.float64))
        x = Tensor(images(2, model.channels[0], *size))
        with no_grad():
            evaluated = model.eval()(x)
        maps = model.train()(x)
        maps = maps if isinstance(maps, tuple) else (maps,)
        seeds = [images(y.shape[0], y.shape[3], *y.shape[1:3]) for y in maps]
        total = sum(float((dy * y.numpy()).sum()) for dy, y in zip(seeds, maps))
        record("inner product", np.array(total), maps, lambda one, need: seeds).backward(np.array(1.0))
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    gradients = {n: np.zeros(p.shape) if p.grad is None else p.grad for n, p in trained.items()}
    norms = known.pop("gradient norms")
    found = {"evaluation": evaluated.numpy()}
    found |= {f"training {k}": y.numpy() for k, y in enumerate(maps)}
    found |= {f"gradient of {n}": g for n, g in gradients.items() if f"gradient of {n}" in known}
    assert known.keys() == found.keys()
    for what, array in found.items():
        error = differences(digest(array), known[what])
        assert error <= 1e-9, f"{what}: {error:.1e}"
    assert len(norms) == len(gradients)
    for (n, g), norm in zip(gradients.items(), norms):
        error = abs(np.linalg.norm(g) - norm) / np.linalg.norm(norms)
        assert error <= 1e-9, f"{n}: {error:.1e}"


def test_a_digest_tells_arrays_apart():
    a = u((2, 5, 4, 3))
    for other in (
        a * (1 + 1e-6),
        a[::-1],
        np.roll(a, 1, axis=2),
        a + 1e-6,
        a.reshape(2, 4, 5, 3),
        np.full_like(a, np.nan),
    ):
        assert not differences(digest(other), digest(a)) <= 1e-9
    assert differences(digest(a + 1e-13), digest(a)) <= 1e-9
