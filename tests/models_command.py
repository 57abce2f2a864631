"""`minunet models` as tests call it."""

from __future__ import annotations

import pytest

from minunet import cli
from minunet.models.__main__ import main

UNET = ("--in-channels", "1", "--classes", "2", "--width", "2", "--arg", "depth=1")


def run(*argv: object) -> int:
    return cli.run(main, list(map(str, argv)))


def failed(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one line of an error; the command's code is 1 or 2."""
    code = run(*argv)
    out, err = capsys.readouterr()
    assert code in (1, 2) and err.startswith("error: ") and err.count("\n") == 1 and "written" not in out
    return f"{code}: {err[7:-1]}"
