"""Looking a folder of images and masks over before training: what is there, what is wrong, how to mend it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from minunet.data import compare
from minunet.data.listing import list_images, unreadable
from minunet.data.look import Entry, Finding, look_at_image, look_at_mask
from minunet.data.pairing import IMAGE_WORDS, MASK_WORDS, Pairing, is_mask_name
from minunet.errors import UserError

Place = str | os.PathLike[str]


@dataclass(frozen=True)
class Report:
    entries: list[Entry]
    pairing: Pairing | None  # None where names leave it open
    labels: list[str]  # which value of the masks is which class, and the classes' shares
    findings: list[Finding]

    @property
    def problems(self) -> int:
        return sum(f.problem for f in self.findings)

    @property
    def pairs(self) -> int:
        return len(self.pairing.pairs) if self.pairing else 0


def check_folder(
    folder: Place, progress: bool = False, *, labels: str = "", instances: bool = False, masks: Place | None = None
) -> Report:
    """Read every image file of a folder once and say what would trouble `minunet train folder`.

    Masks are told from images by their subfolder (masks, labels, gt, ...) or a word in their names (cell1_mask.png,
    train-labels.tif), unless they have a folder of their own, `masks`; they belong to the image of the same name
    (`minunet.data.pairing.pair`). labels, instances: what the masks' values mean (`minunet.data.masks.make_table`).
    Looked for: unreadable and constant files, NaN, copies, masks without image, other sizes, grey and colour mixed,
    masks with in-between values or with a single class. Raises UserError if there is no image file at all.
    """
    from tqdm import tqdm

    root = Path(folder)
    entries, left_out = _entries(root, masks)
    if not entries:
        raise UserError(
            f"{folder}: holds no image files; put images into {root / 'images'} and masks of the same names into "
            f"{root / 'masks'}"
        )
    findings = [Finding(False, text) for text in left_out]
    for entry in tqdm(entries, desc="reading", unit="file", leave=False, disable=None if progress else True):
        try:
            findings += look_at_mask(entry, instances) if entry.mask else look_at_image(entry)
        except UserError as error:
            findings.append(Finding(True, str(error)))
    findings += compare.copies(entries)
    ours, theirs = [e for e in entries if not e.mask], [e for e in entries if e.mask]
    findings += compare.alike(ours)
    lines, found = compare.labels([e for e in theirs if e.survey], labels, instances)
    findings += found
    pairing, found = compare.paired(ours, theirs)
    findings += found
    if pairing and not any(f.problem for f in findings):
        findings += compare.beside(pairing)
    return Report(entries, pairing, lines, findings)


def _entries(root: Path, masks: Place | None) -> tuple[list[Entry], list[str]]:
    """The image files of the folder and of its subfolders with a telling name (or isbi, isbi2012), or of the folder
    alone and that of the masks; and what is said of files that are left out.
    """
    if masks is not None:
        folders = [root, Path(masks)]
        entries = [Entry(p, mask) for mask, folder in enumerate(folders) for p in list_images(folder)]
    else:
        known = (*IMAGE_WORDS, *MASK_WORDS, "isbi", "isbi2012")
        inside = sorted(p for p in root.iterdir() if p.is_dir() and p.name.lower() in known) if root.is_dir() else []
        folders = [root, *inside]
        files = [p for folder in folders for p in list_images(folder)]
        entries = [Entry(p, p.parent.name.lower() in MASK_WORDS or is_mask_name(p)) for p in files]
    return entries, [text for text in map(unreadable, folders) if text]
