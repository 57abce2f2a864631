"""One call of `minunet train`: find the data, build or resume, train, score, write, and say what happened."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from tqdm import tqdm

from minunet import backends, models, record
from minunet.data import IGNORE, Dataset, hela, load_camvid, load_isbi, split, synthetic_membranes, synthetic_streets
from minunet.data.align import Displacement
from minunet.data.dataset import resized
from minunet.data.download import pixels_sha256
from minunet.errors import UsageError, UserError
from minunet.models import Network
from minunet.training import folder as run_folder
from minunet.training.alone import alone
from minunet.training.config import Config, sections
from minunet.training.defaults import OWN
from minunet.training.inputs import check_channels, plan_window
from minunet.training.loop import DivergedError, State, Trainer
from minunet.training.memory import advised, check_step, check_weights
from minunet.training.own import read_own

DRAWN = ("synthetic", "streets")  # data sets that are made up on the spot
COMPUTING = ("backend", "precision", "threads")  # fields of Options that a checkpoint has too


class Options(NamedTuple):
    """What concerns this call only, not the run's result."""

    data_dir: str | None = None
    backend: str | None = None  # None: that of the resumed run, or cpu
    precision: str | None = None  # None: likewise, or default
    threads: int | None = None
    quiet: bool = False


class Prepared(NamedTuple):
    """What a new run is made of."""

    options: Options
    model: Network
    data: Dataset
    parts: tuple[np.ndarray, np.ndarray]  # train, held out


def prepare(config: Config, options: Options, own: Dataset | None = None) -> Prepared:
    """Threads, backend, network and data, on `own` where the user's files have been read already."""
    options = _prepare(options, {})
    model = _build(config)
    data = load_data(config, options.data_dir, own)
    return Prepared(options, model, data, _parts(config, data))


def start(config: Config, out: str | None, options: Options, own: Dataset | None = None) -> int:
    """A new run, on `own` where the user's files have been read already. Returns the exit code."""
    options, model, data, parts = prepare(config, options, own)
    where = run_folder.new_folder(out, data.name)
    return _run(config, State(), data, parts, model, None, where, options)


def resume(where: str, options: Options) -> int:
    """Go on with the run in folder `where`. Returns the exit code."""
    file = run_folder.find_checkpoint(where)
    config, state, saved = run_folder.resume(file)
    try:
        _check_tile(config, saved.model)
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error
    options = options._replace(threads=options.threads or min(saved.extra.get("threads", _cores()), _cores()))
    options = _prepare(options, saved.extra)
    expected = saved.extra.get("data", {})
    options = options._replace(data_dir=_data_folder(file, options.data_dir, expected))
    data = load_data(config, options.data_dir)
    if data.sha256 != expected.get("sha256"):
        raise UserError(
            f"{file}: was trained on other pixels ({expected.get('source')}), and these are {data.source};"
            " name the folder of the first data with --data"
        )
    print(f"resuming {file} at step {state.step}")
    if changed := _changed(saved.extra, options):
        print(f"note: {changed}: what follows may differ from an undisturbed run in its last bits")
    parts = _parts(config, data)
    run_folder.keep_best(file, state)
    return _run(config, state, data, parts, saved.model, saved.optimizer_state, file.parent, options)


def _data_folder(file: Path, asked: str | None, data: Mapping[str, str]) -> str | None:
    """The folder of a resumed run's data: `asked`, or where they were. Raises UserError where they are gone."""
    before = data.get("folder")
    if asked is not None or before is None:
        return asked
    if not os.path.isdir(before):
        raise UserError(f"{file}: its data were in {before[:4096]!r}, which is gone; name their folder with --data")
    return before


def _changed(before: Mapping[str, Any], options: Options) -> str:
    """What computes otherwise than in the checkpoint of the resumed run, in words; "" where nothing does."""
    then = {**before.get("versions", {}), **{k: before[k] for k in COMPUTING if k in before}}
    now = {**run_folder.versions(), **{k: getattr(options, k) for k in COMPUTING}}
    return ", ".join(f"{k} was {record.brief(then[k])} and is {now[k]}" for k in now if then.get(k, now[k]) != now[k])


