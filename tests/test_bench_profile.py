"""`python -m bench.profile`: every kernel of a step is there, and the kernels are put back."""

from __future__ import annotations

import pytest

import minunet as mu
from bench import profile
from minunet.errors import UsageError


def test_every_call_of_a_step_is_counted_and_the_kernels_are_put_back():
    model = mu.models.build("segnet", width=2)
    before = dict(mu.backends.get("cpu").kernels)
    seconds, times = profile.measure(model, (33, 40), 1, training=True, rounds=2)
    assert mu.backends.get("cpu").kernels == before
    kinds = {name.split()[0] for name in times}
    assert kinds >= {"conv2d", "conv2d_grad_w", "batch_norm_grad", "scatter_by_index", "adam"}
    convolutions = sum(len(found) for name, found in times.items() if name.startswith("conv2d "))
    assert convolutions == 26 and 0 < sum(map(sum, times.values())) <= 3 * seconds
    lines = profile.table(seconds, times, rows=3)
    assert " x  conv2d\n" in "\n".join(lines) and len(lines) == 1 + len(kinds) + 1 + 3


def test_the_command_prints_and_refuses(capsys):
    assert profile.main(["unet", "--width", "2", "--size", "188x188", "--inference", "--rows", "1"]) == 0
    assert "in kernels" in capsys.readouterr().out
    with pytest.raises(UsageError, match="HxW"):
        profile.main(["unet", "--size", "188"])
