"""One file's prediction: tile by tile, from the file to its results, within a memory that is said beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minunet import backends, footprint, tiled
from minunet.checkpoint import Checkpoint
from minunet.cli import one_line
from minunet.data.dataset import resize_map
from minunet.data.reading import SectionFile
from minunet.errors import UsageError, UserError
from minunet.prediction.progress import Progress, identity, weights_digest
from minunet.prediction.results import Results, spoken
from minunet.prediction.stores import Store, finished, open_store, unfinished

PNG_PIXELS = 1 << 26  # larger images become TIFF: a PNG is packed in memory


@dataclass
class Job:
    """What a run does with each file."""

    saved: Checkpoint
    classes: list[int]
    tile: int | None = None
    average: int = 1
    memory: float | None = None  # GiB that the program may take; None: tiled.room() for a window's arrays
    format: str | None = None  # "tiff", "npy", "zarr"; None: PNG for an image, TIFF for a stack
    overlay: str | None = None
    colours: list[tuple[int, int, int]] = field(default_factory=list)
    painted: bool = False  # colours were asked for: paint also what has two classes, or is a stack
    resume: bool = False
    result: str | None = None  # the one that goes to standard output; None: all stay in a folder
    tell: Callable[[str], object] = print
    base: int = 0  # bytes that the program takes before the first file, kernels included
    _said: int = 0
    _cuts: bool = False

    def say_memory(self, estimate: int, window: tuple[int, int]) -> None:
        """Tell what the next file takes, where it is notably more than what was told last."""
        if estimate > 1.1 * self._said:
            sides = " x ".join(map(str, window))
            self.tell(f"memory: about {estimate / 2**30:.2f} GiB at most, with windows of {sides} pixels")
            self._said = estimate

    def say_cuts(self, plan: tiled.Layout) -> None:
        """Tell once where the result depends on the windows, and what makes it depend less."""
        if len(plan.targets) > 1 and not self._cuts and tiled.may_see_beyond(self.saved.model):
            self.tell(
                f"note: {self.saved.model.config['model']} may see farther than the {tiled.CONTEXT} pixels by which "
                "windows overlap, so that values near their borders differ a little from those of one window; a larger "
                "--memory or --tile makes fewer"
            )
            self._cuts = True


def predict_file(job: Job, file: str, paths: Mapping[str, Path], bar: Any, name: str | None = None) -> dict[str, Any]:
    """Predict one file, write and tell its results; returns its entry in the record of the run.

    paths : {kind of result: path without ending}, with "progress" for the record of an unfinished prediction
    bar   : a progress bar of tqdm's kind       name : what to call the file; None: `file`
    """
    saved, name = job.saved, name or file
    job.base = job.base or footprint.occupied() + footprint.KERNELS
    source = SectionFile(file, saved.model.config["in_channels"], saved.extra, str(paths["mask"].parent))
    S, H, W, _ = source.shape
    results = _results(job, S)
    kind = job.format or ("tiff" if S > 1 or H * W > PNG_PIXELS else "png")
    plan, estimate = plan_within(job, source, results, kind)
    job.say_memory(estimate, plan.sides)
    job.say_cuts(plan)

    targets = [(0, 0, H, W)] if source.size else plan.targets
    total = S * len(targets)
    progress = Progress(paths["progress"], _about(job, file, name, plan, kind, results), job.resume)
    formats = {k: _holding(kind, dtype) for k, (dtype, _) in results.kinds.items()}
    places = {k: finished(paths[k], formats[k]) for k in formats}
    if progress.done <= total and not all(unfinished(places[k], formats[k]).exists() for k in formats):
        progress.done = 0  # somebody has tidied up
    stores: dict[str, Store] = {}
    with ExitStack() as stack:
        try:
            for k, (dtype, channels) in results.kinds.items():
                if progress.done > total and not unfinished(places[k], formats[k]).exists():
                    continue  # it has its name already
                shape = (S, H, W, channels) if channels else (S, H, W)
                stores[k] = open_store(paths[k], formats[k], shape, dtype, S == 1, progress.done > 0)
                stack.callback(stores[k].close)
            if total > 1:
                progress.begin()
            bar.total = S * len(plan.targets) * job.average
            bar.update(min(progress.done, total) * bar.total // total)
            _fill(job, source, plan, targets, results, stores, progress, bar)
            for store in stores.values():
                store.finish()
        except BaseException as error:
            reported = _stopped(error, progress, stores, total, name)
            if reported is error:
                raise
            raise reported from error
    progress.end()
    shape = [S, H, W] if S > 1 else [H, W]
    written = {k: str(path) for k, path in places.items()}
    where = ", ".join(written.values()) if job.result is None else f"standard output ({job.result})"
    job.tell(f"{name}: {' x '.join(map(str, shape))} -> {where}")
    return {"input": name, "shape": shape, "windows": plan.sides, "memory": estimate, "written": written}


def _results(job: Job, S: int) -> Results:
    """What is to be written of a file with S sections; UsageError where it is not what --result names."""
    n_classes = max(2, job.saved.model.config["n_classes"])  # one output is P(class 1)
    paint = bool(job.colours) and (job.painted or (S == 1 and n_classes > 2))
    results = Results(n_classes, job.classes, job.colours, job.saved.extra.get("labels"), job.overlay, paint)
    if job.result is not None and job.result not in (names := [spoken(k) for k in results.kinds]):
        raise UsageError(f"--result {job.result}: there is {', '.join(names)}")
    return results


def _about(job: Job, file: str, name: str, plan: tiled.Layout, kind: str, results: Results) -> dict[str, Any]:
    """All that an unfinished prediction depends on: --resume goes on only where none of it has changed."""
    return {
        "file": Path(name).name, "size and time": identity(file), "weights": weights_digest(job.saved.model),
        "network's view": [str(job.saved.extra.get(key)) for key in ("normalise", "displaced", "size")],
        "--average": job.average,
        "window": plan.sides, "--out-format": kind, "results": list(results.kinds),
        "--overlay": job.overlay, "--palette": job.colours, "--precision": backends.asked_precision(),
    }  # fmt: skip


def _fill(
    job: Job,
    source: SectionFile,
    plan: tiled.Layout,
    targets: list[tiled.Box],
    results: Results,
    stores: Mapping[str, Store],
    progress: Progress,
    bar: Any,
) -> None:
    """Predict and store the targets that are not done, section by section; then what needs all of them."""
    model, total = job.saved.model, source.shape[0] * len(targets)
    while progress.done < total:
        s, t = divmod(progress.done, len(targets))
        source.choose(s)
        i, j, h, w = targets[t]
        p = _whole(model, source, plan, bar) if source.size else _tile(model, source, plan, targets[t], bar)
        for k, block in results.blocks(resize_map(p, (h, w))):
            stores[k].write(s, i, j, block)
        del p
        progress.advance(stores.values())
    if progress.done == total:
        results.write_late(stores, source)
        progress.done = total + 1  # only names are missing
        progress.keep(stores.values())


def _stopped(
    error: BaseException, progress: Progress, stores: Mapping[str, Store], total: int, name: str
) -> BaseException:
    """What to raise after tidying up: tiles that are done stay for --resume, and the message says so."""
    if not (progress.done and progress.path.exists()):
        for store in stores.values():
            store.discard()
        progress.end()
        return error
    progress.keep(stores.values())
    if not isinstance(error, UserError | OSError | MemoryError):
        return error
    done = min(progress.done, total)
    reason = one_line(error)
    reason = reason if name in reason else f"{name}: {reason}"
    return UserError(f"{reason}; {done} of {total} tiles are kept: once that is mended, --resume goes on from there")


def plan_within(job: Job, source: SectionFile, results: Results, kind: str) -> tuple[tiled.Layout, int]:
    """How the file is covered, and the bytes that the program will occupy at most. Raises UserError where --memory
    is too little for any window.
    """
    model, H, W = job.saved.model, *source.shape[1:3]
    base = job.base + source.decoded
    fixed = 4 * H * W if kind == "png" else 0  # a PNG's pixels, and once more while they are packed
    fixed += 4 * results.n_classes * (math.prod(source.seen) + H * W) if source.size else 0
    budget = tiled.room() if job.memory is None else int(job.memory * 2**30) - base - fixed
    for _ in range(8):
        plan = tiled.layout(model, source.seen, job.tile, job.average, max(budget, 1))
        arrays = footprint.activations(model, plan.sides)
        _, _, h, w = max(plan.targets, key=lambda t: t[2] * t[3])
        numbers = source.shape[3] + 2 * results.n_classes
        extra = max(24 * source.shape[3] * math.prod(plan.sides), (4 * numbers + 24) * h * w)
        estimate = base + arrays + max(extra, fixed)
        if job.memory is None or job.tile is not None or estimate <= job.memory * 2**30:
            break
        budget = min(budget, arrays) - max(extra // 2, 1 << 20)
    if job.memory is not None and estimate > job.memory * 2**30:
        remedy = "a smaller --tile, or more" if job.tile else "more"
        raise UserError(
            f"--memory {job.memory:g}: a window of {' x '.join(map(str, plan.sides))} pixels needs about "
            f"{estimate / 2**30:.2f} GiB with the program; give {remedy}"
        )
    return plan, estimate


def _holding(kind: str, dtype: Any) -> str:
    """The format, or TIFF where a PNG does not hold such numbers."""
    return "tiff" if kind == "png" and np.dtype(dtype) not in (np.uint8, np.uint16) else kind


def _tile(model: Any, source: SectionFile, plan: tiled.Layout, target: tiled.Box, bar: Any) -> np.ndarray:
    return tiled.predict_target(model, source.read, plan, target, lambda done: bar.update(1))


def _whole(model: Any, source: SectionFile, plan: tiled.Layout, bar: Any) -> np.ndarray:
    """A section at the network's size, all tiles of it."""
    result = None
    for i, j, h, w in plan.targets:
        p = _tile(model, source, plan, (i, j, h, w), bar)
        result = np.empty((*source.seen, p.shape[2]), p.dtype) if result is None else result
        result[i : i + h, j : j + w] = p
    return result
