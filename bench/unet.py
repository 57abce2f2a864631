"""Whole U-Nets against PyTorch: a training step and inference, same weights, same input, results checked first."""

from __future__ import annotations

from typing import Any

import numpy as np

import minunet as mu
from bench import memory, peer_torch
from bench.timing import interleaved, ratio, summary

CASES = {  # name: width, input size, rounds
    "width 16, 316 tile": (16, 316, 40),
    "width 32, 316 tile": (32, 316, 20),
    "width 64, 572 tile": (64, 572, 5),
}
GRADIENT_TOLERANCE = 1e-3  # cosine distance of the whole gradient


def bench(names: list[str], rounds: int | None = None) -> dict[str, Any]:
    """{case: times, ratios, FLOPs, error} for the named cases."""
    return {name: _case(*CASES[name], rounds) for name in names}


def _case(width: int, size: int, default_rounds: int, rounds: int | None) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    config = {"in_channels": 1, "n_classes": 2, "width": width}
    model = mu.models.build("unet", **config, dropout=0.0)
    oh, ow = model.output_size(size, size)
    x = rng.standard_normal((1, size, size, 1)).astype(np.float32)
    y = rng.integers(0, 2, (1, oh, ow)).astype(np.int32)
    formats = {"contiguous": (False, True), "channels_last": (True, True), "channels_last, Adam unfused": (True, False)}
    peers = {f"PyTorch {k}": peer_torch.Step(model, config, x, y, *v) for k, v in formats.items()}
    optimizer = mu.optim.Adam(model.parameters(), lr=1e-4)

    def loss_of() -> mu.Tensor:
        return mu.ops.softmax_cross_entropy(model(mu.Tensor(x)), y)

    def step() -> None:
        optimizer.zero_grad()
        loss_of().backward()
        optimizer.step()

    def infer() -> Any:
        with mu.no_grad():
            return model(mu.Tensor(x))

    with mu.backends.count() as work:  # the check, and the count of FLOPs
        loss = loss_of()
        loss.backward()
    theirs_loss, theirs = next(iter(peers.values())).gradients()
    ours = np.concatenate([p.grad.ravel() for p in model.parameters()]).astype(np.float64)
    distance = _cosine_distance(ours, np.concatenate([g.ravel() for g in theirs]).astype(np.float64))
    error = abs(loss.item() - theirs_loss) / theirs_loss
    if not (distance <= GRADIENT_TOLERANCE and error <= 1e-3):
        raise RuntimeError(f"results differ: loss by {error:.2e}, gradient by {distance:.2e}; nothing was timed")
    del loss

    rounds = rounds or default_rounds
    training = interleaved({"minunet": step, **peers}, rounds)
    inference = interleaved({"minunet": infer, **{k: p.infer for k, p in peers.items() if "unfused" not in k}}, rounds)
    return {
        "gradient_cosine_distance": float(f"{distance:.3g}"),
        "loss_relative_error": float(f"{error:.3g}"),
        "step_gflop": round(work.flops / 1e9, 2),
        "training_step": _table(training),
        "inference": _table(inference),
        "step_peak_mib": {k: memory.measure(k, width, size) for k in ("minunet", "torch")},
    }


def _cosine_distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _table(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Times of all, and the ratio of the fastest peer's to ours."""
    times = {name: summary(s) for name, s in seconds.items()}
    best = min((n for n in times if n != "minunet"), key=lambda n: times[n]["median_ms"])
    return {"times": times, "best_peer": best, "ratio": ratio(seconds[best], seconds["minunet"])}
