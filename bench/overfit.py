"""Does every network learn? `python -m bench.overfit`: each, narrow, until its loss on two crops is 5 % of the start.

The crops are drawn street scenes and membranes, so that nothing has to be downloaded. Dropout is off: what is asked is
whether gradients reach everything and point the right way, not whether the network generalises.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.report import machine
from minunet import cli, models, nn, optim
from minunet.data.streets import synthetic_streets
from minunet.data.synthetic import synthetic_membranes
from minunet.errors import UsageError
from minunet.files import atomic_write
from minunet.models import Network
from minunet.tensor import Tensor
from minunet.training.config import Config
from minunet.training.folder import versions
from minunet.training.objective import class_loss, objective, shrink

STEPS, SHARE = 300, 0.05


class Case(NamedTuple):
    """A network, narrow, and what it is to learn by heart."""

    name: str
    arguments: dict[str, Any]
    size: tuple[int, int] = (64, 64)  # of the logits; the image has the legal size around it
    lr: float = 1e-3  # Adam's
    loss: str = "ce"


STREETS, MEMBRANES = {"in_channels": 3, "n_classes": 7}, {"in_channels": 1, "n_classes": 2}
ONE_LOGIT = {"in_channels": 1, "n_classes": 1}
CASES = {
    "U-Net": Case("unet", {**MEMBRANES, "width": 8, "depth": 3}),
    "U-Net, as released": Case("unet", {**MEMBRANES, "width": 12, "depth": 3, "form": "released"}, lr=3e-3),
    "FusionNet": Case("fusionnet", {**STREETS, "width": 6}),
    "FusionNet, article": Case("fusionnet", {**MEMBRANES, "width": 6, "form": "article"}),
    "SegNet": Case("segnet", {**STREETS, "width": 8}, lr=3e-3),
    "SegNet-Basic": Case("segnet_basic", {**STREETS, "width": 16}, lr=3e-3),
    "FCN-8s": Case("fcn", {**STREETS, "widths": (8, 16, 32, 64, 64), "fc": 64}),
    "DeconvNet": Case(
        "deconvnet", {**STREETS, "widths": ((8, 8), (16, 16), (32, 32, 32)), "fc": 64, "fc_kernel": 4}, lr=2e-2
    ),
    "ZF_UNET_224": Case("zf_unet", {**ONE_LOGIT, "width": 4}, lr=2e-2, loss="bce"),
    "U-Net-same": Case("unet_same", {**ONE_LOGIT, "width": 6}, lr=1e-2, loss="bce"),
    "RedNet": Case("rednet", {**STREETS, "width": 8, "blocks": (1, 1, 1, 1)}, lr=3e-3),
    "RED-Net": Case("rednet_restoration", {**ONE_LOGIT, "width": 16}, loss="bce"),
    "DeepLab v1": Case("deeplab_v1", {**STREETS, "width": 8}),
    "DeepLab v2": Case("deeplab_v2", {**STREETS, "width": 8, "blocks": (1, 1, 2, 1)}),
    "DeepLab v3": Case("deeplab_v3", {**STREETS, "width": 8, "blocks": (1, 1, 2, 1)}, lr=1e-2),
    "DeepLab v3+": Case("deeplab_v3", {**STREETS, "width": 8, "blocks": (1, 1, 2, 1), "form": "v3+"}, lr=3e-3),
    "DeepLab v3+, Xception-65": Case(
        "deeplab_v3", {**STREETS, "width": 8, "blocks": (2,), "form": "v3+", "body": "xception65"}, lr=3e-3
    ),
    "GCN": Case("gcn", {**STREETS, "width": 8, "depth": 50}, lr=3e-3),
    "BiSeNet": Case("bisenet", {**STREETS, "width": 8}, lr=3e-3),
    "BiSeNet, Xception-39": Case("bisenet", {**STREETS, "body": "xception39"}, lr=3e-3),
    "DFN": Case("dfn", {**STREETS, "width": 8, "depth": 50}),
    "ENet": Case("enet", STREETS, lr=5e-3),
    "FANet": Case("fanet", {**STREETS, "width": 8}, lr=3e-3),
}


class Outcome(NamedTuple):
    """What came of it."""

    parameters: int
    start: float  # the main output's loss at the first step, or that of guessing, log K, where this is less
    steps: int  # until the loss was the wanted share of it, or all
    share: float  # at the last step
    seconds: float


def crops(case: Case, model: Network) -> tuple[np.ndarray, np.ndarray]:
    """Images float32 (2, H, W, C), mean 0 and sd 1, and labels int32 (2, OH, OW) of what the network sees of them."""
    h, w = model.input_size(*case.size)
    if case.arguments["in_channels"] == 3:
        scenes = synthetic_streets(2, (360, 480))  # CamVid's size
        images, labels = scenes.images, scenes.labels
        top, left = 120, 200  # houses above, the road and its pavement below
    else:
        stack, labels = synthetic_membranes(2, 256)
        images, top, left = stack[..., None], 20, 20
    images = images[:, top : top + h, left : left + w].astype(np.float32)
    images = (images - images.mean((1, 2), keepdims=True)) / images.std((1, 2), keepdims=True)
    if model.channels[0] > images.shape[3]:  # RedNet's depth: the road comes nearer towards the bottom
        depth = np.broadcast_to(np.linspace(-1.5, 1.5, h, dtype=np.float32)[:, None, None], (2, h, w, 1))
        images = np.concatenate([images, depth], axis=3)
    i, j = model.margin(h, w)
    (oh, ow), labels = model.output_size(h, w), labels[:, top : top + h, left : left + w]
    return np.ascontiguousarray(images), np.ascontiguousarray(labels[:, i : i + oh, j : j + ow].astype(np.int32))


def overfit(case: Case, steps: int = STEPS, share: float = SHARE, seed: int = 0) -> Outcome:
    """Train on one pair of crops with Adam and all of the network's outputs, until the main one's loss in training is
    `share` of what it was, or of what guessing costs.
    """
    model = models.build(case.name, **case.arguments, seed=seed).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.rate = 0.0
    x, target = crops(case, model)
    config = Config(loss=case.loss, steps=steps)
    optimizer = optim.Adam(model.parameters(), lr=case.lr)
    begin, start = time.perf_counter(), np.log(max(case.arguments["n_classes"], 2))
    for step in range(1, steps + 1):
        maps = model(Tensor(x))
        main = maps[0] if isinstance(maps, tuple) else maps
        loss = class_loss(main, shrink(target, main.shape[1:3]), None, config).item()
        start = min(start, loss) if step == 1 else start
        if not loss > share * start:
            break
        optimizer.zero_grad()
        objective(maps, target, None, config, model).backward()
        optimizer.step()
    parameters = sum(p.data.size for p in model.parameters())
    return Outcome(parameters, float(start), step, float(loss / start), time.perf_counter() - begin)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0, or 1 where a network did not learn its crop."""
    p = cli.parser("bench.overfit", __doc__)
    p.prog = "python -m bench.overfit"
    hidden = argparse.SUPPRESS  # as the default: the help then shows none
    p.add_argument("networks", nargs="*", default=hidden, metavar="NETWORK", help="their names; all if left out")
    p.add_argument("--out", default=hidden, metavar="DIR", help="write overfit.json there")
    given = vars(p.parse_args(argv))
    wanted, out = given.get("networks", []), given.get("out")
    unknown = set(wanted) - set(models.names())
    if unknown:
        raise UsageError(f"there is no network {', '.join(sorted(unknown))}; known: {', '.join(models.names())}")
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
    found = {}
    for title, case in CASES.items():
        if not wanted or case.name in wanted:
            found[title] = one = overfit(case, STEPS)
            what = f"{one.share:7.1%} of {one.start:.3f} after {one.steps:3} steps"
            print(f"{title:26} {one.parameters:9,} parameters  {what}  {one.seconds:6.1f} s", flush=True)
    if out is not None:
        file = Path(out) / "overfit.json"
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps(table(found), indent=2) + "\n", encoding="utf-8")
        print(f"written: {file}")
    slow = [title for title, one in found.items() if not one.share <= SHARE]
    if slow:
        print(f"error: above {SHARE:.0%} after {STEPS} steps: {', '.join(slow)}", file=sys.stderr)
    return 1 if slow else 0


def table(found: dict[str, Outcome]) -> dict[str, Any]:
    """What overfit.json holds."""
    cases = {}
    for title, one in found.items():
        cases[title] = {**CASES[title]._asdict(), **one._asdict()}
        del cases[title]["seconds"]  # not measured with care
    rule = f"Adam, two crops, until the loss is {SHARE:.0%} of its start, {STEPS} steps at most"
    return {"versions": versions(), "machine": machine(), "rule": rule, "networks": cases}


if __name__ == "__main__":
    sys.exit(cli.run(main))
