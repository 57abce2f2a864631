"""The networks as a whole: gradients against finite differences, and against PyTorch with the same weights."""

from __future__ import annotations

import numpy as np
import pytest

from minunet import models, ops
from minunet.gradcheck import gradcheck
from minunet.interop import from_torch
from minunet.models import Network
from minunet.nn import Parameter
from minunet.tensor import Tensor

pytestmark = pytest.mark.usefixtures("backend")


def images_first(y: np.ndarray) -> np.ndarray:
    return y.transpose(0, 3, 1, 2)


def exchange(model: Network, tensors: list[Tensor]) -> None:
    """Put `tensors` in the places of the parameters, in the order of `named_parameters`."""
    for (name, _), tensor in zip(list(model.named_parameters()), tensors, strict=True):
        *path, attribute = name.split(".")
        owner = model
        for step in path:
            owner = owner[int(step)] if step.isdigit() else getattr(owner, step)
        parameter = Parameter(tensor.data)
        parameter._node = tensor.node()  # the parameter stands for the tensor on the tape
        parameter.requires_grad = tensor.requires_grad
        setattr(owner, attribute, parameter)


@pytest.mark.parametrize(
    "arguments", [{"depth": 1}, {"depth": 2, "padding": "same"}, {"depth": 1, "padding": "same", "in_channels": 2}]
)
def test_gradient_of_a_whole_unet(arguments):
    """Loss against every weight, bias and the image; dropout on: its mask belongs to the function."""
    arguments = {"in_channels": 1, "n_classes": 3, "width": 2} | arguments
    model = models.build("unet", **arguments).astype(np.float64)
    rng = np.random.default_rng(2)
    shape = (1, *model.input_size(2, 5), arguments["in_channels"])
    target = rng.integers(0, 3, (1, *model.output_size(*shape[1:3])))
    weight_map = rng.uniform(0.5, 3, target.shape)
    start = [p.data + 0.1 * rng.normal(size=p.shape) for p in model.parameters()]

    def loss(x: Tensor, *weights: Tensor) -> Tensor:
        fresh = models.build("unet", **arguments).astype(np.float64)
        exchange(fresh, list(weights))
        return ops.softmax_cross_entropy(fresh(x), target, weight_map)

    worst = gradcheck(loss, [rng.normal(size=shape), *start], directions=1)
    assert np.isfinite(worst)
    assert worst <= 1


def test_a_training_step_lowers_the_loss():
    """Twenty steps of plain gradient descent on one image, float32."""
    model = models.build("unet", width=4, depth=2, padding="same", dropout=0.0)
    x = np.random.default_rng(0).normal(size=(1, 16, 12, 1)).astype(np.float32)
    target = (x[..., 0] > 0).astype(np.uint8)
    losses = []
    for _ in range(20):
        loss = ops.softmax_cross_entropy(model(x), target)
        losses.append(loss.item())
        model.zero_grad()
        loss.backward()
        for p in model.parameters():
            p.data -= np.float32(0.1) * p.grad
    assert np.isfinite(losses).all()
    assert losses[-1] <= 0.7 * losses[0]


# --- against PyTorch with the same weights


def torch_unet(torch, in_channels: int, n_classes: int, width: int, depth: int, padding: str):
    """The paper's figure in PyTorch's words, its parts in the order of ours."""
    tnn = torch.nn
    p = 1 if padding == "same" else 0

    def block(c: int, o: int):
        return tnn.Sequential(tnn.Conv2d(c, o, 3, padding=p), tnn.ReLU(), tnn.Conv2d(o, o, 3, padding=p), tnn.ReLU())

    class UNet(tnn.Module):
        def __init__(self):
            super().__init__()
            widths = [width * 2**level for level in range(depth + 1)]
            self.down = tnn.ModuleList(block(c, o) for c, o in zip([in_channels, *widths], widths))
            self.up = tnn.ModuleList(tnn.ConvTranspose2d(2 * o, o, 2, 2) for o in widths[-2::-1])
            self.merge = tnn.ModuleList(block(2 * o, o) for o in widths[-2::-1])
            self.head = tnn.Conv2d(width, n_classes, 1)

        def forward(self, x):
            skips = []
            for k, down in enumerate(self.down):
                x = down(x if k == 0 else tnn.functional.max_pool2d(x, 2))
                skips.append(x)
            skips.pop()
            for up, merge in zip(self.up, self.merge):
                x, skip = up(x), skips.pop()
                top, left = (skip.shape[2] - x.shape[2]) // 2, (skip.shape[3] - x.shape[3]) // 2
                x = merge(torch.cat([x, skip[:, :, top : top + x.shape[2], left : left + x.shape[3]]], 1))
            return self.head(x)

    return UNet().double()


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("padding, depth", [("valid", 3), ("same", 2)])
def test_against_torch(padding, depth):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    arguments = {"in_channels": 3, "n_classes": 5, "width": 3, "depth": depth, "padding": padding}
    torch.manual_seed(0)
    theirs = torch_unet(torch, **arguments)
    ours = models.build("unet", **arguments).astype(np.float64).eval()
    from_torch(ours, theirs.state_dict())
    h, w = ours.input_size(3, 12)
    x = Tensor(np.random.default_rng(0).normal(size=(2, h, w, 3)), requires_grad=True)
    target = np.random.default_rng(1).integers(0, 5, (2, *ours.output_size(h, w)))
    target[:, ::3, 1] = 255

    logits = ours(x)
    loss = ops.softmax_cross_entropy(logits, target)
    loss.backward()
    tx = torch.tensor(images_first(x.data), requires_grad=True)
    tlogits = theirs(tx)
    tloss = torch.nn.functional.cross_entropy(tlogits, torch.tensor(target), ignore_index=255)
    tloss.backward()

    assert logits.shape == tuple(np.array(tlogits.shape)[[0, 2, 3, 1]])
    assert relative_error(images_first(logits.numpy()), tlogits.detach().numpy()) <= 1e-10
    assert abs(loss.item() - tloss.item()) <= 1e-10 * abs(tloss.item())
    assert relative_error(images_first(x.grad), tx.grad.numpy()) <= 1e-10
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        grad = images_first(p.grad) if p.grad.ndim == 4 else p.grad
        error = relative_error(grad, q.grad.numpy())
        assert np.isfinite(error), name
        assert error <= 1e-10, name
