"""The CPU's buffer pool and the stretches of memory it cuts arrays from."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from minunet.backends.cpu import arena, memory
from minunet.backends.cpu.arena import PAGE, Region

F32 = np.float32
SIZES = pytest.mark.parametrize("n", [1050, 30_000, 1_000_003])  # small, middle, large: in float32 4.2 kB, 120 kB, 4 MB


def address(a: np.ndarray) -> int:
    return a.__array_interface__["data"][0]


@SIZES
def test_arrays_are_ordinary_aligned_and_reused(n):
    pool = memory.Pool()
    a = pool.empty((n,), F32)
    assert a.shape == (n,) and a.dtype == F32 and a.flags.c_contiguous and a.flags.writeable
    where = address(a)
    assert where % memory.ALIGNMENT == 0
    a[...] = 1
    view = a[1:].reshape(-1)[3:]
    del a
    other = pool.empty((n,), F32)  # the view still holds the first place
    other[...] = 2
    assert (view == 1).all() and pool.stats()["misses"] == 2
    del view
    again = pool.empty((n // 5, 5), F32)
    assert address(again) == where and pool.stats()["hits"] == 1
    assert not np.shares_memory(again, other)


def test_tiny_arrays_are_not_the_pools():
    pool = memory.Pool()
    a = pool.empty((2, memory.TINY // 8), F32)
    assert a.shape == (2, memory.TINY // 8) and a.dtype == F32 and a.flags.c_contiguous and a.flags.writeable
    assert pool.empty(0).size == 0 and pool.stats()["held"] == pool.stats()["misses"] == 0
    assert pool.empty(memory.TINY // 4 + 1).nbytes > memory.TINY and pool.stats()["misses"] == 1


def test_size_classes_waste_at_most_an_eighth():
    for n in [1024, 1025, 1100, 5000, 65537, 10**6 + 1, 2**24 - 1, 2**24, 2**24 + 1]:
        size = memory.size_class(n)
        assert n <= size <= 1.125 * n and memory.size_class(size) == size


def test_footprint_of_repeated_steps_is_constant():
    pool = memory.Pool()

    def step():
        kept = [pool.empty(n) for n in (1000, 20_000, 300_000, 2_000_000)]
        for n in (5000, 70_000, 5000, 1_500_000):
            pool.empty(n)[...] = 0
        del kept

    step()
    held, misses = pool.stats()["held"], pool.stats()["misses"]
    for _ in range(20):
        step()
    stats = pool.stats()
    assert stats["held"] == held and stats["misses"] == misses and stats["live"] == 0


@pytest.mark.parametrize("slack", [0, 1 << 24])
def test_what_is_held_is_bounded_when_sizes_keep_changing(monkeypatch, slack):
    monkeypatch.setattr(memory, "SLACK", slack)
    pool, rng, live = memory.Pool(), np.random.default_rng(0), []
    for n in rng.integers(1 << 17, 1 << 23, 300):
        live.append(pool.empty(int(n), np.uint8))
        live[-1][...] = 1
        if len(live) > 12:
            del live[int(rng.integers(len(live)))]
        stats = pool.stats()
        assert stats["held"] <= stats["peak"] + max(stats["peak"] // 4, slack) + (1 << 23)
    live.clear()
    pool.clear()
    assert pool.stats()["held"] == 0


def test_idle_memory_serves_other_sizes():
    pool = memory.Pool()
    a, b, c = (pool.empty(4_000_000, np.uint8) for _ in range(3))
    c[...] = 3
    held = pool.stats()["held"]
    del a, b
    pool.empty(7_900_000, np.uint8)[...] = 4  # in the place of both
    assert pool.stats()["held"] == held and (c == 3).all()


def test_many_threads_get_disjoint_memory():
    pool, wrong = memory.Pool(), []

    def work(k):
        for i in range(200):
            arrays = [pool.empty(n + i % 7, np.int64) for n in (1000, 20_000, 300_000)]
            for a in arrays:
                a[:: a.size // 7] = k
            if not all((a[:: a.size // 7] == k).all() for a in arrays):
                wrong.append((k, i))

    workers = [threading.Thread(target=work, args=(k,)) for k in range(1, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    gc.collect()
    assert pool.stats()["live"] == 0


def test_a_system_that_refuses_large_stretches_gives_small_ones(monkeypatch):
    class Poor(Region):
        def __init__(self, nbytes):
            if nbytes > 1 << 20:
                raise OSError(12, "Cannot allocate memory")
            super().__init__(nbytes)

    monkeypatch.setattr(memory, "Region", Poor)
    pool = memory.Pool()
    a = pool.empty(1 << 20, np.uint8)
    a[...] = 1
    with pytest.raises(MemoryError, match="2097152 bytes; 1048576 are in use"):
        pool.empty(2 << 20, np.uint8)
    assert (a == 1).all() and pool.stats()["live"] == 1 << 20


# --- a stretch


def check(region: Region, used: dict[int, int]) -> None:
    """Free and used parts cover the stretch once, and no two free parts are in touch."""
    assert all(a + n < b for (a, n), (b, _) in zip(region.free, region.free[1:]))
    parts = sorted([(a, n) for a, n in region.free] + list(used.items()))
    end = 0
    for a, n in parts:
        assert a == end and n > 0
        end += n
    assert end == region.nbytes


def test_parts_of_a_stretch_never_overlap_or_get_lost():
    region, rng, used = Region(64 * PAGE), np.random.default_rng(1), {}
    for _ in range(2000):
        if used and rng.random() < 0.5:
            offset = int(rng.choice(list(used)))
            region.give(offset, used.pop(offset))
        else:
            n = int(rng.integers(1, 12)) * PAGE
            before = {a: (length, a + length <= region.touched) for a, length in region.free if length >= n}
            offset = region.take(n)
            assert (offset is None) == (not before)
            if offset is not None:
                assert not any(warm and length < before[offset][0] for length, warm in before.values())  # the tightest
                assert before[offset][1] or not any(warm for _, warm in before.values())  # fresh pages only at need
                used[offset] = n
        check(region, used)
    for offset, n in used.items():
        region.give(offset, n)
    assert region.empty() and region.take(65 * PAGE) is None


def test_cooled_pages_are_forgotten_and_used_ones_are_not():
    region = Region(arena.round_up(8 << 20))
    a, b = region.take(1 << 20), region.take(1 << 20)
    memory_of = np.frombuffer(region._buffer, np.uint8)
    memory_of[a : a + (1 << 20)], memory_of[b : b + (1 << 20)] = 1, 2
    region.give(a, 1 << 20)
    region.cool()
    assert (memory_of[b : b + (1 << 20)] == 2).all()
    assert region.touched - region.cold == 1 << 20 or region.cold == 0  # nothing is handed back where that is unknown
