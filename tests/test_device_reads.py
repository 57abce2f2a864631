"""A training step on a device reads nothing back: every loss, three networks, both optimisers, the training loop.

Reading a number makes the host wait for all the work before it. The stand-in (tests/fake_device.py) counts the copies.
"""

from __future__ import annotations

import fake_device
import numpy as np
import pytest
from tqdm import tqdm

import minunet as mu
from minunet import backends, models, ops, optim
from minunet.data import IGNORE, Dataset, synthetic_membranes
from minunet.models import Output
from minunet.training import loop
from minunet.training.config import LOSSES, ONE_LOGIT, Config
from minunet.training.objective import objective
from minunet.training.unread import Unread

SIZE = (2, 6, 7)


@pytest.fixture
def device():
    with fake_device.installed() as device, mu.use_backend("cuda"):
        yield device


def to(array: np.ndarray | None):
    return None if array is None else backends.get().asarray(array)


class Net:
    """As much of a network as `objective` looks at: two outputs, a smaller one, an edge map's."""

    outputs = (Output(), Output(0.5), Output(0.5), Output(0.5, "edges"))


SIZES = ((6, 7), (3, 7), (4, 5), (6, 7))  # as they are, every second row, rows and columns rounded down


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("place", (lambda a: a, to), ids=("labels of the host", "labels of the device"))
def test_no_loss_reads(device, loss, place):
    """Two times: what is copied once and kept may be copied in the first."""
    rng = np.random.default_rng(1)
    classes = 1 if loss in ONE_LOGIT else 3
    target = rng.integers(0, max(classes, 2), SIZE).astype(np.int32)
    target[rng.random(SIZE) < 0.2] = IGNORE
    weight_map = rng.uniform(0.5, 2, SIZE).astype(np.float32) if loss in ("ce", "bce", "bce+dice") else None
    weighted = loss in ("ce", "bce", "bce+dice", "ohem")
    class_weight = np.array([0.7, 1.6, 0.9][: max(classes, 2)], np.float32) if weighted else None
    logits = [rng.normal(size=(2, *size, classes)).astype(np.float32) for size in SIZES[:3]]
    logits.append(rng.normal(size=(*SIZE, 1)).astype(np.float32))
    config = Config(dataset="isbi" if classes == 1 else "streets", loss=loss, steps=1)
    found = []
    for backend, where in (("reference", lambda a: a), ("cuda", place), ("cuda", place)):
        with mu.use_backend(backend) as module:
            maps = tuple(mu.Tensor(module.asarray(a), requires_grad=True) for a in logits)
            arguments = where(target), None if weight_map is None else where(weight_map)
            device.forget_copies()
            value = objective(maps, *arguments, config, Net(), class_weight)
            value.backward()
            assert device.to_host == []
            found.append([value.item(), *(backends.to_numpy(m.grad) for m in maps)])
    if place is to:
        assert device.to_device == [], "a step copies to the device what it copied before"
    assert np.isfinite(found[0][0])
    for result in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], result, strict=True))


@pytest.mark.parametrize("loss", ("dice_loss", "jaccard_loss", "mse_loss", "mae_loss", "smooth_l1_loss"))
def test_no_other_loss_reads(device, loss):
    rng = np.random.default_rng(2)
    x, target = (to(rng.uniform(size=(*SIZE, 1)).astype(np.float32)) for _ in range(2))
    device.forget_copies()
    leaf = mu.Tensor(x, requires_grad=True)
    ops.scale(getattr(ops, loss)(leaf, target), 0.5).backward()
    assert leaf.grad.shape == x.shape
    assert device.to_host == [] and device.to_device == []


NETWORKS = {
    "unet": {"depth": 1, "padding": "same"},
    "fusionnet": {"depth": 1},
    "segnet": {"stages": ((1, 1), (2, 2)), "dropout": 0.5},
}


def step(name: str, make) -> None:
    """A step without a loop, the loss left where it is."""
    rng = np.random.default_rng(3)
    model = models.build(name, in_channels=1, n_classes=2, width=2, **NETWORKS[name])
    optimizer = make(model.parameters())
    x, labels = rng.normal(size=(1, 8, 8, 1)).astype(np.float32), rng.integers(0, 2, (1, 8, 8)).astype(np.int32)
    x, labels, device = to(x), to(labels), fake_device._current[0]
    device.forget_copies()
    for _ in range(2):
        optimizer.zero_grad()
        ops.softmax_cross_entropy(model(mu.Tensor(x)), labels).backward()
        optimizer.step()
    assert device.to_host == [], "something was read"