def load_data(config: Config, data_dir: str | None, own: Dataset | None = None) -> Dataset:
    """The Config's data set, from the first place that has it; what is taken is printed."""
    size = config.image_size()
    if config.dataset == "camvid":
        data = load_camvid(data_dir, size)
    elif config.dataset == OWN:
        if data_dir is not None:
            raise UsageError(f"--data {data_dir}: your own files are named with --images and --masks; leave it out")
        data = resized(own or read_own(config.to_json()), size)
    elif config.dataset in hela.NAMES:
        data = resized(hela.load_hela(data_dir, config.dataset), size)
    elif config.dataset in DRAWN and data_dir is not None:
        raise UsageError(f"--data {data_dir}: {config.dataset} is drawn, not read; leave it out")
    elif config.dataset == "streets":
        data = resized(synthetic_streets(seed=config.seed), size)
    elif config.dataset == "synthetic":
        images, labels = synthetic_membranes(seed=config.seed)
        source = f"SYNTHETIC membranes, drawn with seed {config.seed}: no real data"
        data = resized(Dataset(images, labels, "synthetic", True, source, pixels_sha256(images, labels)), size)
    else:
        data = resized(load_isbi(data_dir, seed=config.seed), size)
    print(f"data: {data.source}")
    if data.synthetic and config.dataset not in DRAWN:
        print("*** This run uses SYNTHETIC data, made up on the spot: its scores say nothing about real images. ***")
    return data


def _build(config: Config) -> Network:
    try:
        with models.shapes_only():
            shapes = models.build(config.model, **config.model_arguments())
        check_channels(config.facts().channels, shapes, config.dataset)
        check_weights(config, shapes)
        _check_tile(config, shapes)
        return models.build(config.model, **config.model_arguments())
    except ValueError as error:
        raise UsageError(str(error)) from error


def _check_tile(config: Config, model: Network) -> None:
    """Raise UsageError for a tile that the network does not take."""
    if config.tile:
        try:
            plan_window(config, (config.tile, config.tile), model)
        except ValueError as error:
            raise UsageError(f"--tile {config.tile}: {error}") from error


def _cores() -> int:
    return numba.config.NUMBA_NUM_THREADS


def _prepare(options: Options, before: Mapping[str, Any]) -> Options:
    """Threads and backend; what was not asked for is as `before`, in the checkpoint of the resumed run."""
    backend = backends.require(options.backend or before.get("backend", backends.DEFAULT))
    precision = options.precision or before.get("precision", backends.PRECISIONS[0])
    if options.threads is not None:
        if options.threads > _cores():
            raise UsageError(f"--threads {options.threads}: this machine has {_cores()}; ask for that many at most")
        numba.set_num_threads(options.threads)
    return options._replace(backend=backend, precision=precision)


def _run(
    config: Config,
    state: State,
    data: Dataset,
    parts: tuple[np.ndarray, np.ndarray],
    model: Network,
    optimizer_state: dict[str, np.ndarray] | None,
    where: Path,
    options: Options,
) -> int:
    with alone(where), backends.use_backend(options.backend), backends.precision(options.precision):
        model.to(options.backend)
        trainer = Trainer(config, data, parts, model, state, lambda t: run_folder.save(where, t, options.data_dir))
        check_step(trainer)
        if optimizer_state is not None:
            _restore(trainer, optimizer_state, where)
        _announce(trainer, where)
        try:
            with advised(trainer), _bar(trainer, options.quiet) as bar:
                trainer.run(bar, tqdm.write if not options.quiet else print)
            if trainer.stopped:
                print(f"saved at step {state.step}; go on with: minunet train --resume {where}")
                return 130
            _finish(trainer, where, options.quiet)
        except DivergedError as error:
            raise UserError(f"{error}; {_advice(config, where)}") from error
        except KeyboardInterrupt:
            if (where / run_folder.CHECKPOINT).exists():
                print(f"what was saved is kept; go on with: minunet train --resume {where}", file=sys.stderr)
            raise
    return 0


def _restore(trainer: Trainer, state: dict[str, np.ndarray], where: Path) -> None:
    """The optimiser as it was. Raises UserError where the state is not one of this network's."""
    try:
        trainer.optimizer.load_state_dict(state)
    except (ValueError, LookupError, OverflowError) as error:
        raise UserError(
            f"{where / run_folder.CHECKPOINT}: cannot be resumed, {error}; take a checkpoint as minunet train wrote it"
        ) from error


