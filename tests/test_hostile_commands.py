"""Two thousand malformed files through each command that reads files: a result or one line, no hang, in a gigabyte.

`hostile_commands` has the cases and says what goes wrong; each group runs in a process of its own with RLIMIT_AS.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import hostile_commands
import pytest
from hostile_commands import GROUPS, Case, judge

from minunet.errors import UserError

FILES = {  # malformed files in each group, and the commands that must refuse at least so many of them
    "train folder": (250, 150),
    "train --resume": (400, 250),
    "predict": (450, 100),
    "evaluate": (280, 150),
    "data check": (300, 3),
    "models info": (300, 100),
    "models import": (270, 150),
}
assert FILES.keys() == GROUPS.keys() and sum(files for files, _ in FILES.values()) >= 2000
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")  # each reserves memory


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no limit of address space")
@pytest.mark.parametrize("group", GROUPS)
def test_malformed_files(tmp_path, group):
    root = Path(__file__).parents[1]
    paths = os.pathsep.join([str(root), str(root / "tests"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, hostile_commands.__file__, group, tmp_path]
    environment = os.environ | THREADS | {"PYTHONPATH": paths}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == []
    files, refused = FILES[group]
    assert found["files"] >= files and found["refused"] >= refused and found["MiB"] < 1000


def raising(argv):
    raise LookupError("a fault of ours")


def two_lines(argv):
    print("error: one", file=sys.stderr)
    raise UserError("two")


def chatty(argv):
    print("RuntimeWarning: overflow", file=sys.stderr)
    return 0


def silent(argv):
    return 1


def reserving(argv):
    raise MemoryError("Unable to allocate 9.31 TiB")


@pytest.mark.parametrize("command", [raising, two_lines, chatty, silent, reserving])
def test_the_judge_sees_what_is_wrong(command):
    assert judge(Case("x", command, []))[0] != ""


def test_the_judge_lets_pass_what_is_right():
    assert judge(Case("x", lambda argv: 0, [])) == ("", False)

    def refuses(argv):
        raise UserError("a.tif: is cut short; copy it again")

    assert judge(Case("x", refuses, [])) == ("", True)


def test_the_judge_sees_loops_and_waste(monkeypatch):
    def loops(argv):
        while True:
            pass

    monkeypatch.setattr(hostile_commands, "WALL", 0.1)
    assert "Late: longer" in judge(Case("x", loops, []))[0]
    monkeypatch.setattr(hostile_commands, "SECONDS", 1e-9)
    assert judge(Case("x", lambda argv: 0, []))[0].startswith("took ")
