"""Writes tests/vectors/*.npz: what PyTorch gives for the networks of tests/small.py with weights and images by formula.

    python tests/vectors/make.py            all of them
    python tests/vectors/make.py unet fcn   those of these networks

Needs PyTorch; the tests that read the files do not. Everything is in float64 and channels last. A file holds digests
(tests/digest.py) of the map that the network gives in evaluation, of those that it gives in training, and of the
gradients of sum_k <u, map_k>, u over (N, C, H, W), for a few parameters; and the gradient's norm for every trained one,
in our order (0 where PyTorch has none).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

import torch  # noqa: E402
from digest import digest, file_name  # noqa: E402
from formula import u  # noqa: E402
from small import SMALL  # noqa: E402

from bench import torch_nets  # noqa: E402
from minunet.files import atomic_write  # noqa: E402


def weights_by_formula(net: Any) -> None:
    """As `formula.weights_by_formula`, in PyTorch's layout."""
    special = {}
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            i = np.arange(module.num_features)
            special |= {id(module.weight): 1 + 0.1 * np.sin(i), id(module.bias): 0.1 * np.cos(i)}
        elif isinstance(module, torch.nn.PReLU):
            special[id(module.weight)] = np.full(module.num_parameters, 0.25)
    with torch.no_grad():
        for p in net.parameters():
            if not p.requires_grad:
                continue
            if id(p) in special:
                value = special[id(p)]
            elif p.ndim == 1:
                value = 0.01 * np.cos(np.arange(p.numel()))
            else:
                value = np.sqrt(6 * p.shape[0] / p.numel()) * u(tuple(p.shape))
            p.copy_(torch.from_numpy(value))


def vectors(title: str) -> dict[str, np.ndarray]:
    """{name in the file: numbers}."""
    name, arguments, size = SMALL[title]
    net = torch_nets.make(torch, name, arguments)
    weights_by_formula(net)
    model = torch_nets.twin(name, arguments, net)
    x = torch.from_numpy(u((2, model.channels[0], *size)))
    found = {"evaluation": digest(torch_nets.channels_last(net.eval()(x)))}
    maps = net.train()(x)
    maps = maps if isinstance(maps, tuple | list) else (maps,)
    sum((torch.from_numpy(u(tuple(y.shape))) * y).sum() for y in maps).backward()
    found |= {f"training {k}": digest(torch_nets.channels_last(y)) for k, y in enumerate(maps)}
    trained = [(n, q) for n, p, q in torch_nets.pairs(name, model, net) if p.requires_grad]
    found["gradient norms"] = np.array([0.0 if q.grad is None else float(q.grad.norm()) for _, q in trained])
    weights = [(n, q) for n, q in trained if q.ndim == 4 and q.grad is not None]
    for k in sorted({0, len(weights) // 3, 2 * len(weights) // 3, len(weights) - 1}):
        n, q = weights[k]
        found[f"gradient of {n}"] = digest(torch_nets.channels_last(q.grad))
    return found


def main(wanted: list[str]) -> int:
    for title, (name, _, _) in SMALL.items():
        if wanted and name not in wanted:
            continue
        with atomic_write(HERE / file_name(title)) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **vectors(title))
        print(f"{file_name(title)}: {(HERE / file_name(title)).stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
