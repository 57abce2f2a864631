"""Networks, losses, optimisers and checkpoints on arrays that are not NumPy's: what a GPU needs, without one.

The stand-in (tests/fake_device.py) refuses every accidental meeting of host and device, and its kernels are the
reference's, so that results are the reference's to the bit.
"""

from __future__ import annotations

import fake_device
import numpy as np
import pytest
from fake_device import DeviceArray, MixedError
from small import SMALL

import minunet as mu
from minunet import backends, checkpoint, models, ops, optim
from minunet.data import IGNORE
from minunet.models import Output
from minunet.training.config import LOSSES, ONE_LOGIT, Config
from minunet.training.objective import objective


@pytest.fixture
def device():
    with fake_device.installed() as device:
        yield device


def small(seed: int = 0, **arguments) -> models.Network:
    return models.build("unet", **{"in_channels": 1, "n_classes": 2, "width": 2, "depth": 1, "seed": seed, **arguments})


def host(array) -> np.ndarray:
    return backends.to_numpy(array)


def equal(a: dict, b: dict) -> bool:
    return list(a) == list(b) and all(type(b[k]) is np.ndarray and np.array_equal(a[k], b[k]) for k in a)


# --- The stand-in refuses what a GPU refuses


def test_host_and_device_do_not_mix(device):
    a, b = backends.get("cuda").asarray(np.ones(3, np.float32)), np.ones(3, np.float32)
    mixtures = {
        "operator": lambda: a + b,
        "reflected operator": lambda: b + a,
        "in place": lambda: a.__iadd__(b),
        "comparison": lambda: a < b,
        "value": lambda: a.__setitem__(..., b),
        "index": lambda: a[np.array([0, 1])],
        "function": lambda: np.isfinite(a),
        "array function": lambda: np.concatenate([a, a]),
        "conversion": lambda: np.asarray(a),
        "contiguous": lambda: np.ascontiguousarray(a),
    }
    for what, mixture in mixtures.items():
        with pytest.raises(TypeError):
            mixture()
            pytest.fail(what)
    with mu.use_backend("cuda"), pytest.raises(TypeError, match=r"move a network with \.to\('cuda'\)"):
        backends.call("relu", b)
    with pytest.raises(MixedError):
        backends.get("cuda").numpy(b)


# --- Networks


def test_a_network_is_built_where_the_backend_is(device):
    with mu.use_backend("cuda"):
        model = models.build("segnet", in_channels=1, n_classes=2, width=1, dropout=0.5)
    assert all(isinstance(p.data, DeviceArray) for p in model.parameters())
    kinds = {name.rpartition(".")[2]: type(b) for name, b in model.named_buffers()}
    assert kinds == {"running_mean": DeviceArray, "running_var": DeviceArray, "calls": np.ndarray}
    same = models.build("segnet", in_channels=1, n_classes=2, width=1, dropout=0.5)
    assert equal(same.state_dict(), model.state_dict())


def test_a_network_moves_there_and_back(device):
    model = models.build("unet_same", in_channels=1, n_classes=2, width=1)
    before = model.state_dict()
    assert model.to("cuda") is model
    assert all(isinstance(p.data, DeviceArray) for p in model.parameters())
    arrays = [p.data for p in model.parameters()]
    assert all(a is p.data for a, p in zip(arrays, model.to("cuda").parameters())), "moved twice"
    assert equal(before, model.state_dict())
    assert all(p.dtype == np.float64 for p in model.astype(np.float64).parameters())
    model.astype(np.float32).load_state_dict({k: v + 1 for k, v in before.items()})
    assert equal({k: v + 1 for k, v in before.items()}, model.to("cpu").state_dict())
    assert all(type(p.data) is np.ndarray for p in model.parameters())


@pytest.mark.parametrize("title", {name: title for title, (name, _, _) in reversed(SMALL.items())}.values())
def test_every_network_trains_and_evaluates(device, title):
    """Forward and backward in training, an update, forward in evaluation: equal to the reference's in every bit."""
    name, arguments, size = SMALL[title]
    found = {}
    for backend in ("reference", "cuda"):
        with mu.use_backend(backend) as module:
            model, rng = models.build(name, **arguments), np.random.default_rng(3)
            images = rng.normal(size=(1, *size, model.channels[0])).astype(np.float32)
            x = mu.Tensor(module.asarray(images))
            outputs = model(x)
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            losses = [ops.mse_loss(y, rng.normal(size=y.shape)) for y in outputs]
            total = losses[0]
            for loss in losses[1:]:
                total = ops.add(total, ops.scale(loss, 0.5))
            optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
            total.backward()
            optimizer.step()
            with mu.no_grad():
                y = model.eval()(x).numpy()
            found[backend] = (total.item(), y, model.state_dict())
    assert np.isfinite(found["reference"][1]).all()
    assert found["cuda"][0] == found["reference"][0]
    assert np.array_equal(found["cuda"][1], found["reference"][1])
    assert equal(found["reference"][2], found["cuda"][2])


# --- Losses, of targets on the host and on the device


class Net:
    """As much of a network as `objective` looks at: two outputs, the second an edge map's."""

    outputs = (Output(), Output(0.5, "edges"))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("ignored", (False, True))
