"""What tests of prediction share: small networks, drawn pixels, and the command run on files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minunet import checkpoint, cli, models
from minunet.predict import RECORD, main


def network(dtype: type = np.float32, **arguments: object) -> models.Network:
    """A small U-Net with biases that are not zero, so that borders matter."""
    model = models.build("unet", **({"width": 2, "depth": 1, "seed": 3} | arguments))
    rng = np.random.default_rng(4)
    for name, p in model.named_parameters():
        if name.endswith(".b"):
            p.data += rng.normal(0, 0.3, p.shape).astype(np.float32)
    return model.astype(dtype)


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def noise(*shape: int, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape).astype(dtype)


def close(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    return a.shape == b.shape and bool(np.isfinite(a).all()) and bool(np.abs(a - b).max() <= tolerance)


def contents(folder: Path) -> dict[str, bytes]:
    """Everything below a folder but the record of the run, which tells its time of change."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != RECORD}


def runner(folder: Path, capture: pytest.CaptureFixture[str], model: models.Network) -> Callable[..., tuple]:
    """Save `model` in a folder; a function that runs the command there: (exit code, stdout, stderr)."""
    checkpoint.save(folder / "net.safetensors", model)

    def command(*argv: object, out: str | Path = "out") -> tuple[int, str, str]:
        options = ["--out", str(out if out == "-" else folder / out), "--backend", "reference"]
        code = cli.run(main, [str(folder / "net.safetensors"), *map(str, argv), *options])
        return code, *capture.readouterr()

    return command
