"""The `minunet` command: `minunet train`, `minunet predict`, ... each is also `python -m minunet.<name>`.

A command's module is imported only when it is asked for, so that `minunet --help` is quick.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from minunet import __version__, cli
from minunet.errors import UsageError, UserError

COMMANDS = {
    "train": "train a network on ISBI 2012, CamVid, HeLa or your own images",
    "predict": "segment images of any size with a trained network",
    "evaluate": "score a segmentation made by any program",
    "data": "look a folder of images over, fetch a data set, draw a synthetic stack",
    "models": "list the networks, show one's layers, take weights in and hand them out",
    "bench": "measure the kernels (from a checkout of the repository)",
    "check": "check this installation",
}
CHECKOUT = Path(__file__).resolve().parents[1]  # where `bench/` lies beside `minunet/`, if this is a checkout


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names and return its exit code: 0, 1, 2 (usage) or 130 (Ctrl-C)."""
    return cli.run(_dispatch, argv)


def _dispatch(argv: Sequence[str] | None) -> int:
    name, *rest = argv or [""]
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name == "--version":
        print(f"minunet {__version__}")
        return 0
    if name == "bench":
        return _bench()(rest) or 0
    module = module_of(name)
    if module is None:
        raise UsageError(_unknown(name))
    return import_module(module).main(rest) or 0


def usage() -> str:
    """The text of --help, from the commands that are part of this installation."""
    rows = [f"  {name:10}{text}" for name, text in COMMANDS.items() if name in installed()]
    return "\n".join(
        [
            "usage: minunet COMMAND ...",
            "",
            "Segmentation networks of the U-Net era in plain NumPy.",
            "",
            *rows,
            "",
            "minunet COMMAND --help lists a command's options; minunet --version prints the version.",
        ]
    )


def installed() -> list[str]:
    """The commands that this installation has; `bench` always, since it says what it lacks."""
    return [name for name in COMMANDS if name == "bench" or module_of(name) is not None]


def module_of(name: str) -> str | None:
    """The module whose `main` is the command `name`, None if there is none. Imports nothing but this package."""
    spec = find_spec(f"minunet.{name}") if name in COMMANDS else None
    if spec is None:
        return None
    if spec.submodule_search_locations is None:
        return f"minunet.{name}"
    has_main = any((Path(folder) / "__main__.py").is_file() for folder in spec.submodule_search_locations)
    return f"minunet.{name}.__main__" if has_main else None


def _bench() -> Callable[[Sequence[str]], int | None]:
    if not (CHECKOUT / "bench" / "__main__.py").is_file():
        raise UserError("bench: is not part of an installed minunet; run it in a checkout of the repository")
    sys.path.insert(0, str(CHECKOUT))
    return import_module("bench.__main__").main


def _unknown(name: str) -> str:
    known = ", ".join(installed())
    if not name:
        return f"minunet: which command? One of {known} (see minunet --help)"
    close = difflib.get_close_matches(name, installed(), n=1, cutoff=0.4)
    return f"{name}: is not a command of minunet; {f'did you mean {close[0]}? ' if close else ''}There are {known}"


if __name__ == "__main__":
    sys.exit(main())