def test_the_objective_of_a_run(device, loss, ignored):
    """What training computes from its batches, which are NumPy's; two outputs, so that losses are added and scaled."""
    rng = np.random.default_rng(1)
    classes = 1 if loss in ONE_LOGIT else 2
    target = rng.integers(0, 2, (2, 6, 7)).astype(np.int32)
    if ignored:
        target[rng.random(target.shape) < 0.3] = IGNORE
    logits = rng.normal(size=(2, 6, 7, classes)).astype(np.float32)
    edge = rng.normal(size=(2, 6, 7, 1)).astype(np.float32)
    weighted = loss in ("ce", "bce", "bce+dice")
    weight_map = rng.uniform(0.5, 2, target.shape).astype(np.float32) if weighted else None
    class_weight = np.array([0.7, 1.6], np.float32) if loss in ("ce", "bce", "bce+dice", "ohem") else None
    found = {}
    for backend in ("reference", "cuda"):
        with mu.use_backend(backend) as module:
            maps = tuple(mu.Tensor(module.asarray(a), requires_grad=True) for a in (logits, edge))
            value = objective(maps, target, weight_map, Config(loss=loss, steps=1), Net(), class_weight)
            value.backward()
            found[backend] = (value.item(), *(host(m.grad) for m in maps))
    assert np.isfinite(found["cuda"][0])
    for a, b in zip(found["reference"], found["cuda"]):
        assert np.array_equal(a, b)


def test_targets_may_be_on_the_device(device):
    rng = np.random.default_rng(2)
    x, labels = rng.normal(size=(1, 4, 5, 3)).astype(np.float32), rng.integers(0, 3, (1, 4, 5)).astype(np.int32)
    with mu.use_backend("cuda") as module:
        logits = mu.Tensor(module.asarray(x), requires_grad=True)
        for loss in (ops.softmax_cross_entropy, lambda a, t: ops.ohem_cross_entropy(a, t, 0.4, 5)):
            assert loss(logits, labels).item() == loss(logits, module.asarray(labels)).item()
        p = ops.sigmoid(logits)
        target = rng.integers(0, 2, x.shape).astype(np.float32)
        for loss in (ops.dice_loss, ops.jaccard_loss, ops.mse_loss, ops.mae_loss, ops.sigmoid_cross_entropy):
            assert loss(p, target).item() == loss(p, module.asarray(target)).item()
        ops.dropout_channels(logits, 0.5, 3).backward(x)
        assert isinstance(logits.grad, DeviceArray)


def test_what_a_training_step_copies(device):
    """To the host: the loss, when it is asked for. To the device: the batch, and numbers."""
    rng = np.random.default_rng(4)
    x, labels = rng.normal(size=(1, 20, 20, 1)).astype(np.float32), rng.integers(0, 2, (1, 4, 4)).astype(np.int32)
    with mu.use_backend("cuda") as module:
        model = small()
        labels = rng.integers(0, 2, (1, *model.output_size(20, 20))).astype(np.int32)
        optimizer = optim.Adam(model.parameters())
        device.forget_copies()
        loss = ops.softmax_cross_entropy(model(mu.Tensor(module.asarray(x))), labels)
        loss.backward()
        optimizer.step()
        loss.item()
    assert device.to_host == [4]
    assert [n for n in device.to_device if n > 8] == [x.nbytes, labels.nbytes]


# --- Optimisers, checkpoints, other programs' weights


@pytest.mark.parametrize("make", (optim.Adam, lambda p: optim.SGD(p, lr=0.1, momentum=0.9)))
def test_a_checkpoint_goes_from_device_to_host_and_back(device, tmp_path, make):
    file = tmp_path / "net.safetensors"

    def step(model, optimizer) -> None:
        for p in model.parameters():
            p.grad = backends.get().asarray(np.full(p.shape, 0.25, np.float32))
        optimizer.step()

    states = {}
    for first, second in (("cuda", "cuda"), ("cuda", "reference"), ("reference", "cuda")):
        with mu.use_backend(first):
            model = models.build("segnet", in_channels=1, n_classes=2, width=1, dropout=0.5)
            optimizer = make(model.parameters())
            step(model, optimizer)
            checkpoint.save(file, model, optimizer=optimizer)
        with mu.use_backend(second) as module:
            saved = checkpoint.load(file)
            assert isinstance(saved.model.parameters()[0].data, module.Array)
            optimizer = make(saved.model.parameters())
            optimizer.load_state_dict(saved.optimizer_state)
            step(saved.model, optimizer)
            states[first, second] = saved.model.state_dict() | optimizer.state_dict()
            checkpoint.load_into(saved.model, file)
    a, *others = states.values()
    assert all(equal(a, b) for b in others)


def test_weights_of_other_programs(device):
    model = models.build("unet_same", in_channels=1, n_classes=2, width=1, seed=1)
    _, given = mu.to_torch(model)
    with mu.use_backend("cuda"):
        other = mu.from_torch(models.build("unet_same", in_channels=1, n_classes=2, width=1, seed=2), given)
        assert isinstance(other.parameters()[0].data, DeviceArray)
        assert equal(given, mu.to_torch(other)[1])
    assert equal(model.state_dict(), other.state_dict())


def test_updates_in_place_are_still_checked(device):
    with mu.use_backend("cuda") as module:
        p, g = (module.asarray(np.ones(4, np.float32)) for _ in range(2))
        rates = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "nesterov": False}
        with pytest.raises(ValueError, match="must not share memory"):
            backends.call("sgd", p, g, p, out=(p, g), **rates)
