"""Everything that decides a run, as one record that is stored in its checkpoint."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from minunet.errors import UserError

WEIGHTS = {  # --weights: what sample_tile calls it
    "plain": None,  # every pixel 1
    "border": "none",  # 1 + w0 exp(-(d1 + d2)^2 / (2 sigma^2)) between cells
    "paper": "balanced",  # class shares balanced, and the border term: U-Net, eq. 2
}


def setting(default: Any, text: str, choices: tuple[str, ...] | None = None, at_least: float | None = None) -> Any:
    """A field of Config with the help text and the range of its command-line option."""
    return field(default=default, metadata={"help": text, "choices": choices, "at_least": at_least})


@dataclass(frozen=True)
class Config:
    """One run. Same Config, data, machine and thread count: same bits (with --steps or --epochs as the budget)."""

    dataset: str = setting("isbi", "data set", ("isbi", "synthetic"))
    # network
    model: str = setting("unet", "network, such as unet")
    width: int = setting(16, "channels of the first level; the paper's U-Net has 64", at_least=1)
    depth: int = setting(4, "number of poolings", at_least=1)
    padding: str = setting("valid", "convolutions' padding", ("valid", "same"))
    dropout: float = setting(0.0, "dropout at the end of the contracting path", at_least=0)
    # budget: exactly one
    steps: int | None = setting(None, "budget in training steps", at_least=1)
    epochs: float | None = setting(None, "budget in passes over the training sections' pixels", at_least=0)
    minutes: float | None = setting(None, "budget in minutes; such a run cannot be repeated bit for bit", at_least=0)
    # optimiser
    tile: int = setting(316, "height and width of the network's input in pixels", at_least=1)
    batch: int = setting(1, "tiles a step", at_least=1)
    optimizer: str = setting("adam", "optimiser", ("adam", "sgd"))
    lr: float = setting(1e-3, "highest learning rate, for the loss's mean over pixels", at_least=0)
    momentum: float = setting(0.9, "momentum of sgd; the paper's U-Net used 0.99 with a rate about 100 times lower")
    weight_decay: float = setting(0.0, "weight decay", at_least=0)
    warmup: float = setting(0.03, "share of the budget over which the learning rate rises from 0", at_least=0)
    schedule: str = setting("cosine", "learning rate after that", ("cosine", "constant"))
    # loss
    weights: str = setting("plain", "pixel weights in the loss: plain, border, or the paper's", tuple(WEIGHTS))
    w0: float = setting(10.0, "height of the border weight", at_least=0)
    sigma: float = setting(5.0, "reach of the border weight in pixels", at_least=0.1)
    reduction: str = setting("mean", "divisor of the loss: pixels, or sum of weights", ("mean", "weighted"))
    # augmentation
    flips: int = setting(1, "flip tiles at random (0: no)", at_least=0)
    rotations: int = setting(1, "turn tiles by 0, 90, 180 or 270 degrees at random (0: no)", at_least=0)
    elastic: float = setting(0.0, "sd in pixels of the elastic deformation's 3x3 grid; the paper has 10", at_least=0)
    brightness: float = setting(0.1, "largest random shift of grey values, in standard deviations", at_least=0)
    contrast: float = setting(0.1, "largest random stretch of grey values", at_least=0)
    gamma: float = setting(0.1, "largest random gamma (in exp(+-g))", at_least=0)
    noise: float = setting(0.0, "largest sd of Gaussian noise", at_least=0)
    # the rest
    held_out: str = setting("", 'sections kept for validation, such as "25-29" or "0,3"; default: the last five')
    validate: int = setting(5, "validations during the run, the last at its end", at_least=1)
    average: int = setting(1, "orientations averaged in the last validation (1 to 8)", at_least=1)
    seed: int = setting(0, "seed of weights, tiles and dropout", at_least=0)

    def __post_init__(self) -> None:
        for f in fields(self):
            value, low, choices = getattr(self, f.name), f.metadata["at_least"], f.metadata["choices"]
            option = "--" + f.name.replace("_", "-")
            if choices is not None and value not in choices:
                raise UserError(f"{option} {value}: is not known; choose one of {', '.join(choices)}")
            if low is not None and value is not None and not value >= low:
                raise UserError(f"{option} {value}: must be at least {low}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"--dropout {self.dropout}: must be at least 0 and less than 1")
        if sum(b is not None for b in (self.steps, self.epochs, self.minutes)) != 1:
            raise UserError("--steps, --epochs and --minutes exclude each other; give one")
        if self.warmup >= 1 or self.average > 8 or not self.lr > 0:
            raise UserError("--warmup must be below 1, --average at most 8, --lr above 0")

    def to_json(self) -> dict[str, Any]:
        """All settings as JSON-able values."""
        return asdict(self)

    def model_arguments(self) -> dict[str, Any]:
        """What `minunet.models.build` needs beside the name."""
        keys = ("width", "depth", "padding", "dropout", "seed")
        return {"in_channels": 1, "n_classes": 2, **{k: getattr(self, k) for k in keys}}


def sections(text: str) -> list[int] | None:
    """The section numbers in "25-29" or "0,3,7-9"; None for the empty string. Raises UserError for anything else."""
    if not text.strip():
        return None
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None:
            raise UserError(f'--held-out {text}: cannot be read; write section numbers like "25-29" or "0,3"')
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last > 100_000:
            raise UserError(f"--held-out {text}: {part.strip()} is no range of sections")
        numbers.extend(range(first, last + 1))
    return numbers
