"""README's commands, snippets and tables are what the project does."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bench import report

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S) for line in block.splitlines() if line.strip()]
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.S)


def test_the_two_lines_stand_in_readme_and_ci_calls_the_second():
    assert "    pip install -e . && python -m minunet.train isbi\n" in TEXT
    assert '    pip install -e ".[test]" && python -m pytest\n' in TEXT
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("snippet", PYTHON)
def test_python_snippets_run(snippet):
    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", SHELL)
def test_commands_and_their_options_exist(line):
    words = shlex.split(line, comments=True)
    assert words[0] == "minunet"
    place = words[1:3] if words[1] in ("models", "data") else words[1:2]  # these have commands of their own
    done = subprocess.run([sys.executable, "-m", "minunet", *place, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for word in words[2:]:
        assert not word.startswith("--") or word in done.stdout, word


def test_links_and_pictures_exist():
    places = re.findall(r"\]\((?!http)([^)#]+)\)", TEXT)
    assert places
    for place in places:
        assert (ROOT / place).exists(), place


def test_tables_are_what_the_script_writes():
    fresh = report.rewrite(TEXT)
    for section in report.SECTIONS:
        old, new = (_section(text, section) for text in (TEXT, fresh))
        if section == "reading":  # lines come and go: what is there must match, the counts to a tenth
            numbers = [[int(n) for n in re.findall(r"\| (\d+) \|", text)] for text in (old, new)]
            assert re.sub(r"\| \d+ \|", "", old) == re.sub(r"\| \d+ \|", "", new)
            assert all(abs(a - b) <= 0.1 * b for a, b in zip(*numbers)), "run `python -m bench report`"
        else:
            assert old == new, f"README's {section} is out of date; run `python -m bench report`"


def test_a_missing_marker_is_named():
    with pytest.raises(ValueError, match="isbi: begin"):
        report.rewrite(TEXT.replace("<!-- isbi: begin -->", ""))


def _section(text: str, name: str) -> str:
    return text.split(f"<!-- {name}: begin -->")[1].split(f"<!-- {name}: end -->")[0]