def _parts(config: Config, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Indices (train, held out): the data set's own split, or sections by number."""
    if data.parts is None:
        return split(len(data.images), sections(config.held_out))
    if config.held_out:
        raise UsageError(f"--held-out {config.held_out}: {parted(config)}; leave it out")
    return data.parts["train"], data.parts["val"]


def parted(config: Config) -> str:
    """How a data set with parts is parted, in words."""
    if config.dataset == OWN:
        return "is for a stack of sections; your own images are parted by --val or --val-images"
    return f"{config.dataset} has a split of its own"


def _advice(config: Config, where: Path) -> str:
    """What to do about a broken loss, and what is left of the run."""
    file = where / run_folder.CHECKPOINT
    kept = f"the last good checkpoint is {file}" if file.exists() else "no checkpoint had been written yet"
    return f"start again with a lower --lr (it was {config.lr:g}) or a higher --warmup; {kept}"


def _announce(trainer: Trainer, where: Path) -> None:
    config, data = trainer.config, trainer.data
    budget = f"{trainer.total} steps" if trainer.total is not None else f"{config.minutes:g} minutes"
    print(f"network: {run_folder.network(trainer)}; budget: {budget}; output: {where}")
    if trainer.plan.note:
        print(f"sizes: {trainer.plan.note}")
    if trainer.sampler.note:
        print(f"memory: {trainer.sampler.note}")
    if config.align:
        print(_moved(trainer.displacement))
    if only := _only_class(trainer):
        print(
            f"warning: all labels of the training {_things(data)} are {only}; a network learns nothing else from them"
        )
    if data.scored == "instances" and not any(cells.any() for cells in data.instances[trainer.held_out]):
        print("warning: the held-out images have no cell, so that there is no SEG, and no best validation to keep")
    if trainer.model.config["n_classes"] == 1:
        zero, one = data.classes
        print(f"loss: {config.loss} of one output a pixel, the logit of class 1 ({one}) against 0 ({zero})")
    if trainer.class_weight is not None:
        weights = ", ".join(f"{name} {w:.2f}" for name, w in zip(data.classes, trainer.class_weight))
        print(f"class weights: {weights}")
    compiled = getattr(backends.get(), "compiled", None)
    if compiled is not None and not compiled():
        print("first run on this machine: the kernels are being compiled, about a minute; later runs start at once")
    sys.stdout.flush()


def _only_class(trainer: Trainer) -> str:
    """The name of the one class that the training labels have; "" where they have more."""
    found: set[int] = set()
    for labels in trainer.sampler.labels:
        found |= set(np.unique(labels).tolist()) - {IGNORE}
        if len(found) > 1:
            return ""
    return "of no class" if not found else trainer.data.classes[found.pop()]


def _things(data: Dataset) -> str:
    return "sections" if data.parts is None else "images"


def _moved(by: Displacement | None) -> str:
    """What --align found."""
    if by is None:
        return "align: masks and grey values do not tell how far they lie apart; images stay where they are"
    down, right = by
    return f"align: images are moved to where their masks lie: {-down:+.2f} px down, {-right:+.2f} px to the right"


def _bar(trainer: Trainer, quiet: bool) -> tqdm:
    if trainer.total is not None:
        return tqdm(total=trainer.total, initial=trainer.state.step, unit="step", disable=quiet, dynamic_ncols=True)
    layout = "{percentage:3.0f}%|{bar}| {elapsed} of {total:.0f} s, {remaining} left, {postfix}"
    done = min(trainer.state.seconds, 60 * trainer.config.minutes)
    return tqdm(total=60 * trainer.config.minutes, initial=done, bar_format=layout, disable=quiet, dynamic_ncols=True)


def _finish(trainer: Trainer, where: Path, quiet: bool) -> None:
    """Score the held-out sections with everything, write the results, print the summary."""
    begin = time.monotonic()
    show: Callable = lambda rows: tqdm(rows, f"scoring held-out {_things(trainer.data)}", leave=False, disable=quiet)  # noqa: E731
    verdict = trainer.final(show)
    run_folder.write_results(where, trainer, verdict, numba.get_num_threads())
    print(run_folder.summary(trainer, verdict), end="")
    print(f"scored in {time.monotonic() - begin:.1f} s; see {where}{os.sep}: report.html, summary.txt, held_out.png")
    file = run_folder.best_of(where, trainer.state)
    why = f"   (best: step {trainer.state.best['step']})" if file.name == run_folder.BEST else ""
    print(f"predict: minunet predict {file} IMAGE... --out DIR{why}")