OPTIMIZERS = {"adam": optim.Adam, "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True)}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_step_reads(device, name, optimizer):
    step(name, OPTIMIZERS[optimizer])


@pytest.mark.parametrize("read", (float, lambda g: g.item(), backends.to_numpy, lambda g: bool(g == g)))
def test_a_planted_read_is_seen(device, monkeypatch, read):
    before = optim.SGD._update

    def reading(self, p, *state_and_grad, **rates):
        read(state_and_grad[-1].sum())
        before(self, p, *state_and_grad, **rates)

    monkeypatch.setattr(optim.SGD, "_update", reading)
    with pytest.raises(AssertionError, match="something was read"):
        step("unet", OPTIMIZERS["sgd"])


# --- The loop


def trainer(saves: list, **settings) -> loop.Trainer:
    images, labels = synthetic_membranes(sections=3, size=48, seed=3)
    data = Dataset(images, labels, "synthetic", True, "SYNTHETIC", "0" * 64)
    config = Config(dataset="synthetic", **{"depth": 1, "width": 2, "tile": 44, "validate": 1, "steps": 9, **settings})
    model = models.build("unet", in_channels=1, n_classes=2, width=2, depth=1, seed=1)
    sections = np.array([0, 1]), np.array([2])
    return loop.Trainer(config, data, sections, model, loop.State(), lambda t: saves.append(t.state.step))


def run(made: loop.Trainer) -> None:
    with tqdm(total=made.total, disable=True) as bar:
        made.run(bar, print)


@pytest.mark.parametrize("together", (1, 2))
def test_the_loop_reads_every_so_often(device, monkeypatch, together):
    """9 steps in rows of 4: three readings. The log is the host's, but for rounding: there the CPU's kernels make the
    tiles, and sums of two losses are added in another order.
    """
    monkeypatch.setattr(loop, "LOG_EVERY", 4)
    monkeypatch.setattr(loop, "SAVE_SECONDS", np.inf)
    saves: list[int] = []
    made = trainer(saves, accumulate=together)
    device.forget_copies()
    run(made)
    assert device.to_host == [4 * together * 4] * 3
    assert saves == [9]
    with mu.use_backend("reference"):
        same = trainer([], accumulate=together)
        run(same)
    assert [row["step"] for row in made.state.log] == [4, 8]
    for a, b in zip(made.state.log, same.state.log, strict=True):
        assert a["step"] == b["step"] and abs(a["loss"] - b["loss"]) <= 1e-6
    assert np.allclose(made.state.pending, same.state.pending, rtol=0, atol=1e-6)
    assert len(made.state.pending) == 1


def test_a_save_reads_first(device, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 4)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    saves: list[int] = []
    made = trainer(saves)
    device.forget_copies()
    run(made)
    assert saves == [*range(1, 10), 9]
    assert device.to_host == [16] * 9
    assert [row["step"] for row in made.state.log] == [4, 8]


@pytest.mark.parametrize("seconds", (0.0, 1e9))
@pytest.mark.parametrize("bad", (1, 4, 6, 9))
def test_a_broken_loss_is_named_and_nothing_is_saved_after_it(device, monkeypatch, seconds, bad):
    """The loss of step `bad` is not finite, and all after it; it is read at the next row, save or end."""
    monkeypatch.setattr(loop, "LOG_EVERY", 4)
    monkeypatch.setattr(loop, "SAVE_SECONDS", seconds)
    saves: list[int] = []
    made, calls, right = trainer(saves), [], loop.objective

    def breaking(*arguments):
        calls.append(None)
        return ops.scale(right(*arguments), np.nan if len(calls) >= bad else 1.0)

    monkeypatch.setattr(loop, "objective", breaking)
    seen = bad if seconds == 0 else min(-(-bad // 4) * 4, 9)
    with np.errstate(all="ignore"), pytest.raises(loop.DivergedError) as caught:
        run(made)
    assert str(caught.value) == f"the loss became nan at step {bad} (seen at step {seen})"
    assert made.state.step == bad - 1
    assert saves == (list(range(1, bad)) if seconds == 0 else [])
    assert all(np.isfinite(row["loss"]) for row in made.state.log)


def test_unread_has_room_for_so_many(device):
    unread = Unread(backends.get(), 2, 2)
    assert len(unread) == 0 and unread.read() == []
    for value in (1.0, 2.0, 3.0, 5.0):
        unread.keep(to(np.full((), value, np.float32)))
    with pytest.raises(IndexError, match="4 losses"):
        unread.keep(to(np.ones(1, np.float32)))
    assert len(unread) == 2
    assert unread.read() == [1.5, 4.0]
    assert len(unread) == 0
