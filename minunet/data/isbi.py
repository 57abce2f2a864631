"""ISBI 2012, the data set of the U-Net paper: found on disk, downloaded, or replaced by a drawn stand-in.

30 sections of 512 x 512 from an electron microscope, with labels: membrane or cell interior. Terms: free "for
the purpose of generating or testing non-commercial image segmentation software"; publications must cite TrakEM2
and Cardona et al., PLoS Biology 8(10): e1000502, 2010. The data is therefore not part of this project.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from minunet.data.dataset import Dataset
from minunet.data.download import PIXELS_SHA256, DownloadError, download_isbi, pixels_sha256
from minunet.data.images import read_image
from minunet.data.synthetic import synthetic_membranes
from minunet.errors import UserError
from minunet.files import cache_folder

IMAGES, LABELS = "train-volume.tif", "train-labels.tif"


def load_isbi(data_dir: str | os.PathLike[str] | None = None, *, download: bool = True, seed: int = 0) -> Dataset:
    """ISBI 2012's training stack, from the first of these places that has it:

    1. `data_dir`, if given: there or in its isbi2012 or isbi folder, or nowhere (UserError);
    2. the folder in the environment variable MINUNET_DATA, looked through in the same way;
    3. the user's cache (see `cache_folder`), where an earlier call has put it;
    4. the internet, unless `download` is False: about 10 s are lost at most where there is no connection;
    5. a synthetic stack drawn from `seed`, which `synthetic` and `source` tell.

    A stack of other pixels under the same file names is taken, and `source` says that it is another. Raises
    UserError for files that are missing, damaged, of the wrong type or do not fit together.
    """
    if data_dir is not None:
        folder = _find(Path(data_dir))
        if folder is None:
            raise UserError(
                f"{data_dir}: {'has no' if Path(data_dir).is_dir() else 'no such folder; it is to hold'} {IMAGES} and "
                f"{LABELS} (looked there, in isbi2012 and in isbi); name the folder that holds them"
            )
        return _read(folder)

    own = os.environ.get("MINUNET_DATA")
    if own and not Path(own).is_dir():
        raise UserError(f"MINUNET_DATA={own}: no such folder; correct the environment variable, or unset it")
    folder = _find(Path(own)) if own else None
    if folder is not None:
        return _read(folder)

    cache = cache_folder() / "isbi2012"
    if all((cache / name).exists() for name in (IMAGES, LABELS)):
        try:
            return _read(cache)
        except UserError as error:
            raise UserError(f"{error}; delete {cache} to have it downloaded again") from error
    reason = "not found on this machine"
    if download:
        try:
            address = download_isbi(cache)
            return _read(cache, f", just downloaded from {address}")
        except DownloadError as error:
            reason = f"not found on this machine, and the download failed ({error})"
    images, labels = synthetic_membranes(seed=seed)
    source = f"SYNTHETIC membranes drawn from seed {seed}, in place of ISBI 2012: {reason}"
    return Dataset(images, labels, "synthetic", True, source, pixels_sha256(images, labels))


def split(n_sections: int, held_out: Iterable[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Indices (train, held out) of a stack's sections, int64, ascending.

    By default the last 5 are held out, or the last quarter of a stack of less than 20. Neighbouring sections are
    alike, so held-out sections should lie together.

    >>> [part.tolist() for part in split(6)]
    [[0, 1, 2, 3, 4], [5]]
    """
    if n_sections < 2:
        raise UserError(f"split: {n_sections} section(s) cannot be parted into training and held out; bring 2 or more")
    if held_out is None:
        held_out = range(n_sections - min(5, max(1, n_sections // 4)), n_sections)
    chosen = sorted(set(held_out))
    if not chosen:
        raise UserError("split: no section is held out; name at least one, or leave the default")
    for s in chosen:
        if isinstance(s, bool) or not isinstance(s, int | np.integer) or not 0 <= s < n_sections:
            raise UserError(f"split: section {s} is not one of 0 to {n_sections - 1}; name existing sections")
    if len(chosen) == n_sections:
        raise UserError(f"split: all {n_sections} sections are held out; leave some to train on")
    return np.setdiff1d(np.arange(n_sections), chosen), np.array(chosen, np.int64)


def _find(folder: Path) -> Path | None:
    """The first of folder, folder/isbi2012, folder/isbi that holds either of the two files."""
    for place in (folder, folder / "isbi2012", folder / "isbi"):
        if any((place / name).exists() for name in (IMAGES, LABELS)):
            return place
    return None


def _read(folder: Path, how: str = "") -> Dataset:
    for name, other in ((IMAGES, LABELS), (LABELS, IMAGES)):
        if not (folder / name).exists():
            raise UserError(f"{folder / name}: is missing beside {other}; copy it there")
    images, labels = (_stack(folder / name) for name in (IMAGES, LABELS))
    if images.shape != labels.shape:
        raise UserError(
            f"{folder / LABELS}: {_words(labels)} do not fit {IMAGES} with {_words(images)}; "
            "bring one label section for each image section"
        )
    values = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
    if not (set(values) <= {0, 255} or set(values) <= {0, 1}):
        shown = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
        raise UserError(
            f"{folder / LABELS}: holds the values {shown}; labels are 0 (membrane) and 255 (cell interior), "
            "without grey values in between: save them uncompressed and unscaled"
        )
    notes = []
    if any(pixels_sha256(array) != PIXELS_SHA256[name] for name, array in ((IMAGES, images), (LABELS, labels))):
        notes.append("other pixels than the published ISBI 2012")
    inside = labels > 0
    if inside.mean() < 0.5:
        notes.append("more membrane than cell, which may mean that black and white are exchanged in the labels")
    classes = inside.astype(np.uint8)
    source = "; ".join([f"{IMAGES} and {LABELS} in {folder}{how}", *notes])
    return Dataset(images, classes, "isbi2012", False, source, pixels_sha256(images, classes))


def _stack(path: Path) -> np.ndarray:
    array = read_image(path)
    array = array[None] if array.ndim == 2 else array
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    if array.dtype != np.uint8:
        raise UserError(f"{path}: holds {array.dtype}, not 8-bit grey values; convert the stack to uint8")
    return array


def _words(stack: np.ndarray) -> str:
    S, H, W = stack.shape
    return f"{S} sections of {H} x {W}"
