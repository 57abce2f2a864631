"""Whole networks against the peers: inference and a training step, same weights, same input, results checked first."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import minunet as mu
from bench import memory, peers, watch
from bench.timing import interleaved, table
from minunet.tiled import fixed_weights

CASES = {"width 16, 316 tile": (16, 316), "width 64, 572 tile": (64, 572)}  # of U-Net: width, side


@dataclass(frozen=True)
class Case:
    """What is measured of another network than U-Net, against PyTorch."""

    name: str
    width: int
    size: tuple[int, int]
    batch: int = 1
    runs: tuple[str, ...] = ("inference", "training_step")

    def title(self) -> str:
        """E.g. "segnet, width 16, 4 x 180 x 240"."""
        images = f"{self.batch} x " if self.batch > 1 else ""
        return f"{self.name}, width {self.width}, {images}{self.size[0]} x {self.size[1]}"

    def build(self) -> Any:
        return mu.models.build(self.name, width=self.width)


FAMILY = (
    Case("fusionnet", 16, (256, 256)),
    Case("fusionnet", 64, (352, 480), runs=("inference",)),
    Case("fusionnet", 64, (176, 240), runs=("training_step",)),
    Case("segnet", 16, (180, 240), batch=4),
    Case("segnet", 64, (360, 480), runs=("inference",)),
    Case("segnet", 64, (180, 240), runs=("training_step",)),
)
IMAGE = 512  # side of the image for `mu.predict`
LOGIT_TOLERANCE = 1e-3  # greatest difference from the direct algorithm's logits over the greatest logit
GRADIENT_TOLERANCE = 1e-3  # cosine distance of the whole gradient
DECIDING = ("fusionnet", "segnet")  # rounding decides much in these: where they miss the tolerances, `watch` judges,
LOOSE = 0.2  # and the whole result may be off by so much: what its own two layouts do to PyTorch's
PAUSE = 0.02
Size = int | tuple[int, int]


class WrongResultError(RuntimeError):
    """Our own result is not right, so nothing was timed."""


def network(width: int) -> Any:
    """U-Net without dropout, of which the peers' copies are made."""
    return mu.models.build("unet", in_channels=1, n_classes=2, width=width, dropout=0.0)


def picture(size: Size, channels: int = 1, batch: int = 1) -> np.ndarray:
    """(batch, H, W, channels), normal; size: the side of a square, or (H, W)."""
    size = (size, size) if isinstance(size, int) else size
    return np.random.default_rng(0).standard_normal((batch, *size, channels)).astype(np.float32)


def inference(model: Any, size: Size, threads: int, rounds: dict[str, Any], batch: int = 1) -> dict[str, Any]:
    """Logits of one tile, or a batch of them, in evaluation: ours against every peer."""
    x = picture(size, model.channels[0], batch)
    model.eval()
    contestants: dict[str, Callable] = {"minunet": lambda: _logits(model, x)}
    with peers.threads(threads), fixed_weights(model):  # the peers' are fixed too
        for name, run in peers.runners(model, _nchw(x).shape, threads).items():
            contestants[name] = lambda run=run: run(_nchw(x)).transpose(0, 2, 3, 1)
        with _direct():
            truth = _logits(model, x)
        watched = partial(_logits, model, x) if model.config["model"] in DECIDING else None
        return _contest(contestants, truth, rounds, watched)


def predict(model: Any, threads: int, rounds: dict[str, Any], image: int = IMAGE) -> dict[str, Any]:
    """Class probabilities of an image with mirrored context, through `mu.predict`; in one tile, e.g. 512 -> 700 seen.

    The peers get the same work around their networks: NumPy mirrors the image and makes the softmax, a few ms of it.
    """
    section = picture(image)[0, :, :, 0]
    size = model.input_size(image, image)[0]
    before = (size - model.output_size(size, size)[0]) // 2
    after = size - image - before

    def seen(run: peers.Run) -> np.ndarray:
        window = np.pad(section, (before, after), mode="reflect")
        z = run(window[None, None])[0, :, :image, :image].transpose(1, 2, 0)  # (H, W, K)
        e = np.exp(z - z.max(axis=2, keepdims=True))
        return e / e.sum(axis=2, keepdims=True)

    contestants: dict[str, Callable] = {"minunet": lambda: mu.predict(model, section, tile=image)}
    with peers.threads(threads):
        for name, run in peers.runners(model, (1, 1, size, size), threads).items():
            contestants[name] = lambda run=run: seen(run)
        with _direct():
            truth = mu.predict(model, section, tile=image)
        return _contest(contestants, truth, rounds)


