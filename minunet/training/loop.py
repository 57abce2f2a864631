"""The training loop: steps, validations, saves, and what a stop or a broken loss does."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from minunet import metrics, ops
from minunet.data import Dataset, normalise
from minunet.errors import UserError
from minunet.models import Network
from minunet.nn.optim import SGD, Adam, Optimizer
from minunet.predict import predict
from minunet.tensor import Tensor
from minunet.training.config import Config
from minunet.training.sampler import Batch, Sampler
from minunet.training.schedule import learning_rate, total_steps

LOG_EVERY = 20  # steps that one row of the log averages
SAVE_SECONDS = 30.0  # a kill loses at most this much work


class DivergedError(UserError):
    """The loss or a weight is no longer finite."""


@dataclass
class State:
    """Where a run stands. With the weights, the optimiser's state and the Config it is all that resuming needs."""

    step: int = 0
    seconds: float = 0.0  # of training, over all calls
    waiting: float = 0.0  # of these, spent waiting for tiles
    validations: int = 0
    pending: list[float] = field(default_factory=list)  # losses since the last row of the log
    log: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """Trains `model` on the sections of `data` that are not held out.

    save : called with the Trainer whenever the state is worth keeping: every SAVE_SECONDS, at validations, at stops
    """

    def __init__(
        self,
        config: Config,
        data: Dataset,
        sections: tuple[np.ndarray, np.ndarray],
        model: Network,
        state: State,
        save: Callable[[Trainer], None],
    ):
        self.config, self.data, self.model, self.state, self.save = config, data, model, state, save
        self.train_sections, self.held_out = sections
        self.images = normalise(data.images)  # (S, H, W)
        in_size = (config.tile, config.tile)
        out_size = model.output_size(*in_size)
        rows = self.train_sections
        self.sampler = Sampler(self.images[rows], data.labels[rows], config, in_size, out_size)
        self.step_pixels = math.prod(out_size) * config.batch
        self.total = total_steps(config, data.labels[rows].size, math.prod(out_size))
        self.optimizer = make_optimizer(config, model)
        self.stopped = False

    def progress(self) -> float:
        """Share of the budget that is used, 0 .. 1."""
        if self.total is not None:
            return self.state.step / self.total
        return self.state.seconds / (60 * self.config.minutes) if self.config.minutes else 1.0

    def step(self, batch: Batch) -> float:
        """One step: forward, loss, backward, update. Returns the loss; a loss that is not finite updates nothing."""
        logits = self.model(Tensor(batch.x))
        loss = ops.softmax_cross_entropy(logits, batch.y, batch.w, reduction=self.config.reduction)
        value = loss.item()
        if math.isfinite(value):
            self.optimizer.zero_grad()
            loss.backward()
            done = self.progress() if self.total is None else (self.state.step + 0.5) / self.total
            self.optimizer.lr = learning_rate(self.config, done)
            self.optimizer.step()
        return value

    def run(self, bar: tqdm, say: Callable[[str], None]) -> None:
        """Train until the budget is used or a signal asks to stop. Raises DivergedError if the loss breaks."""
        state, saved = self.state, time.monotonic()
        self.model.train()
        batches = self.sampler.batches(state.step)
        try:
            with _stop_on_signal(self, say):
                while self.progress() < 1 and not self.stopped:
                    start = time.monotonic()
                    batch = next(batches)
                    waited = time.monotonic() - start
                    loss = self.step(batch)
                    if not math.isfinite(loss):
                        raise DivergedError(f"the loss became {loss} at step {state.step + 1}")
                    state.step += 1
                    state.waiting += waited
                    self._log(loss)
                    state.seconds += time.monotonic() - start
                    self._advance(bar, loss, time.monotonic() - start)
                    if self.progress() * self.config.validate >= state.validations + 1 and self.progress() < 1:
                        start = time.monotonic()
                        self.validate(say)
                        state.seconds += time.monotonic() - start
                        saved = -math.inf
                    if time.monotonic() - saved >= SAVE_SECONDS:
                        self.save(self)
                        saved = time.monotonic()
        finally:
            batches.close()
        self.save(self)

    def _log(self, loss: float) -> None:
        state = self.state
        state.pending.append(loss)
        if len(state.pending) == LOG_EVERY:
            self.add_row(loss=float(np.mean(state.pending)))
            state.pending.clear()

    def add_row(self, **values: float) -> None:
        """A row of the log at this step."""
        state = self.state
        row = {"step": state.step, "seconds": round(state.seconds, 2), "learning_rate": self.optimizer.lr}
        state.log.append({**row, **values})

    def _advance(self, bar: tqdm, loss: float, seconds: float) -> None:
        recent = self.state.pending or [loss]
        speed = self.step_pixels / max(seconds, 1e-9)
        bar.set_postfix_str(f"loss {np.mean(recent):.4f}, {speed / 1e3:.0f} k pixels/s", refresh=False)
        bar.update(1 if self.total is not None else min(seconds, bar.total - bar.n))

    def predict_held_out(self, average: int = 1, progress: Any = None) -> np.ndarray:
        """P(cell) of the held-out sections, float32 (S, H, W)."""
        sections = self.held_out if progress is None else progress(self.held_out)
        return np.stack([predict(self.model, self.images[s], average=average)[..., 1] for s in sections])

    def validate(self, say: Callable[[str], None]) -> None:
        """Score the held-out sections; a row in the log and a line for the reader."""
        p = self.predict_held_out()
        truth = self.data.labels[self.held_out]
        v_rand, wrong = metrics.v_rand(truth, p), metrics.pixel_disagreement(truth, p)
        self.state.validations += 1
        self.add_row(held_out_v_rand=v_rand, held_out_wrong_pixels=wrong)
        losses = [row["loss"] for row in self.state.log if "loss" in row]
        loss = f"{losses[-1]:.4f}" if losses else "-"
        say(
            f"step {self.state.step:6d}   loss {loss}   held out: V_Rand {v_rand:.4f}, wrong pixels {wrong:.2%}"
            f"   ({self.state.seconds / 60:.1f} min)"
        )
        self.model.train()


def make_optimizer(config: Config, model: Network) -> Optimizer:
    """The optimiser that the Config names."""
    if config.optimizer == "adam":
        return Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    return SGD(model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)


@contextmanager
def _stop_on_signal(trainer: Trainer, say: Callable[[str], None]) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) lets the step end and stops; a second one stops at once."""

    def stop(number: int, frame: Any) -> None:
        if trainer.stopped:
            raise KeyboardInterrupt
        trainer.stopped = True
        say("stopping after this step (again: stop at once, losing what was not saved)")

    try:
        before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: there, signals are somebody else's business
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
