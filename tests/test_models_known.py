"""Known answers: small networks with weights by formula, against numbers that other implementations gave."""

from __future__ import annotations

import numpy as np
import pytest
from formula import answer

from minunet import backends

# network, arguments, image (N, C, H, W), output, parameters,
# in evaluation: first, last, mean, standard deviation; in training: mean, loss, gradient norm
KNOWN = {
    "unet": (
        "unet", {"in_channels": 1, "n_classes": 2, "width": 4}, (2, 1, 188, 188), (2, 2, 4, 4), 121658,
        (-0.03587256929, -0.2766888923, -0.1233299746, 0.3648780036), (-0.1233299746, 0.6995027828, 1.227384096),
    ),
    "fusionnet": (
        "fusionnet", {"in_channels": 3, "n_classes": 12, "width": 4}, (2, 3, 32, 48), (2, 12, 32, 48), 322488,
        (-1.424799145, -3.088183389, -0.268162586, 6.038434341), (-0.05836973185, 3.099137748, 7.479892695),
    ),
    "fusionnet, article": (
        "fusionnet", {"in_channels": 3, "n_classes": 12, "width": 4, "form": "article"}, (2, 3, 32, 48),
        (2, 12, 32, 48), 310068,
        (0.9117512356, 1.069101539, -0.4862645582, 2.684034559), (-0.01850664354, 3.31450179, 242.9673951),
    ),
    "segnet": (
        "segnet", {"in_channels": 3, "n_classes": 11, "width": 4, "stages": ((1, 1), (2, 2), (2, 2, 2))},
        (2, 3, 45, 60), (2, 11, 45, 60), 6251,
        (-0.006623901946, -0.04732389761, -0.03050698416, 0.1216354729), (-0.1073485013, 2.815351143, 0.8306323263),
    ),
    "segnet_basic": (
        "segnet_basic", {"in_channels": 3, "n_classes": 11, "width": 4}, (2, 3, 45, 60), (2, 11, 45, 60), 6227,
        (-0.03626378353, -0.01231761833, -0.02111226979, 0.2263172108), (-0.0110613704, 3.05600841, 0.8966149835),
    ),
    "fcn-8s": (
        "fcn", {"in_channels": 3, "n_classes": 3, "widths": (2, 2, 3, 3, 4), "fc": 5}, (2, 3, 37, 50),
        (2, 3, 37, 50), 2112,
        (1.377265175, 2.33655578, 0.01642497101, 4.200934255), (0.01642497101, 4.153587389, 19.62093596),
    ),
    "fcn-16s": (
        "fcn", {"in_channels": 3, "n_classes": 3, "widths": (2, 2, 3, 3, 4), "fc": 5, "form": "16s"}, (2, 3, 37, 50),
        (2, 3, 37, 50), 2100,
        (0.9664402096, 1.048482056, 0.2003128636, 2.10128823), (0.2003128636, 2.3704237, 14.31331196),
    ),
    "fcn-32s": (
        "fcn", {"in_channels": 3, "n_classes": 3, "widths": (2, 2, 3, 3, 4), "fc": 5, "form": "32s"}, (2, 3, 37, 50),
        (2, 3, 37, 50), 2088,
        (-0.2048989469, 0.3120453586, 0.08479248406, 0.3406778419), (0.08479248406, 1.16089985, 1.779345545),
    ),
    "deconvnet": (
        "deconvnet",
        {"in_channels": 3, "n_classes": 21, "widths": ((2, 2), (3, 3), (4, 4, 4)), "fc": 6, "fc_kernel": 4},
        (2, 3, 32, 32), (2, 21, 32, 32), 2265,
        (0.258749988, 0.0972566745, 0.04007625833, 0.3879080035), (0.06329676508, 3.342851825, 0.61195121),
    ),
    "zf_unet": (
        "zf_unet", {"in_channels": 3, "n_classes": 1, "width": 2}, (2, 3, 32, 64), (2, 1, 32, 64), 123983,
        (0.37517253, 0.6755798172, 0.5419807732, 0.2127793229), (0.5216719247, 0.8015445135, 0.9688643906),
    ),
    "unet_same": (
        "unet_same", {"in_channels": 3, "n_classes": 1, "width": 4}, (2, 3, 32, 48), (2, 1, 32, 48), 122461,
        (0.4827689935, 0.4959099566, 0.5230358257, 0.09143271562), (0.4630004979, 0.7855743829, 0.4557572052),
    ),
    "enet": (
        "enet", {"in_channels": 3, "n_classes": 5, "widths": (8, 16, 24)}, (2, 3, 64, 96), (2, 5, 64, 96), 16603,
        (-2650.41949, 1003.385991, -58.18695475, 6314.552264), (0.03337255869, 1.885058642, 1.121939392),
    ),
}  # fmt: skip


@pytest.mark.parametrize("title", KNOWN)
def test_known_answers(title):
    name, arguments, image, output, parameters, evaluated, trained = KNOWN[title]
    with backends.use_backend("reference"):
        found = answer(name, image, arguments)
    assert (found.parameters, found.output) == (parameters, output)
    values = np.array([*found.evaluated, found.train_mean, found.loss, found.gradient_norm])
    known = np.array([*evaluated, *trained])
    assert np.isfinite(values).all()
    error = np.abs(values - known) / np.abs(known)
    assert (error <= 5e-9).all(), dict(zip(("first", "last", "mean", "std", "train", "loss", "gradient"), error))
