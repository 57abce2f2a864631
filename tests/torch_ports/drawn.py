"""Random weights and images for a port, and the comparison of what it computes with what we compute."""

from __future__ import annotations

from typing import Any

import numpy as np

BLOCKS = (1, 1, 2, 1)  # residual blocks of each stage


def drawn(torch: Any, net: Any) -> Any:
    """The net in float64, with random weights and statistics, in evaluation."""
    draw = torch.Generator().manual_seed(3)
    for name, value in net.double().state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=draw, dtype=value.dtype) * 0.4)
            if name.endswith("running_var"):
                value.abs_().add_(0.5)
    return net.eval()


def images(size: tuple[int, int], c: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(2, *size, c))


def close(found: np.ndarray, known: Any, tol: float = 1e-10) -> None:
    known = known.detach().numpy().transpose(0, 2, 3, 1)
    assert found.shape == known.shape
    error = np.linalg.norm(found - known) / np.linalg.norm(known)
    assert np.isfinite(error) and error <= tol, error