def training(model: Any, size: Size, threads: int, rounds: dict[str, Any], batch: int = 1) -> dict[str, Any]:
    """Forward, cross-entropy (of two classes), backward and Adam on a tile or a batch: ours against PyTorch."""
    x = picture(size, model.channels[0], batch)
    y = np.random.default_rng(1).integers(0, 2, (batch, *model.output_size(*x.shape[1:3]))).astype(np.int32)
    state = {name: a.copy() for name, a in model.state_dict().items()}
    model.train()
    optimizer = mu.optim.Adam(model.parameters(), lr=1e-4)

    def loss_of() -> mu.Tensor:
        return mu.ops.softmax_cross_entropy(model(mu.Tensor(x)), y)

    def step() -> None:
        optimizer.zero_grad()
        loss_of().backward()
        optimizer.step()

    with peers.threads(threads):
        contestants: dict[str, Callable] = {}
        if peers.missing("PyTorch") is None:
            from bench import peer_torch

            for name, layout in peer_torch.FORMATS.items():
                contestants[f"PyTorch {name}"] = peer_torch.Step(model, x, y, layout)
        with mu.backends.count() as work:  # the check, and the count of FLOPs
            optimizer.zero_grad()
            loss = loss_of()
            loss.backward()
        found: dict[str, Any] = {"gflop": round(work.flops / 1e9, 2)}
        ours = np.concatenate([p.grad.ravel() for p in model.parameters()]).astype(np.float64)
        for name, peer in contestants.items():
            value, gradients = peer.gradients()
            theirs = np.concatenate([gradients[n].ravel() for n, _ in model.named_parameters()]).astype(np.float64)
            distance, error = _cosine_distance(ours, theirs), abs(loss.item() - value) / value
            right = distance <= GRADIENT_TOLERANCE
            if not right and distance <= LOOSE and model.config["model"] in DECIDING:
                if "convolution_errors" not in found:
                    with watch.convolutions() as found["convolution_errors"]:
                        loss_of().backward()
                right = found["convolution_errors"].right()
            if not (right and error <= 1e-3):
                raise WrongResultError(f"results differ from {name}: loss by {error:.2e}, gradient by {distance:.2e}")
            found |= {
                "gradient_cosine_distance": float(f"{distance:.3g}"),
                "loss_relative_error": float(f"{error:.3g}"),
            }
        del loss, ours
        gc.collect()
        seconds = interleaved({"minunet": step, **contestants}, warmup=1, pause=PAUSE, **rounds)
        model.load_state_dict(state)  # the steps have moved the weights, and the statistics
    return found | table(seconds)


def peak_memory(width: int, size: int) -> dict[str, int]:
    """MiB at most of a process that makes a few training steps: ours, and PyTorch's where it is installed."""
    who = ["minunet"] + ["torch"] * (peers.missing("PyTorch") is None)
    return {name: memory.measure(name, width, size) for name in who}


def _contest(
    contestants: dict[str, Callable], truth: np.ndarray, rounds: dict[str, Any], ours: Callable[[], Any] | None = None
) -> dict[str, Any]:
    """Check every result, which is the warm-up, then time those that are right.

    ours : runs our network, where rounding may decide: then its convolutions are watched, and results may differ more
    """
    largest = float(abs(truth).max())
    errors, wrong = {}, {}
    for name, run in contestants.items():
        result = run()
        errors[name] = float(f"{abs(result - truth).max() / largest:.3g}") if result.shape == truth.shape else np.inf
        if not errors[name] <= (LOOSE if ours else LOGIT_TOLERANCE):
            wrong[name] = f"off by {errors[name]:.1e}"
    watched: dict[str, Any] = {}
    if ours and LOGIT_TOLERANCE < errors["minunet"] <= LOOSE:
        with watch.convolutions() as watched["convolution_errors"]:
            ours()
        if not watched["convolution_errors"].right():
            wrong["minunet"] = f"off by {errors['minunet']:.1e}"
    if "minunet" in wrong:
        raise WrongResultError(f"results are {wrong['minunet']} from the direct algorithm's")
    right = {name: run for name, run in contestants.items() if name not in wrong}
    gc.collect()
    seconds = interleaved(right, warmup=0, pause=PAUSE, **rounds)
    return {"errors": {k: v for k, v in errors.items() if k not in wrong}, "wrong": wrong, **watched, **table(seconds)}


def _logits(model: Any, x: np.ndarray) -> np.ndarray:
    with mu.no_grad():
        return model(mu.Tensor(x)).numpy()


def _nchw(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))  # for one channel the same bytes, no copy


@contextmanager
def _direct() -> Iterator[None]:
    """Our convolutions as plain sums, without Winograd."""
    with mu.precision("strict"):
        yield


def _cosine_distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
