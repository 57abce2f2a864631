"""The training loop: steps, validations, saves, and what a stop or a broken loss does.

On the CPU every step's loss is looked at before its gradient is. On a device that would stop the work of each step, so
there the losses stay (`unread`) and are read every LOG_EVERY steps, and always before a save or a validation: what is
saved has seen finite losses only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from minunet import backends, ops
from minunet.data import Dataset
from minunet.data.align import Displacement
from minunet.data.tiles import window
from minunet.errors import UserError
from minunet.models import Network
from minunet.predict import predict
from minunet.tensor import Tensor
from minunet.training.config import Config
from minunet.training.health import culprit, dead_relus, warnings
from minunet.training.inputs import align, plan_window, prepare
from minunet.training.judges import JUDGES, Verdict
from minunet.training.objective import objective
from minunet.training.sampler import Batch, Sampler
from minunet.training.schedule import learning_rate, thinning, total_steps
from minunet.training.seen import Seen
from minunet.training.setup import class_weights, loss_scale, make_optimizer
from minunet.training.stop import stop_on_signal
from minunet.training.unread import Unread

LOG_EVERY = 20  # steps that one row of the log averages; more of them in long runs, see thinning
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
    best: dict[str, Any] | None = None  # {"step", "score"} of the validation with the highest main score
    health: list[dict[str, Any]] = field(default_factory=list)  # at validations: {"step", "dead", "worst", "layer"}
    notes: list[dict[str, Any]] = field(default_factory=list)  # warnings: {"step", "text"}


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
        images, others, self.normalise = prepare(data, config.normalise, *sections)
        self.displacement: Displacement | None = None
        self.plan = plan_window(config, data.labels.shape[1:3], model)
        labels = data.labels[self.train_sections]
        if config.align:
            images, others, self.displacement = align(images, labels, others)
        self.held_out_images = others
        cells = None if data.instances is None else data.instances[self.train_sections]
        self.sampler = Sampler(images, labels, config, self.plan.seen, self.plan.trained, cells)
        self.class_weight = class_weights(config, labels, data.n_classes)
        pixels = math.prod(self.plan.trained)
        self.step_pixels = pixels * config.batch * config.accumulate
        self.total = total_steps(config, labels.size, pixels)
        self.optimizer = make_optimizer(config, model)
        self.optimizer.loss_scale = loss_scale(config, pixels * config.batch)
        self.dy = None  # where backward starts; None: 1
        if self.optimizer.loss_scale != 1:
            self.dy = backends.get().empty((), np.float32)
            self.dy.fill(self.optimizer.loss_scale)
        self.judge = JUDGES[data.scored](data, self.held_out)
        self.seen: Seen | None = None  # by the last validation
        self.broken: Batch | None = None  # whose loss was not finite
        backend = backends.get()
        self.unread = None if backend.Array is np.ndarray else Unread(backend, LOG_EVERY, config.accumulate)
        self.stopped = False

    def progress(self) -> float:
        """Share of the budget that is used, 0 .. 1."""
        if self.total is not None:
            return self.state.step / self.total
        return self.state.seconds / (60 * self.config.minutes) if self.config.minutes else 1.0

    def step(self, batches: list[Batch], rate: float | None = None) -> float:
        """One step: forward, loss, backward of each batch, one update by the mean of their gradients, with the learning
        rate `rate` or that of the schedule. Returns the mean loss; a loss that is not finite updates nothing.
        """
        values = []
        for k, batch in enumerate(batches):
            loss = self.loss(batch)
            values.append(loss.item())
            if not math.isfinite(values[-1]):
                self.broken = batch
                return values[-1]
            self._backward(loss, k, len(batches))
        self._update(rate)
        return sum(values) / len(values)

    def step_unread(self, batches: list[Batch]) -> None:
        """`step` on a device, without waiting for it: the losses are kept there, in `unread`."""
        for k, batch in enumerate(batches):
            loss = self.loss(batch)
            self.unread.keep(loss.data)
            self._backward(loss, k, len(batches))
        self._update()

    def _backward(self, loss: Tensor, k: int, count: int) -> None:
        """Gradients of batch k of `count`, added to those of the batches before it."""
        if k == 0:
            self.optimizer.zero_grad()
        (loss if count == 1 else ops.scale(loss, 1 / count)).backward(self.dy)

    def _update(self, rate: float | None = None) -> None:
        done = self.progress() if self.total is None else (self.state.step + 0.5) / self.total
        self.optimizer.lr = learning_rate(self.config, done) if rate is None else rate
        self.optimizer.step()

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch, on the tape."""
        outputs = self.model(Tensor(backends.get().asarray(batch.x)))
        return objective(outputs, batch.y, batch.w, self.config, self.model, self.class_weight)

    def run(self, bar: tqdm, say: Callable[[str], None]) -> None:
        """Train until the budget is used or a signal asks to stop. Raises DivergedError if the loss breaks."""
        state, saved = self.state, time.monotonic()
        shown = state.step, saved  # since when the speed is counted
        self.model.train()
        together = self.config.accumulate
        batches = self.sampler.batches(state.step * together)
        try:
            with stop_on_signal(self, say):
                while self.progress() < 1 and not self.stopped:
                    start = time.monotonic()
                    now = [next(batches) for _ in range(together)]
                    state.waiting += time.monotonic() - start
                    self._one(now)
                    seconds = time.monotonic() - start
                    state.seconds += seconds
                    bar.update(1 if self.total is not None else min(seconds, bar.total - bar.n))
                    if self.unread is None or not len(self.unread):
                        shown = self._show(bar, *shown)
                    if self.progress() * self.config.validate >= state.validations + 1 and self.progress() < 1:
                        start = time.monotonic()
                        self.read_losses()
                        self.validate(say)
                        state.seconds += time.monotonic() - start
                        saved = -math.inf
                    if time.monotonic() - saved >= SAVE_SECONDS:
                        self.read_losses()
                        self.save(self)
                        saved = time.monotonic()
        finally:
            batches.close()
        self.read_losses()
        self.save(self)

    def _one(self, batches: list[Batch]) -> None:
        """A step, its loss in the log: now, or when it is read."""
        if self.unread is not None:
            self.step_unread(batches)
            self.state.step += 1
            if len(self.unread) == LOG_EVERY or len(self.state.pending) + len(self.unread) >= self._row():
                self.read_losses()
            return
        loss = self.step(batches)
        if not math.isfinite(loss):
            raise DivergedError(f"the loss became {loss} at step {self.state.step + 1}{self._where()}")
        self.state.step += 1
        self._log(loss)

    def read_losses(self) -> None:
        """Log the losses that wait on the device, if there is one. Raises DivergedError where one is not finite."""
        if self.unread is None or not len(self.unread):
            return
        losses, now = self.unread.read(), self.state.step
        for k, loss in enumerate(losses):
            if not math.isfinite(loss):
                self.state.step = now - len(losses) + k  # the good steps
                raise DivergedError(f"the loss became {loss} at step {self.state.step + 1} (seen at step {now})")
            self._log(loss)

    def _where(self) -> str:
        """Which layer a loss that is not finite came from: the failed batch once more, every layer watched."""
        found = culprit(self.model, lambda: self.loss(self.broken)) if self.broken is not None else ""
        return f": {found}" if found else ""

    def _log(self, loss: float) -> None:
        state = self.state
        state.pending.append(loss)
        if len(state.pending) >= self._row():
            self.add_row(loss=float(np.mean(state.pending)))
            state.pending.clear()

    def _row(self) -> int:
        """Steps that the row of the log averages which the step just done belongs to."""
        return LOG_EVERY * thinning(max(0, self.state.step - 1))

    def add_row(self, **values: float) -> None:
        """A row of the log at this step."""
        state = self.state
        row = {"step": state.step, "seconds": round(state.seconds, 2), "learning_rate": self.optimizer.lr}
        state.log.append({**row, **values})

    def _show(self, bar: tqdm, step: int, begin: float) -> tuple[int, float]:
        """The loss, and the speed since (step, begin), behind the bar. Returns where the next time starts."""
        now = time.monotonic()
        speed = self.step_pixels * (self.state.step - step) / max(now - begin, 1e-9)
        recent = self.state.pending[-LOG_EVERY:] or [row["loss"] for row in self.state.log[-1:]]
        best = f", best {self.judge.score} {self.state.best['score']:.4f}" if self.state.best else ""
        text = f"loss {np.mean(recent):.4f}{best}, {tqdm.format_sizeof(speed)} pixels/s"
        bar.set_postfix_str(text, refresh=False)
        return self.state.step, now

    def predict_held_out(self, average: int = 1, progress: Any = None) -> Iterator[np.ndarray]:
        """Class probabilities float32 (H, W, K) of the held-out images, one after the other."""
        numbers = range(len(self.held_out))
        for k in numbers if progress is None else progress(numbers):
            yield predict(self.model, self.held_out_images[k], average=average)

    def validate(self, say: Callable[[str], None]) -> None:
        """Score the held-out images; a row in the log and a line for the reader."""
        seen = Seen(self.data, self.held_out, self.state.step)
        row, text = self.judge.quick(seen.passing(self.predict_held_out()))
        self.state.validations += 1
        self.add_row(**row)
        losses = [row["loss"] for row in self.state.log if "loss" in row][-1:] or self.state.pending
        loss = f"{np.mean(losses):.4f}" if losses else "-"
        say(f"step {self.state.step:6d}   loss {loss}   held out: {text}   ({self.state.seconds / 60:.1f} min)")
        self._examine(seen, row, say)
        self.seen = seen
        self.model.train()

    def _examine(self, seen: Seen, row: dict[str, float], say: Callable[[str], None]) -> None:
        """Note what looks wrong, a line for each, and whether this is the best validation so far."""
        state, image = self.state, self.held_out_images[0]
        h, w = self.plan.seen
        x = window(image, (image.shape[0] - h) // 2, (image.shape[1] - w) // 2, h, w).reshape(1, h, w, -1)
        dead = dead_relus(self.model, x)
        if dead is not None:
            state.health.append({"step": state.step, "dead": dead.share, "worst": dead.worst, "layer": dead.layer})
        losses = [logged["loss"] for logged in state.log if "loss" in logged]
        for text in warnings(losses, seen.matrix, dead, self.data.classes):
            state.notes.append({"step": state.step, "text": text})
            say(f"warning: {text}")
        score = row[self.judge.columns[0]]
        if math.isfinite(score) and (state.best is None or score >= state.best["score"]):  # of equals the last
            state.best = {"step": state.step, "score": float(score)}

    def final(self, progress: Any = None, say: Callable[[str], None] = print) -> Verdict:
        """Score the held-out images with everything, averaged over the orientations that the Config asks for; and a row
        in the log, unless a validation has just made it: of one orientation, as all rows, so that "best" compares
        like with like.
        """
        average = self.config.average
        verdict = self.judge.final(self.predict_held_out(average, progress))
        maps, threshold = self.judge.class_maps(verdict)
        seen = Seen(self.data, self.held_out, self.state.step, threshold)
        for k, found in enumerate(maps):
            seen.add(k, found)
        last = self.state.log[-1] if self.state.log else {}
        if last.get("step") != self.state.step or self.judge.columns[0] not in last:
            row, single = verdict.row, seen
            if average > 1:
                single = Seen(self.data, self.held_out, self.state.step)
                row, _ = self.judge.quick(single.passing(self.predict_held_out(1, progress)))
            self.state.validations += 1
            self.add_row(**row)
            self._examine(single, row, say)
            self.save(self)
        self.seen = seen
        return verdict
