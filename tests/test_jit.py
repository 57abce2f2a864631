"""The kernel cache: a change in any file of a package folder leads to another place, so stale code is never loaded."""

from __future__ import annotations

import numba
import pytest

from minunet import jit


def test_a_change_in_any_file_moves_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(jit.config, "CACHE_DIR", str(tmp_path / "cache"))
    source = tmp_path / "source"
    source.mkdir()
    (source / "kernel.py").write_text("from constants import ROWS\n")
    (source / "constants.py").write_text("ROWS = 14\n")
    first = jit.folder.__wrapped__(source)
    assert first == jit.folder.__wrapped__(source) and first.is_dir()
    (source / "constants.py").write_text("ROWS = 8\n")
    second = jit.folder.__wrapped__(source)
    assert second != first and second.parent == first.parent == tmp_path / "cache" / "kernels"
    (tmp_path / "formulas.py").write_text("def relu(x): return max(x, 0)\n")
    assert jit.folder.__wrapped__(source) not in (first, second)


def test_one_kernel_is_not_what_a_run_compiles(tmp_path, monkeypatch):
    monkeypatch.setattr(jit.config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(jit, "folder", jit.folder.__wrapped__)
    source = tmp_path / "source"
    source.mkdir()
    assert not jit.compiled(source)
    place = jit.folder(source) / "source_1"
    place.mkdir()
    for file, enough in (("pointwise.relu-3", False), ("pointwise.elu-9", False), ("conv_direct.item-7", True)):
        (place / f"{file}.py311.nbi").write_bytes(b"")
        assert jit.compiled(source) is enough


def test_where_nothing_can_be_written_numba_decides(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(jit.config, "CACHE_DIR", str(tmp_path / "file"))
    assert jit.folder.__wrapped__(tmp_path) is None


def test_where_numba_finds_no_place_either_nothing_is_kept(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")  # folders below a file cannot be made, by root neither
    monkeypatch.setattr(jit.config, "CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    made: dict = {}
    exec(compile("def double(x):\n    return 2 * x\n", str(tmp_path / "file" / "kernels.py"), "exec"), made)
    with pytest.raises(RuntimeError, match="cannot cache function 'double'"):
        numba.njit(cache=True)(made["double"])
    assert jit.njit(made["double"])(21) == 42
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_functions_are_cached_there_and_the_setting_is_put_back():
    before = jit.config.CACHE_DIR

    @jit.njit
    def double(x):
        return 2 * x

    assert double(21) == 42 and before == jit.config.CACHE_DIR
