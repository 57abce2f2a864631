"""Peak memory of a few training steps, in a process of its own: `python -m bench.memory minunet|torch WIDTH SIZE`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

STEPS = 3  # the second allocates the optimiser's state and gradients together, the third shows that it ends there


def measure(who: str, width: int, size: int) -> int:
    """Peak resident memory in MiB of a new process that makes STEPS training steps of U-Net, program and all."""
    command = [sys.executable, "-m", "bench.memory", who, str(width), str(size)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip().splitlines()[-1:]}")
    return int(done.stdout)


def _steps(who: str, width: int, size: int) -> None:
    import minunet as mu

    rng = np.random.default_rng(0)
    model = mu.models.build("unet", width=width, dropout=0.0)
    x = rng.standard_normal((1, size, size, 1)).astype(np.float32)
    y = rng.integers(0, 2, (1, *model.output_size(size, size))).astype(np.int32)
    if who == "torch":
        from bench.peer_torch import FORMATS, Step

        step = Step(model, x, y, FORMATS["channels_last"])
        del model
        for _ in range(STEPS):
            step()
        return
    optimizer = mu.optim.Adam(model.parameters(), lr=1e-4)
    for _ in range(STEPS):
        optimizer.zero_grad()
        mu.ops.softmax_cross_entropy(model(mu.Tensor(x)), y).backward()
        optimizer.step()


def _peak() -> int:
    """Peak resident memory of this process in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux getrusage would tell the parent's peak, which the child inherits
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) >> 10
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, but bytes on macOS
    return peak >> (20 if sys.platform == "darwin" else 10)


if __name__ == "__main__":
    _steps(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    print(_peak())
