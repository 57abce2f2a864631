"""Batches that are made on the device: those of the host, with nothing read back and nothing large sent."""

from __future__ import annotations

import fake_device
import numpy as np
import pytest
from fake_device import DeviceArray

import minunet as mu
from minunet import backends
from minunet.data import synthetic_membranes
from minunet.data.mixed import Mixed
from minunet.errors import UserError
from minunet.training import resident
from minunet.training.config import Config
from minunet.training.inputs import Standardised, by_section
from minunet.training.sampler import Batch, Sampler

STILL = {"flips": 0, "rotations": 0, "brightness": 0.0, "contrast": 0.0, "gamma": 0.0}
LIGHT = {"brightness": 0.2, "contrast": 0.3, "gamma": 0.4}
OPTIONS = {
    "plain cuts": STILL,
    "flips and turns": STILL | {"flips": 1, "rotations": 1},
    "flips alone": STILL | {"flips": 1},
    "light": STILL | LIGHT,
    "gamma alone": STILL | {"gamma": 0.4},
    "brightness alone": STILL | {"brightness": 0.4},
    "elastic": STILL | {"elastic": 4.0},
    "zoom": STILL | {"zoom": 0.5},
    "everything but noise": {"elastic": 4.0, "zoom": 0.3, "colour": 0.2, "shuffle": 1, **LIGHT},
}
WEIGHTS = {
    "plain": {},
    "border": {"weights": "border", "sigma": 1.5},
    "paper": {"weights": "paper", "sigma": 1.5},
    "paper, no border": {"weights": "paper", "w0": 0.0},
}
SIZES = [((20, 27), (12, 17)), ((16, 16), (16, 16)), ((51, 9), (44, 2)), ((64, 61), (60, 59))]  # in, out


@pytest.fixture
def device():
    with fake_device.installed() as device:
        yield device


def sections(channels: int = 0, mixed: bool = False) -> tuple:
    """Images, labels and cells of three sections, grey or with channels, of one size or of three."""
    images, labels = synthetic_membranes(3, 48, seed=1)
    images, labels = images[:, :41], labels[:, :41].copy()
    labels[:, 5:8, 9:20] = 255
    cells = np.arange(3 * 41 * 48).reshape(3, 41, 48) // 7 % 50 * (labels == 1)
    if channels:
        images = np.stack([np.roll(images, 3 * c, axis=2) for c in range(channels)], axis=3)
    if mixed:
        images, labels, cells = (Mixed([a[k][: 41 - 3 * k, k:] for k in range(3)]) for a in (images, labels, cells))
    return images, labels, cells


def config(**options) -> Config:
    return Config(steps=1, padding="same", batch=3, **options)


def compare(host: Batch, found: Batch) -> None:
    """Labels equal; grey values and weights to float32's rounding, of sums in another order."""
    assert all(a is None or isinstance(a, DeviceArray) for a in found)
    x, y, w = (None if a is None else backends.get("cuda").numpy(a) for a in found)
    assert x.dtype == np.float32 and x.shape == host.x.shape and y.dtype == np.int32
    assert np.isfinite(x).all() and np.abs(x - host.x).max() <= 1e-5 * max(1, np.abs(host.x).max())
    assert np.array_equal(y, host.y)
    assert (w is None) == (host.w is None)
    if w is not None:
        assert w.dtype == np.float32 and np.isfinite(w).all() and np.abs(w - host.w).max() <= 1e-5


def both(images, labels, options: dict, sizes: tuple, cells=None) -> tuple[Sampler, Sampler]:
    arguments = (images, labels, config(**options), *sizes, cells)
    with mu.use_backend("cuda"):
        there = Sampler(*arguments)
    return Sampler(*arguments), there


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("options", OPTIONS)
def test_batches_are_the_hosts(device, options, weights):
    images, labels, _ = sections()
    images = by_section(images)
    chosen = OPTIONS[options] | WEIGHTS[weights]
    before = images.copy(), labels.copy()
    for n, size in enumerate(SIZES):
        host, there = both(images, labels, chosen | {"seed": n}, size)
        assert there.resident is not None and not there.note
        with mu.use_backend("cuda"):
            for k in (0, 7):
                compare(host.batch(k), there.batch(k))
    assert np.array_equal(images, before[0]) and np.array_equal(labels, before[1])


