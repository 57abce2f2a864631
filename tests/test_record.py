"""What a checkpoint says beside its weights: each wrong entry is refused in one line, what runs write is not."""

from __future__ import annotations

import copy

import pytest

from minunet import models
from minunet.errors import UserError
from minunet.record import check, check_state
from minunet.training.config import Config

RIGHT = {
    "normalise": {"mean": [1.0, 2, 3], "sd": [0.5, 1.0, 2.0]},
    "size": [180, 240],
    "classes": ["a", "b"],
    "colours": [[0, 0, 0], [255, 1, 2]],
    "labels": None,
    "synthetic": True,
    "data": {"name": "x", "source": "y", "sha256": "0"},
    "threads": 2,
    "backend": "cpu",
    "precision": "default",
    "versions": {"numpy": "2.4"},
    "config": {},
    "state": {},
}
WRONG = {
    "normalise": [
        None,
        3,
        {"mean": 1.0},
        {"mean": 1.0, "sd": 0},
        {"mean": [1, 2], "sd": [1, 1]},
        {"mean": "x", "sd": 1},
    ],
    "size": [3, [], [180], [0, 4], ["a", "b"], [2.5, 4], [True, 4], [10**9, 4]],
    "classes": [["a"], "ab", [1, 2], {}],
    "colours": [[], [[0, 0, 0], [0, 0, 256]], [[0, 0, 0], [0, 0]], [[0, 0, 0], None]],
    "labels": [3, "x", []],
    "synthetic": [None, "yes", 1],
    "data": [None, [], {"source": 3}],
    "threads": [0, "2", 1.5, None],
    "backend": [None, 3],
    "precision": ["", None, ["tf32"], "fp8"],
    "versions": [[], {"numpy": 2}],
    "config": [None, []],
    "state": [[], 3],
}
STATE = {
    "step": 3,
    "seconds": 1.5,
    "waiting": 0,
    "validations": 1,
    "pending": [0.5],
    "log": [{"step": 1, "seconds": 0.1, "learning_rate": 0.1, "held_out_seg": float("nan")}],
    "best": {"step": 1, "score": 0.5},
    "health": [{"step": 1, "dead": 0.5, "worst": 1.0, "layer": "down.1"}],
    "notes": [{"step": 1, "text": "x"}],
}
WRONG_STATE = {
    "step": [-1, 1.5, "3", None],
    "seconds": [-1, float("nan"), "x"],
    "pending": [None, ["x"], [float("inf")]],
    "log": [3, [3], [{"step": 1}], [{"step": 1, "seconds": "x", "learning_rate": 0.1}]],
    "best": [True, {"step": 1}, {"step": 1, "score": "x"}],
    "health": [[{"step": 1, "dead": 0.5, "worst": 1.0, "layer": 3}]],
    "notes": [[{"text": "x"}], "x"],
}


@pytest.fixture(scope="module")
def model():
    return models.build("unet", 3, 2, width=1, depth=1)


def test_what_runs_write_passes(model):
    before = copy.deepcopy(RIGHT)
    check("f", RIGHT, model)
    check("f", {}, model)
    check("f", {"normalise": "section", "size": None, "mine": object()}, model)
    check("f", {"normalise": {"mean": 128, "sd": 4.5}}, model)
    check_state("f", STATE)
    check_state("f", {"best": None})
    assert before == RIGHT


@pytest.mark.parametrize(("name", "value"), [(name, v) for name, values in WRONG.items() for v in values])
def test_a_wrong_entry_is_named(model, name, value):
    with pytest.raises(UserError) as error:
        check("a b.safetensors", {**RIGHT, name: value}, model)
    text = str(error.value)
    assert text.startswith(f"a b.safetensors: its {name} is ") and "take a checkpoint" in text and text.isprintable()


@pytest.mark.parametrize(("name", "value"), [(name, v) for name, values in WRONG_STATE.items() for v in values])
def test_a_wrong_state_is_named(name, value):
    with pytest.raises(UserError, match=f"^f: its state's {name} is "):
        check_state("f", STATE | {name: value})


def test_long_and_strange_values_stay_on_one_line(model):
    with pytest.raises(UserError) as error:
        check("f", {"backend": ["é\n\x1b[2J" * 1000]}, model)
    assert len(str(error.value)) < 200 and str(error.value).isprintable()


@pytest.mark.parametrize(
    ("name", "value"), [("steps", "3"), ("lr", float("inf")), ("lr", 10**400), ("width", 2.5), ("model_args", {3: 4})]
    + [("dataset", None), ("momentum", float("nan")), ("held_out", ["1"]), ("flips", None)],
)  # fmt: skip
def test_settings_have_kinds(name, value):
    with pytest.raises(UserError, match=f"^--{name.replace('_', '-')} .*(wrong kind|not known)"):
        Config(**({"steps": 1} | {name: value}))
