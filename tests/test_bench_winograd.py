"""The page on the CPU backend shows what its command prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import minunet
from bench import winograd

FOLDER = Path(minunet.__file__).parent / "backends" / "cpu"
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")


def _indented(lines: list[str]) -> str:
    return "\n".join(f"    {line}".rstrip() for line in lines)


def test_the_page_shows_the_matrices_and_the_example():
    assert _indented(winograd.text_of(4, 3)) in PAGE
    example = winograd.example()
    assert _indented(example) in PAGE
    assert example[-1].split()[1:] == example[-2].split()[-4:] == ["1", "8", "1", "2"]


def test_the_page_shows_the_errors():
    shown = re.findall(r"^    ((?:direct |F\().*e-\d\d)$", PAGE, re.M)
    fresh = winograd.table()[1:]
    assert len(shown) == len(fresh)
    for old, new in zip(shown, fresh):
        *old_exact, old_error = old.split()
        *new_exact, new_error = new.split()
        assert old_exact == new_exact
        assert float(new_error) == pytest.approx(float(old_error), rel=0.5)  # it differs with the length of vectors


def test_the_page_names_files_that_exist():
    named = re.findall(r"\]\(([^)]+)\)", PAGE) + re.findall(r"`(\w+\.py)`", PAGE)
    assert named and all((FOLDER / name).is_file() for name in named)


def test_the_command_prints_all_of_it(capsys):
    assert winograd.main([]) == 0
    text = capsys.readouterr().out
    assert all(line in text for line in (*winograd.text_of(4, 3), *winograd.example(), "F(6x6, 3x3)"))
