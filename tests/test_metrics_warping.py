"""Labels, thinning and warping against second implementations written from the definitions."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from minunet.metrics import label_cells, thin_borders, warp
from minunet.metrics.warping import MERGE, OTHER, SPLIT, is_simple

FOUR = ndimage.generate_binary_structure(2, 1)
EIGHT = np.ones((3, 3))
RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))

images = st.tuples(st.integers(1, 9), st.integers(1, 11), st.integers(0, 2**32 - 1), st.floats(0.2, 0.9))


def random_cells(case) -> np.ndarray:
    h, w, seed, share = case
    return np.random.default_rng(seed).random((h, w)) < share


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = {(int(x), int(y)) for x, y in zip(a.ravel(), b.ravel())}
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs}) and ((a == 0) == (b == 0)).all()


@settings(max_examples=100)
@given(images)
def test_labels_are_the_4_connected_components(case):
    cells = random_cells(case)
    labels, count = label_cells(cells)
    expected, n = ndimage.label(cells, FOUR)
    assert count == n == labels.max() and labels.dtype == np.int32
    assert same_partition(labels, expected)


def test_labels_of_views_and_of_a_spiral():
    spiral = np.ones((63, 65), bool)
    for k in range(2, 30, 4):
        spiral[k, k:-1] = spiral[-k, 1:-k] = False
    assert label_cells(spiral[::-1, ::2])[1] == ndimage.label(spiral[::-1, ::2], FOUR)[1]


# --- thinning ------------------------------------------------------------------------------------------------------


def flood(cells: np.ndarray) -> np.ndarray:
    """Border thinning from its definition, with a dictionary of states."""
    height, width = cells.shape
    seeds, _ = ndimage.label(cells, FOUR)
    state = {(x, y): int(seeds[y, x]) or "mask" for x in range(width) for y in range(height)}

    def neighbours(x, y):
        return [q for q in ((x - 1, y), (x, y - 1), (x + 1, y), (x, y + 1)) if q in state]

    queue, flag = deque(), False
    for x in range(width):
        for y in range(height):
            if state[x, y] == "mask" and any(isinstance(state[q], int) for q in neighbours(x, y)):
                state[x, y] = "queued"
                queue.append((x, y))
    while queue:
        pixel = queue.popleft()
        for q in neighbours(*pixel):
            mine, theirs = state[pixel], state[q]
            if isinstance(theirs, int):
                if mine == "queued" or (mine == "dam" and flag):
                    state[pixel] = theirs
                elif isinstance(mine, int) and mine != theirs:
                    state[pixel], flag = "dam", False
            elif theirs == "dam":
                if mine == "queued":
                    state[pixel], flag = "dam", True
            elif theirs == "mask":
                state[q] = "queued"
                queue.append(q)
    fresh = int(seeds.max()) + 1  # only when there is no cell at all
    out = np.zeros(cells.shape, int)
    for (x, y), s in state.items():
        out[y, x] = {"dam": 0, "mask": fresh}.get(s, s)
    return out


@settings(max_examples=200)
@given(images)
def test_thinning_matches_the_definition(case):
    cells = random_cells(case)
    kept = cells.copy()
    thin = thin_borders(cells)
    assert same_partition(thin, flood(cells)) and np.array_equal(cells, kept)
    if cells.any():
        assert same_partition(thin[cells], label_cells(cells)[0][cells])  # cells keep their identity


def test_thinning_matches_the_definition_on_cells_with_wide_membranes():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:70, :90]
    for width in (2, 5, 9):
        d = np.sort([np.hypot(y - a, x - b) for a, b in rng.random((14, 2)) * (70, 90)], axis=0)
        cells = d[1] - d[0] > width
        thin = thin_borders(cells)
        assert same_partition(thin, flood(cells))
        assert 0 < (thin == 0).mean() < (~cells).mean() / 2


def test_thinning_by_hand():
    assert np.array_equal(thin_borders(np.zeros((3, 4), bool)), np.ones((3, 4)))  # all membrane: one segment
    assert np.array_equal(thin_borders(np.ones((3, 4), bool)), np.ones((3, 4)))
    assert thin_borders(np.array([[1, 0, 0, 0, 1]]) > 0).tolist() == [[1, 1, 0, 2, 2]]
    # even gap: the left half is queued first and takes its cell, then the right half meets it
    assert thin_borders(np.array([[1, 0, 0, 1]]) > 0).tolist() == flood(np.array([[1, 0, 0, 1]]) > 0).tolist()
    # columns are scanned first: cells are numbered column by column
    assert thin_borders(np.array([[0, 0, 1], [1, 0, 0]]) > 0)[1, 0] == 1


# --- simple points and warping -------------------------------------------------------------------------------------


def count_parts(patch: np.ndarray) -> tuple[int, int]:
    return ndimage.label(patch, FOUR)[1], ndimage.label(~patch, EIGHT)[1]


@pytest.mark.parametrize("centre", [False, True])
def test_simple_means_no_part_appears_or_disappears(centre):
    for ring in range(256):
        patch = np.zeros((3, 3), bool)
        for k, (di, dj) in enumerate(RING):
            patch[1 + di, 1 + dj] = ring >> k & 1
        patch[1, 1] = centre
        flipped = patch.copy()
        flipped[1, 1] = not centre
        assert is_simple(ring) == (count_parts(patch) == count_parts(flipped)), f"{ring:08b}"


def warp_slowly(truth: np.ndarray, p: np.ndarray, t: float):
    """Relaxation and classification from the definition: whole-patch counting, whole-window labelling."""
    height, width = truth.shape
    now = np.pad(truth, 1)
    target = np.pad(p > t, 1)

    def simple(y, x):
        patch = now[y - 1 : y + 2, x - 1 : x + 2].copy()
        before = count_parts(patch)
        patch[1, 1] ^= True
        return before == count_parts(patch)

    while True:
        listed = [(y, x) for x in range(1, width + 1) for y in range(1, height + 1) if now[y, x] != target[y, x]]
        listed.sort(key=lambda q: -np.float32(abs(float(p[q[0] - 1, q[1] - 1]) - t)))
        flips = 0
        for q in listed:
            if simple(*q):
                now[q] ^= True
                flips += 1
        if flips == 0:
            break

    labels = now[1:-1, 1:-1]
    ids = np.pad(ndimage.label(labels, FOUR)[0], 1, constant_values=-1)
    kinds = np.zeros(truth.shape, int)
    for y, x in listed:
        around = {int(ids[y + dy, x + dx]) for dy, dx in RING} - {-1}
        kind = OTHER
        if len(around) >= 3:
            kind = SPLIT if now[y, x] else MERGE
        elif len(around) == 2 and now[y, x]:
            r = 20 if min(height, width) >= 20 else max(height, width)
            window = np.pad(labels, r)[y - 1 : y + 2 * r, x - 1 : x + 2 * r].copy()  # (2 r + 1, 2 r + 1) around it
            window[r, r] = False
            parts = ndimage.label(window, FOUR)[0]
            if len({int(parts[r + dy, r + dx]) for dy, dx in RING}) > 2:
                kind = SPLIT
        kinds[y - 1, x - 1] = kind
    return labels, kinds


@settings(max_examples=150)
@given(images, st.sampled_from([0.0, 0.30000000000000004, 0.5, 0.9]), st.booleans())
def test_warping_matches_the_definition(case, t, steps):
    truth = random_cells(case)
    p = np.random.default_rng(case[2] + 1).random(truth.shape)
    p = (np.round(p, 1) if steps else p).astype(np.float32)  # steps of 0.1: many ties and values at the threshold
    kept = truth.copy(), p.copy()
    labels, kinds = warp(truth, p, t)
    assert np.array_equal(truth, kept[0]) and np.array_equal(p, kept[1])
    expected_labels, expected_kinds = warp_slowly(truth, p.astype(np.float64), t)
    assert np.array_equal(labels, expected_labels) and np.array_equal(kinds, expected_kinds)


@pytest.mark.parametrize("shape", [(26, 47), (19, 60)])  # 19: a side below the radius means the whole slice
def test_warping_matches_the_definition_on_smooth_maps(shape):
    rng = np.random.default_rng(3)
    truth, p = (ndimage.gaussian_filter(rng.standard_normal(shape), 1.0) for _ in range(2))
    p = ((p - p.min()) / np.ptp(p)).astype(np.float32)
    for t in (0.3, 0.5):
        labels, kinds = warp(truth > 0, p, t)
        expected_labels, expected_kinds = warp_slowly(truth > 0, p.astype(np.float64), t)
        assert np.array_equal(labels, expected_labels) and np.array_equal(kinds, expected_kinds)
    assert {OTHER, SPLIT, MERGE} <= set(np.unique(kinds)) | {OTHER}


@settings(max_examples=60)
@given(images)
def test_warping_keeps_topology(case):
    truth = random_cells(case)
    p = np.random.default_rng(case[2] + 1).random(truth.shape)
    labels, kinds = warp(truth, p, 0.5)
    assert count_parts(np.pad(labels, 1)) == count_parts(np.pad(truth, 1))
    assert np.array_equal(labels != (p > 0.5), kinds > 0)


def test_warping_by_hand():
    truth = np.ones((7, 9), bool)
    truth[:, 4] = False  # two cells and a membrane of 7 pixels
    moved = np.roll(truth, 1, axis=1)
    assert not warp(truth, moved, 0.0).kinds.any()  # a shifted membrane is free
    broken = truth.copy()
    broken[3, 4] = True
    assert (warp(truth, broken, 0.0).kinds == MERGE).nonzero() == (np.array([3]), np.array([4]))
    cell = np.ones((7, 9), bool)
    kinds = warp(cell, truth, 0.0).kinds  # a membrane where there is none: it grows in from both ends
    assert (kinds == SPLIT).sum() == 1 and (kinds > 0).sum() == 1
    hole = cell.copy()
    hole[3, 3] = False
    assert warp(cell, hole, 0.0).kinds[3, 3] == OTHER
    lone = np.zeros((7, 9), bool)
    lone[3, 3] = True
    assert warp(lone, lone & False, 0.0).kinds[3, 3] == OTHER


@pytest.mark.parametrize(("side", "kind"), [(20, OTHER), (23, OTHER), (24, SPLIT), (90, SPLIT)])
def test_window_decides_what_counts_as_a_split(side, kind):
    """A ring of cell, cut at the top: its ends stay joined along the bottom, if that is within 20 rows of the cut."""
    ring = np.zeros((side, side), bool)
    ring[1:-1, 1:-1] = True
    ring[2:-2, 2:-2] = False
    cut = ring.copy()
    cut[1, side // 2] = False  # the bottom is row side - 2
    kinds = warp(ring, cut, 0.0).kinds
    assert kinds[1, side // 2] == kind and (kinds > 0).sum() == 1


def test_window_is_the_whole_slice_where_a_side_is_short():
    ring = np.zeros((12, 90), bool)
    ring[1:-1, 1:-1] = True
    ring[2:-2, 2:-2] = False
    cut = ring.copy()
    cut[6, 1] = False
    assert warp(ring, cut, 0.0).kinds[6, 1] == OTHER  # joined at the other end, 87 columns away
    assert warp(ring.T, cut.T, 0.0).kinds[1, 6] == OTHER
    assert warp(np.pad(ring, 9), np.pad(cut, 9), 0.0).kinds[15, 10] == SPLIT  # 30 rows: out of sight


def test_ties_are_judged_in_single_precision():
    """With t = 0.3 both 0.0 and a float32 0.6 are 0.3 away in single precision, so the first column goes first."""
    truth = np.array([[True, True, False]])
    labels, kinds = warp(truth, np.array([[1.0, 0.0, 0.6]], np.float32), 0.30000000000000004)
    assert labels.tolist() == [[True, False, False]]  # the other order would give [True, True, True]
    assert kinds.tolist() == [[0, 0, OTHER]]