@pytest.mark.parametrize("kind", ["colour", "mixed", "colour, mixed", "standardised", "section by section"])
@pytest.mark.parametrize("weights", ["plain", "paper"])
def test_every_kind_of_images(device, monkeypatch, kind, weights):
    images, labels, cells = sections(3 * (kind != "mixed"), "mixed" in kind)
    images = Standardised(images, [90, 100, 110], [40, 50, 60]) if kind == "standardised" else by_section(images)
    if kind == "section by section":  # a stack would be too large for an int
        monkeypatch.setattr(resident, "MOST_ELEMENTS", 41 * 48 * 3)
    chosen = {**OPTIONS["everything but noise"], **WEIGHTS[weights]}
    for elastic in (0.0, 4.0):
        given = {**chosen, "elastic": elastic, "zoom": 0.0, "seed": 3}
        host, there = both(images, labels, given, SIZES[0], cells)
        with mu.use_backend("cuda"):
            assert len(there.resident.stacks) == (3 if "mixed" in kind or "section" in kind else 1)
            for k in range(3):
                compare(host.batch(k), there.batch(k))


def test_nothing_is_read_back_and_little_is_sent(device):
    images, labels, _ = sections()
    host, there = both(by_section(images), labels, OPTIONS["everything but noise"] | WEIGHTS["paper"], SIZES[0])
    with mu.use_backend("cuda"):
        device.forget_copies()
        batches = there.batches(5)
        made = [next(batches) for _ in range(4)]
        batches.close()
    assert device.to_host == []
    assert sum(device.to_device) <= 4 * 3 * 400  # a batch of three tiles: places, nodes, light
    with mu.use_backend("cuda"):
        compare(host.batch(6), made[1])


def test_noise_is_a_function_of_seed_and_step(device):
    images, labels, _ = sections()
    noisy = {"noise": 0.8, "batch": 1}
    arguments = lambda **more: (by_section(images), labels, Config(steps=1, **STILL, **more), (40, 41), (40, 41))  # noqa: E731
    with mu.use_backend("cuda"):
        there, again, other, still = (
            Sampler(*arguments(**more)) for more in (noisy, noisy, noisy | {"seed": 1}, {"batch": 1})
        )
        x, same, clean = (backends.to_numpy(s.batch(4).x) for s in (there, again, still))
        later, foreign = backends.to_numpy(there.batch(5).x), backends.to_numpy(other.batch(4).x)
    z = (x - clean).ravel()
    assert np.array_equal(x, same) and not np.array_equal(x, later) and not np.array_equal(x, foreign)
    sd = np.sqrt((z**2).mean())
    assert 0 < sd <= 0.85 and abs(z.mean()) <= 0.1 * sd and abs((z**4).mean() / sd**4 - 3) <= 0.5


def test_sections_that_do_not_fit_stay_on_the_host(device):
    images, labels, _ = sections()
    images = by_section(images)
    chosen = OPTIONS["elastic"] | WEIGHTS["paper"]
    device.limit = 2 * 3 * 41 * 48 * 4 * 3  # twice image, labels and cells
    host, there = both(images, labels, chosen, SIZES[0])
    assert there.resident is not None and resident.needed(there) == device.limit // 2
    device.limit -= 2
    _, there = both(images, labels, chosen, SIZES[0])
    assert there.resident is None and "tiles are made on the host" in there.note and "\n" not in there.note
    with mu.use_backend("cuda"):
        batches = there.batches(2)
        found = next(batches)
        batches.close()
    assert all(np.array_equal(a, b) and type(a) is np.ndarray for a, b in zip(host.batch(2), found))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_backends_on_numpy_arrays_make_tiles_on_the_cpu(backend):
    images, labels, _ = sections()
    arguments = (by_section(images), labels, config(**OPTIONS["everything but noise"], noise=0.3), *SIZES[0])
    with mu.use_backend(backend), backends.count() as counted:
        sampler = Sampler(*arguments)
        batches = sampler.batches(0)
        found = next(batches)
        batches.close()
    assert sampler.resident is None and counted.calls == 0  # none by the network's backend, in the network's thread
    assert all(np.array_equal(a, b) for a, b in zip(Sampler(*arguments).batch(0)[:2], found))


def test_labels_of_no_class_are_refused(device):
    images, labels, _ = sections()
    labels[1, 3, 4] = 2
    with mu.use_backend("cuda"), pytest.raises(UserError, match=r"labels: 2 is none of the 2 classes .* --labels"):
        Sampler(by_section(images), labels, config(), *SIZES[0])


def test_memory_is_free_when_the_sampler_is_gone(device):
    """Without waiting for Python's collector of circles."""
    images, labels, _ = sections()
    with mu.use_backend("cuda"):
        sampler = Sampler(by_section(images), labels, config(**OPTIONS["elastic"]), *SIZES[0])
        batches = sampler.batches(0)
        batch = next(batches)
        assert sampler.on_device <= device.live <= sampler.on_device + 3 * 8 * 44 * 60
        batches.close()
        del sampler, batches, batch
    assert device.live == 0
