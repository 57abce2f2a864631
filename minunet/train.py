"""Train a network: `python -m minunet.train isbi` (or `minunet train isbi`)."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minunet import cli
from minunet.errors import UsageError
from minunet.training.config import Config
from minunet.training.defaults import CELLS, DATASETS, FULL, OWN, SCENES, SMALL

if TYPE_CHECKING:
    from minunet.training.job import Options

DEFAULT_STEPS = DATASETS["isbi"].steps  # about five minutes on two cores


def _parser() -> argparse.ArgumentParser:
    p = cli.parser("train", __doc__)
    p.formatter_class = argparse.HelpFormatter  # the defaults stand in the texts, since an option left out must show
    p.epilog = _other_defaults()
    p.add_argument(
        "dataset",
        nargs="?",
        choices=tuple(DATASETS),
        help="data set; folder: your own files; synthetic, streets: drawn",
    )
    _add_settings(p)
    _add_run(p)
    return p


def _add_settings(p: argparse.ArgumentParser) -> None:
    """An option for each field of Config that has a text."""
    for f in fields(Config)[1:]:
        if not f.metadata["help"]:
            continue
        default = f" (default: {f.default})" if f.default not in (None, "", MISSING) else ""
        if f.name == "steps":
            default = f" (default: {DEFAULT_STEPS}, about five minutes on two cores)"
        kind = {"int": int, "int | None": int, "str": str, "str | None": str}.get(f.type, float)
        p.add_argument(
            "--" + f.name.replace("_", "-"),
            type=kind,
            default=argparse.SUPPRESS,
            choices=f.metadata["choices"],
            metavar=None if f.metadata["choices"] else {int: "N", float: "X", str: "TEXT"}[kind],
            help=f.metadata["help"] + default,
            **({"nargs": "?", "const": 1} if f.name == "instances" else {}),  # --instances alone means yes
        )


def _add_run(p: argparse.ArgumentParser) -> None:
    """Options of one run, which its checkpoint does not repeat; and --model-arg, the networks' own arguments."""
    p.add_argument(
        "--model-arg",
        action="append",
        metavar="KEY=VALUE",
        help="another argument of the network, such as form=article; may be given again (see minunet models)",
    )
    p.add_argument(
        "--data",
        metavar="DIR",
        help="folder with the data (else: MINUNET_DATA, cache; isbi: then a download, or a drawn stack)",
    )
    p.add_argument(
        "--out",
        metavar="DIR",
        help="output folder, new or empty (default: runs/DATA, runs/DATA-2, ...): checkpoints, report.html, metrics,"
        " and TensorBoard's event files where tensorboardX or tensorboard is installed",
    )
    p.add_argument("--resume", metavar="DIR", help="continue the run in this folder, bit for bit")
    cli.computing(p, " (default: cpu, or as the resumed run)")
    p.add_argument("--threads", type=int, metavar="N", help="processor threads (default: all)")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    p.add_argument("--folds", type=int, metavar="K", help="K runs, each with another block of sections held out")
    p.add_argument(
        "--find-lr",
        nargs="?",
        type=int,
        const=100,
        metavar="STEPS",
        help="try learning rates from low to high instead (100 steps), and suggest one",
    )


def _other_defaults() -> str:
    """Where the defaults in the options' texts, those of U-Net on ISBI 2012, do not hold."""
    parts = []
    for name, data in DATASETS.items():
        if data.settings:
            options = {"steps": data.steps, **data.settings}
            parts.append(f"{name}: " + " ".join(f"--{k.replace('_', '-')} {v}" for k, v in options.items()))
    for kind, table in (("scenes", SCENES), ("cells", CELLS)):
        for name, options in table.items():
            parts.append(f"{name} on {kind}: " + " ".join(f"--{k} {v}" for k, v in options.items()))
    return (
        f"Other defaults. {'; '.join(parts)}. Networks other than unet: 1/{SMALL} of their paper's width"
        f" ({', '.join(FULL)}: all of it), and their own depth, padding and dropout."
    )


def _config(args: dict[str, Any]) -> Config:
    """The Config that the given options describe, the rest filled in."""
    from minunet.training.options import configure  # it looks at the networks, which load NumPy

    given = {f.name: args[f.name] for f in fields(Config) if args.get(f.name) is not None}
    return configure(given, args["model_arg"] or ())


def _new(args: dict[str, Any]) -> tuple[Config, Any]:
    """What a new run is to do, and the user's own data if it is of that; `args` gain what those files tell."""
    if args["dataset"] is None:
        raise UsageError("train: which data set? Try `minunet train isbi` (see --help)")
    own = None
    if args["dataset"] == OWN:
        from minunet.training.own import FOLDERS, read_own

        own = read_own(args, print)
        args |= {name: os.path.abspath(args[name]) for name in FOLDERS if args.get(name)}  # to resume from anywhere
        args |= {"channels": own.channels, "n_classes": own.n_classes}
    return _config(args), own


def _refuse_settings(args: dict[str, Any]) -> None:
    """UsageError for what cannot be given beside --resume."""
    given = [f.name for f in fields(Config) if args.get(f.name) is not None]
    given += [name for name in ("model_arg", "out", "folds", "find_lr") if args[name] is not None]
    if given:
        raise UsageError(
            f"--resume {args['resume']}: takes its settings from the run's checkpoint; leave out {', '.join(given)}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0, or 130 when it was stopped by Ctrl-C and saved; errors are raised."""
    args = vars(_parser().parse_args(argv))
    if args.get("preset") == "list":
        from minunet.training.presets import listing

        print(listing())
        return 0
    config = own = None
    if args["resume"] is None:
        config, own = _new(args)
    else:
        _refuse_settings(args)
    if args["threads"] is not None and args["threads"] < 1:
        raise UsageError(f"--threads {args['threads']}: must be at least 1")
    if args["folds"] is not None and args["find_lr"] is not None:
        raise UsageError("--folds, --find-lr: exclude each other; find the rate first")

    from minunet.training import job  # NumPy, Numba and SciPy are loaded here, after usage errors and --help

    chosen = {"backend": cli.backend(args), "precision": args["precision"]}
    options = job.Options(data_dir=args["data"], threads=args["threads"], quiet=args["quiet"], **chosen)
    return _resume(args["resume"], options) if config is None else _start(config, args, options, own)


def _resume(folder: str, options: Options) -> int:
    from minunet.training import folds, job

    in_folds = os.path.isfile(os.path.join(folder, folds.RECORD))
    return folds.resume(Path(folder), options) if in_folds else job.resume(folder, options)


def _start(config: Config, args: dict[str, Any], options: Options, own: Any) -> int:
    """A run, a search for its learning rate, or a run for each fold."""
    from minunet.training import find_lr, folds, job

    if args["find_lr"] is not None:
        return find_lr.run(config, args["out"], options, own, args["find_lr"])
    if args["folds"] is not None:
        return folds.run(config, args["out"], options, args["folds"])
    return job.start(config, args["out"], options, own)


if __name__ == "__main__":
    sys.exit(cli.run(main))
