"""Everything that decides a run, as one record that is stored in its checkpoint."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from minunet.errors import UserError
from minunet.training.defaults import DATASETS, OWN, Facts

WEIGHTS = {  # --weights: what sample_tile calls it
    "plain": None,  # every pixel 1
    "border": "none",  # 1 + w0 exp(-(d1 + d2)^2 / (2 sigma^2)) between cells
    "paper": "balanced",  # class shares balanced, and the border term: U-Net, eq. 2
}
LOSSES = ("ce", "bce", "dice", "bce+dice", "focal", "ohem", "mse", "mae", "smooth_l1")
CLASS_WEIGHTED = ("ce", "bce", "bce+dice", "ohem")  # take --class-weights
ONE_LOGIT = ("bce", "bce+dice", "focal", "mse", "mae", "smooth_l1")  # of two classes: the logit of the second


KINDS = {  # annotations of Config's fields
    "int": lambda v: isinstance(v, int),
    "float": lambda v: isinstance(v, int | float) and not isinstance(v, bool) and -1e300 < v < 1e300,
    "str": lambda v: isinstance(v, str),
    "dict[str, Any]": lambda v: isinstance(v, dict) and all(isinstance(k, str) for k in v),
    "None": lambda v: v is None,
}


def setting(
    default: Any,
    text: str,
    choices: tuple[str, ...] | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Any:
    """A field of Config with the help text and the range of its command-line option."""
    return field(default=default, metadata={"help": text, "choices": choices, "at_least": at_least, "at_most": at_most})


@dataclass(frozen=True)
class Config:
    """One run. Same Config, data, machine and thread count: same bits (with --steps or --epochs as the budget).

    The defaults are those of U-Net on ISBI 2012; `minunet.training.defaults` has those of other data and networks.
    """

    dataset: str = setting("isbi", "data set", tuple(DATASETS))
    # of the data set "folder"
    images: str | None = setting(None, "train folder: the folder of your images, or a stack's file")
    masks: str | None = setting(None, "folder of their masks, paired by name; may be the same folder")
    val_images: str | None = setting(None, "folder of the images to validate on; default: a share of --images")
    val_masks: str | None = setting(None, "folder of their masks")
    val: float | None = setting(None, "share of --images to validate on, the last ones; default: 0.2")
    labels: str = setting("", 'what the masks\' values mean, such as "0=background,255=cell"; "ignore": no class')
    instances: int = setting(0, "each cell has its own number in the masks (1: yes)", at_least=0)
    channels: int | None = setting(None, "")  # these two follow from the files; None for other data sets
    n_classes: int | None = setting(None, "")
    size: str = setting("", "height x width that all images are brought to, such as 180x240; default: as they are")
    # network
    model: str = setting("unet", "network, such as unet; see minunet models")
    width: int | None = setting(16, "channels of the first level; the paper's U-Net has 64", at_least=1)
    depth: int | None = setting(4, "of the network, as its paper counts it; U-Net: number of poolings", at_least=1)
    padding: str | None = setting("valid", "convolutions' padding, of networks that leave it open", ("valid", "same"))
    dropout: float | None = setting(0.0, "dropout, where the network has it", at_least=0)
    # budget: exactly one
    steps: int | None = setting(None, "budget in training steps", at_least=1)
    epochs: float | None = setting(None, "budget in passes over the training sections' pixels", at_least=0)
    minutes: float | None = setting(None, "budget in minutes; such a run cannot be repeated bit for bit", at_least=0)
    # optimiser
    tile: int = setting(316, "height and width of the network's input in pixels; 0: the whole image", at_least=0)
    batch: int = setting(1, "tiles that are computed at once", at_least=1)
    accumulate: int = setting(1, "batches whose gradients are averaged for a step", at_least=1)
    optimizer: str = setting("adam", "optimiser", ("adam", "sgd"))
    lr: float = setting(1e-3, "highest learning rate, for the loss's mean over pixels", at_least=0)
    momentum: float = setting(0.9, "momentum of sgd; the paper's U-Net used 0.99 with a rate about 100 times lower")
    nesterov: int = setting(0, "Nesterov's form of the momentum (1: yes)", at_least=0)
    weight_decay: float = setting(0.0, "weight decay", at_least=0)
    warmup: float = setting(0.03, "share of the budget over which the learning rate rises from 0", at_least=0)
    schedule: str = setting("cosine", "learning rate after that", ("cosine", "constant", "poly", "step"))
    power: float = setting(0.9, "of the schedule poly: (1 - share of the budget used) ^ power", at_least=0)
    step_every: float = setting(0.34, "of the schedule step: share of the budget between two drops", at_least=0)
    step_factor: float = setting(0.1, "of the schedule step: what the rate is multiplied by", at_least=0)
    # loss
    loss: str = setting("ce", "what is made small", LOSSES)
    weights: str = setting("plain", "pixel weights in the loss: plain, border, or the paper's", tuple(WEIGHTS))
    class_weights: str = setting("none", "class weights: none, by median frequency, ENet's", ("none", "median", "enet"))
    w0: float = setting(10.0, "height of the border weight", at_least=0)
    sigma: float = setting(5.0, "reach of the border weight in pixels", at_least=0.1, at_most=1000)
    reduction: str = setting("mean", "divisor of the loss: pixels, sum of weights, or 1", ("mean", "weighted", "sum"))
    # augmentation
    flips: int = setting(1, "flip tiles at random (0: no)", at_least=0)
    rotations: int = setting(1, "turn tiles by 0, 90, 180 or 270 degrees at random (0: no)", at_least=0)
    elastic: float = setting(0.0, "sd in pixels of the elastic deformation's 3x3 grid; the paper has 10", at_least=0)
    zoom: float = setting(0.0, "largest random zoom: by 1 / (1 + z) to 1 + z", at_least=0)
    brightness: float = setting(0.1, "largest random shift of grey values, in standard deviations", at_least=0)
    contrast: float = setting(0.1, "largest random stretch of grey values", at_least=0)
    gamma: float = setting(0.1, "largest random gamma (in exp(+-g))", at_least=0, at_most=10)
    noise: float = setting(0.0, "largest sd of Gaussian noise", at_least=0)
    colour: float = setting(0.0, "largest random shift and stretch of each colour channel by itself", at_least=0)
    # the rest
    normalise: str = setting(
        "section", "mean 0 and sd 1: of each section, or over the training images", ("section", "dataset")
    )
    align: int = setting(
        0, "measure how far the masks lie off what they outline, and move the images by it (1: yes)", (0, 1)
    )
    shuffle: int = setting(0, "take the training images in shuffled rounds (0: each by chance)", at_least=0)
    held_out: str = setting("", 'sections kept for validation, such as "25-29" or "0,3"; default: the last five')
    validate: int = setting(5, "validations during the run, the last at its end", at_least=1)
    average: int = setting(1, "orientations averaged in the last validation (1 to 8)", at_least=1, at_most=8)
    seed: int = setting(0, "seed of weights, tiles and dropout", at_least=0)
    preset: str = setting("", "recipe that options left out are taken from, such as paper; list: show them all")
    model_args: dict[str, Any] = field(  # arguments of the network that have no option of their own
        default_factory=dict, metadata={"help": "", "choices": None, "at_least": None, "at_most": None}
    )

    def __post_init__(self) -> None:
        for f in fields(self):
            value, choices = getattr(self, f.name), f.metadata["choices"]
            low, high = f.metadata["at_least"], f.metadata["at_most"]
            option = "--" + f.name.replace("_", "-")
            if not any(KINDS[kind](value) for kind in f.type.split(" | ")):
                raise UserError(f"{option} {ascii(value)[:60]}: is of the wrong kind; give {f.type.split(' | ')[0]}")
            if choices is not None and value is not None and value not in choices:
                raise UserError(f"{option} {value}: is not known; choose one of {', '.join(choices)}")
            if low is not None and value is not None and not value >= low:
                raise UserError(f"{option} {value}: must be at least {low}")
            if high is not None and value is not None and not value <= high:
                raise UserError(f"{option} {value}: must be at most {high}")
        for name in ("dropout", "momentum", "warmup"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UserError(f"--{name} {value}: must be at least 0 and less than 1")
        if sum(b is not None for b in (self.steps, self.epochs, self.minutes)) != 1:
            raise UserError("--steps, --epochs and --minutes exclude each other; give one")
        for name in ("lr", "epochs", "minutes"):
            if getattr(self, name) == 0:
                raise UserError(f"--{name} 0: must be above 0")
        if not 0 < self.step_every <= 1:
            raise UserError(f"--step-every {self.step_every}: must be a share of the budget, above 0 and at most 1")
        if self.average > 1 and not self.rotations and self.facts().n_classes > 2:
            raise UserError(f"--average {self.average}: turns images, which --rotations 0 excludes; leave it at 1")
        if self.align and self.facts().n_classes > 2:
            raise UserError("--align 1: is for two classes, whose outlines it looks at; leave it out")
        self._check_own()
        self._check_loss()
        self.image_size()
        sections(self.held_out)

    def facts(self) -> Facts:
        """What is known of the data set, with the channels and classes of the user's own files."""
        known = DATASETS[self.dataset]
        return known._replace(channels=self.channels or known.channels, n_classes=self.n_classes or known.n_classes)

    def _check_own(self) -> None:
        """Raises UserError for options of the data set "folder" with another one."""
        if self.dataset == OWN:
            return
        for name in ("images", "masks", "val_images", "val_masks", "val", "labels", "instances"):
            if getattr(self, name):
                option = "--" + name.replace("_", "-")
                raise UserError(f"{option} {getattr(self, name)}: is for `minunet train folder`, not {self.dataset}")

    def _check_loss(self) -> None:
        """Raises UserError for a loss that does not go with the classes or with the weights."""
        classes = self.facts().n_classes
        if self.loss in ONE_LOGIT and classes > 2:
            raise UserError(
                f"--loss {self.loss}: is for two classes, and {self.dataset} has {classes}; choose ce, dice or ohem"
            )
        if self.weights != "plain" and (classes > 2 or self.loss not in ("ce", "bce", "bce+dice")):
            raise UserError(
                f"--weights {self.weights}: is for cells of two classes and the losses ce, bce and bce+dice; here the"
                f" loss is {self.loss} of {classes} classes: choose plain, or --class-weights"
            )
        if self.class_weights != "none" and self.loss not in CLASS_WEIGHTED:
            raise UserError(
                f"--class-weights {self.class_weights}: goes with ce, bce, bce+dice and ohem, not {self.loss}"
            )
        if self.reduction != "mean" and self.loss not in ("ce", "bce", "bce+dice"):
            raise UserError(f"--reduction {self.reduction}: goes with ce, bce and bce+dice; {self.loss} has its own")

    def image_size(self) -> tuple[int, int] | None:
        """--size as (H, W); None where images stay as they are. Raises UserError where it cannot be read."""
        return read_size(self.size)

    def to_json(self) -> dict[str, Any]:
        """All settings as JSON-able values."""
        return asdict(self)

    def model_arguments(self) -> dict[str, Any]:
        """What `minunet.models.build` needs beside the name: options that are None are left to the network.

        Two classes become one logit, that of the second class, where the loss asks for it.
        """
        data = self.facts()
        n_classes = 1 if self.loss in (*ONE_LOGIT, "dice") and data.n_classes == 2 else data.n_classes
        named = {k: getattr(self, k) for k in ("width", "depth", "padding", "dropout")}
        given = {k: v for k, v in named.items() if v is not None}
        return {"in_channels": data.channels, "n_classes": n_classes, **given, "seed": self.seed, **self.model_args}


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


def read_size(text: str) -> tuple[int, int] | None:
    """ "180x240" as (180, 240), "" as None. Raises UserError."""
    match = re.fullmatch(r"\s*(\d{1,5})\s*[xX]\s*(\d{1,5})\s*", text)
    if text and (match is None or min(int(match[1]), int(match[2])) < 1):
        raise UserError(f"--size {text}: cannot be read; write height x width in pixels, such as 180x240")
    return (int(match[1]), int(match[2])) if match else None
