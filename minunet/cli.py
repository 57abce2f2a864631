"""What every command shares: one-line errors, exit codes, --debug, a quiet Ctrl-C."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from minunet.errors import UsageError, UserError, reason, remedy

PRECISIONS = ("default", "strict", "tf32", "bf16", "fp16")  # minunet.backends has them too, and takes NumPy to load


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows an option's default behind its text, unless the default is that nothing is given."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        nothing = any(action.default is value for value in (None, False, ""))
        return action.help if nothing else super()._get_help_string(action)


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """An argument parser in the house style: defaults shown, --debug understood."""
    p = argparse.ArgumentParser(
        prog=f"minunet {name}",
        description=description,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return p


def computing(p: argparse.ArgumentParser, otherwise: str) -> None:
    """Add --device, --backend and --precision; `otherwise` ends the help of the first: what happens without it."""
    p.add_argument("--device", choices=("cpu", "cuda"), help=f"compute on the processor or an NVIDIA GPU{otherwise}")
    p.add_argument("--backend", metavar="NAME", help="who computes, by name, instead of --device; see minunet check")
    p.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="of convolutions: strict keeps to sums of products in float32; tf32, bf16, fp16 are a GPU's tensor cores",
    )


def backend(args: Mapping[str, Any]) -> str | None:
    """The backend that --device or --backend names, None without either. Raises UsageError where they differ."""
    device, name = args["device"], args["backend"]
    if device and name and device != name:
        raise UsageError(f"--device {device}, --backend {name}: exclude each other; give one")
    return name or device


def run(command: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> int:
    """Call `command(argv)` and turn what it raises into an exit code: 0, 1, 2 (usage) or 130 (Ctrl-C)."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        code = command(argv) or 0
        _flush()
        return code
    except BrokenPipeError:  # `minunet ... | head`: the reader left, which is no error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (UserError, OSError, MemoryError) as error:
        if "--debug" in argv:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    except ImportError as error:  # a package is missing, broken, or does not go with another
        if "--debug" in argv or (error.name or "").partition(".")[0] == "minunet":
            raise
        print(f"error: {one_line(error)}; minunet check lists the packages, and how to get them", file=sys.stderr)
        return 1


def _flush() -> None:
    """Bring to standard output what was printed, so that a disk that it goes to and that is full is noticed."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        with open(os.devnull, "wb") as nowhere:  # else the interpreter complains again when it ends
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        raise OSError(error.errno, reason(error), "standard output") from error


def one_line(error: BaseException) -> str:
    """The message of `error` on one line; an OSError names its file, if it has one, the reason and the remedy."""
    if isinstance(error, OSError) and error.errno is not None:
        file = "" if error.filename is None else f"{error.filename}: "
        return f"{file}{reason(error)}{remedy(error)}"
    text = " ".join(str(error).split())
    return text or type(error).__name__
