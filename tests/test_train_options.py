"""From the command line to a Config: what wins over what, typed arguments of networks, presets, schedules, windows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minunet import cli, models, train
from minunet.errors import UsageError, UserError
from minunet.models import shapes_only
from minunet.nn import BatchNorm2d  # noqa: F401 (loads the layers before shapes_only)
from minunet.training.config import Config
from minunet.training.defaults import DATASETS
from minunet.training.inputs import check_channels, plan_window
from minunet.training.options import configure
from minunet.training.presets import PRESETS, listing
from minunet.training.schedule import learning_rate, total_steps


def test_the_default_run_is_what_it_was():
    assert configure({"dataset": "isbi"}) == Config(steps=5500) == Config(dataset="isbi", steps=train.DEFAULT_STEPS)
    assert Config(steps=1).model_arguments() == {
        "in_channels": 1, "n_classes": 2, "width": 16, "depth": 4, "padding": "valid", "dropout": 0.0, "seed": 0
    }  # fmt: skip


def test_options_win_over_presets_over_data_sets_over_networks():
    plain = configure({"dataset": "camvid"})
    assert (plain.model, plain.width, plain.size, plain.class_weights) == ("segnet", 16, "180x240", "median")
    assert (plain.rotations, plain.tile, plain.batch, plain.depth, plain.lr) == (0, 0, 4, None, 3e-3)
    paper = configure({"dataset": "camvid", "preset": "paper", "lr": 0.05, "minutes": 3.0})
    assert (paper.lr, paper.batch, paper.optimizer, paper.minutes, paper.steps) == (0.05, 12, "sgd", 3.0, None)
    assert paper.preset == "paper" and paper.size == "180x240"
    cells = configure({"dataset": "isbi", "preset": "paper"})
    assert (cells.weights, cells.elastic, cells.momentum, cells.dropout) == ("paper", 10.0, 0.99, 0.5)
    assert configure({"dataset": "streets", "model": "unet", "preset": "paper"}).weights == "plain"
    assert configure({"dataset": "isbi", "model": "fusionnet"}).width == 16
    assert configure({"dataset": "camvid", "model": "fcn"}).lr == 1e-3
    assert configure({"dataset": "isbi", "model": "segnet"}).lr == 1e-3
    assert configure({"dataset": "isbi", "model": "rednet_restoration"}).model_arguments()["n_classes"] == 1
    dice = configure({"dataset": "camvid", "loss": "dice"})
    assert dice.class_weights == "none"  # the data set's own default gives way ...
    with pytest.raises(UsageError, match="class-weights median"):  # ... the user's does not
        configure({"dataset": "camvid", "loss": "dice", "class_weights": "median"})


def test_one_logit_for_two_classes_where_the_loss_asks_for_it():
    for loss, outputs in (("ce", 2), ("ohem", 2), ("dice", 1), ("bce", 1), ("mae", 1), ("focal", 1), ("bce+dice", 1)):
        assert Config(loss=loss, steps=1).model_arguments()["n_classes"] == outputs
    assert configure({"dataset": "camvid", "loss": "dice"}).model_arguments()["n_classes"] == 11


def test_arguments_of_networks_are_typed_by_their_signature():
    def made(network, *texts):
        return configure({"dataset": "camvid", "model": network}, texts)

    config = made("fcn", "form=16s", "learned=yes", "fc=32", "dropout=0", "widths=2,2,3,3,4")
    assert config.model_args == {"form": "16s", "learned": True, "fc": 32, "widths": [2, 2, 3, 3, 4]}
    assert config.dropout == 0.0 and isinstance(config.dropout, float)
    assert made("segnet", "stages=((1,),(2,2))").model_args == {"stages": [(1,), (2, 2)]}
    assert made("segnet", "width=3").width == 3
    enet = made("enet", "dropout=0,0.2")
    assert enet.dropout is None and enet.model_arguments()["dropout"] == [0, 0.2]
    assert made("enet").width is None and made("fcn").dropout is None
    assert Config(**config.to_json()) == config


@pytest.mark.parametrize(
    ("given", "texts", "words"),
    [
        ({"model": "segnte"}, (), ["segnte", "known: segnet"]),
        ({"model": "segnet", "depth": 3}, (), ["--depth 3", "segnet has no argument depth", "width"]),
        ({"model": "segnet", "padding": "same"}, (), ["--padding same"]),
        ({"model": "enet", "dropout": 0.1}, (), ["--model-arg dropout=0.01,0.1"]),
        ({"model": "segnet"}, ("droput=0.5",), ["droput", "it has dropout"]),
        ({"model": "segnet"}, ("dropout",), ["KEY=VALUE"]),
        ({"model": "segnet"}, ("dropout=much",), ["much cannot be read", "float"]),
        ({"model": "segnet"}, ("width=2.5",), ["2.5 is no int"]),
        ({"model": "segnet"}, ("n_classes=4",), ["follows from the data"]),
        ({"preset": "papre"}, (), ["papre", "paper"]),
        ({"loss": "mse"}, (), ["--loss mse", "two classes", "camvid has 11"]),
        ({"weights": "border"}, (), ["--weights border"]),
        ({"size": "180"}, (), ["--size 180", "180x240"]),
        ({"size": "0x4"}, (), ["--size 0x4"]),
        ({"loss": "dice", "reduction": "sum"}, (), ["--reduction sum"]),
        ({"schedule": "step", "step_every": 0.0}, (), ["--step-every"]),
        ({"average": 8}, (), ["--average 8", "--rotations 0"]),
        ({"steps": 4, "minutes": 1.0}, (), ["--steps", "--minutes"]),
    ],
)
def test_what_does_not_go_together_is_a_usage_error(given, texts, words):
    with pytest.raises(UsageError) as error:
        configure({"dataset": "camvid"} | given, texts)
    for word in words:
        assert word in str(error.value), (word, str(error.value))


def test_every_preset_makes_a_config_on_both_kinds_of_data():
    for network, presets in PRESETS.items():
        assert network in models.names()
        for preset in presets:
            for dataset in ("isbi", "streets"):
                config = configure({"dataset": dataset, "model": network, "preset": preset})
                assert config.preset == preset and config.steps == DATASETS[dataset].steps
    assert set(PRESETS) == set(models.names())


def test_the_list_of_presets_is_printed(capsys):
    assert cli.run(train.main, ["--preset", "list"]) == 0
    printed = capsys.readouterr().out
    assert printed.strip() == listing() and "segnet --preset paper" in printed and "--momentum 0.99" in printed


def test_schedules():
    base = {"steps": 10, "lr": 2.0, "warmup": 0.0}
    assert learning_rate(Config(**base, schedule="poly"), 0.25) == 2.0 * 0.75**0.9
    assert learning_rate(Config(**base, schedule="poly", power=2.0), 1.0) == 0.0
    step = Config(**base, schedule="step", step_every=0.25, step_factor=0.5)
    assert [learning_rate(step, s) for s in (0, 0.24, 0.25, 0.6, 0.99)] == [2.0, 2.0, 1.0, 0.5, 0.25]
    warm = Config(**(base | {"warmup": 0.2}), schedule="poly")
    assert learning_rate(warm, 0.1) == 1.0 and learning_rate(warm, 0.2) == 2.0
    assert math.isclose(learning_rate(Config(**base), 0.5), 1.0)
    assert total_steps(Config(epochs=2.0, batch=3, accumulate=2), 6000, 100) == 20


def network(name: str, **arguments):
    with shapes_only():
        return models.build(name, **arguments)


def test_windows_and_what_is_said_of_them():
    def plan(tile, size, model):
        return plan_window(Config(steps=1, tile=tile, model=model.config["model"]), size, model)

    fusionnet, segnet, unet = network("fusionnet", width=2), network("segnet", width=2), network("unet", width=2)
    assert plan(0, (180, 240), segnet) == ((180, 240), (180, 240), "")
    seen, trained, note = plan(0, (180, 240), fusionnet)
    assert seen == trained == (192, 240) and "180 x 240 are mirrored to 192 x 240" in note
    seen, trained, note = plan(100, (512, 512), fusionnet)
    assert seen == trained == (112, 112) and "100 x 100 become 112 x 112" in note
    assert plan(316, (512, 512), unet) == ((316, 316), (132, 132), "")
    seen, trained, note = plan(0, (100, 90), unet)
    assert seen == (284, 284) and trained == (100, 100) and "100 x 90 are mirrored to 284 x 284" in note
    with pytest.raises(ValueError, match="316"):
        plan(310, (512, 512), unet)


def test_channels_are_checked():
    rednet = network("rednet", in_channels=3, width=4)
    check_channels(3, rednet, "camvid")
    check_channels(4, rednet, "rooms with depth")
    with pytest.raises(UserError, match="1 channel, and rednet takes 4 or 3"):
        check_channels(1, rednet, "isbi")
    with pytest.raises(UserError, match="3 channels, and unet takes 1"):
        check_channels(3, network("unet", width=2), "camvid")


def test_class_weights_are_those_of_the_training_labels():
    from minunet.training.setup import class_weights

    labels = np.array([[[0, 0, 0, 1]]], np.uint8)
    assert class_weights(Config(steps=1), labels, 2) is None
    assert np.abs(class_weights(Config(steps=1, class_weights="median"), labels, 2) - [2 / 3, 2]).max() <= 1e-6
    assert class_weights(Config(steps=1, class_weights="enet"), labels, 2).dtype == np.float32
