"""Fetching ISBI 2012 into the user's cache: bounded in time and size, checked by checksum, whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import io
import math
import threading
import time
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np

from minunet.data.images import read_image
from minunet.errors import UserError
from minunet.files import atomic_write

# sha256 of the pixels (C order), which are the same in every copy, whatever the TIFF around them
PIXELS_SHA256 = {
    "train-volume.tif": "200da3d452d726e6c9ca1ce04b869d4edb727320d23b516d01cce707dc8c4760",
    "train-labels.tif": "a7cb64000a1a7e542682927e19c91339f58f9f178e0bcce4e207371116f0ca36",
    "test-volume.tif": "1b58fa7ec1d0ff9d39a855622db3ff66a97863036339b0d04be51b2f5a99b0e9",
}
ARCHIVE = "https://downloads.imagej.net/ISBI-2012-challenge.zip"  # from the organisers
SINGLE_FILES = "https://raw.githubusercontent.com/zhixuhao/unet/b45af4d458437d8281cc218a07fd4380818ece4a/data/membrane/"
MAX_ARCHIVE_BYTES = 96 << 20
MAX_FILE_BYTES = 16 << 20  # a stack has 7.9 MB
CONNECT_SECONDS = 4.0  # per server, name look-up and proxies included: two servers make 8 s at worst
TOTAL_SECONDS = 600.0


PARTIAL, NOTHING_LEFT = 206, 416  # what HTTP answers to a request for the rest of a file
BLOCK = 1 << 18


class DownloadError(Exception):
    """One source did not give what was expected; the text says why."""


class TooLargeError(DownloadError):
    """More bytes than the data set has."""


class CutOffError(DownloadError):
    """Fewer bytes than were announced."""


def download_isbi(folder: Path) -> str:
    """Put the three stacks of ISBI 2012 into `folder`; return the address they came from.

    The organisers' archive is tried first, then single files from a public repository at a fixed commit. A file
    appears in `folder` only when its pixels have the known checksum; until then what has come waits in a hidden .part
    file, from whose end the next call goes on. Nothing is written anywhere else.
    Raises DownloadError with the reasons when neither source works.
    """
    deadline = time.monotonic() + TOTAL_SECONDS
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"{folder} cannot be made: {error.strerror}; set MINUNET_CACHE to another") from error
    reasons = []
    for address, fetch in ((ARCHIVE, _from_archive), (SINGLE_FILES, _from_single_files)):
        try:
            fetch(address, folder, deadline)
            for part in folder.glob(".*.part"):  # of the source that did not work
                part.unlink()
            return address
        except (DownloadError, UserError, OSError, http.client.HTTPException) as error:
            reasons.append(f"{urlsplit(address).hostname}: {_reason(error)}")
    raise DownloadError("; ".join(reasons))


def _from_archive(address: str, folder: Path, deadline: float) -> None:
    part = folder / f".{PurePosixPath(address).name}.part"
    data = _fetch(address, MAX_ARCHIVE_BYTES, deadline, part)
    part.unlink()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in PIXELS_SHA256:
                _store(folder, name, _member(archive, name))
    except (zipfile.BadZipFile, RuntimeError, EOFError, zlib.error) as error:  # RuntimeError: encrypted, unknown
        raise DownloadError(f"the archive is damaged ({error})") from error


def _from_single_files(address: str, folder: Path, deadline: float) -> None:
    for name in PIXELS_SHA256:
        part = folder / f".{name}.part"
        data = _fetch(address + name, MAX_FILE_BYTES, deadline, part)
        part.unlink()
        _store(folder, name, data)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of the archive's member whose last name is exactly `name`, in whatever folder it lies."""
    found = [i for i in archive.infolist() if PurePosixPath(i.filename).name == name and not i.is_dir()]
    found = [i for i in found if not i.filename.startswith("__MACOSX/")]
    if len(found) != 1:
        raise DownloadError(f"the archive holds {len(found)} files named {name}, expected one")
    with archive.open(found[0]) as file:
        data = file.read(MAX_FILE_BYTES + 1)  # the declared size is not believed
    if len(data) > MAX_FILE_BYTES:
        raise DownloadError(f"{name} in the archive is larger than {MAX_FILE_BYTES >> 20} MiB")
    return data


def _store(folder: Path, name: str, data: bytes) -> None:
    """Write `data` as folder/name if its pixels are the known ones."""
    with atomic_write(folder / name) as tmp:
        tmp.write_bytes(data)
        try:
            pixels = read_image(tmp)
        except UserError as error:
            raise DownloadError(f"{name} is damaged or no TIFF") from error
        if pixels_sha256(pixels) != PIXELS_SHA256[name]:
            raise DownloadError(f"{name} has an unexpected checksum")


def pixels_sha256(*arrays: np.ndarray) -> str:
    """sha256 over the bytes of the arrays in C order, as hexadecimal digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _fetch(address: str, limit: int, deadline: float, part: Path) -> bytes:
    """The body of one https address, at most `limit` bytes, with a progress bar on stderr.

    What has come is kept in `part`, and the next call goes on from there; a server that sends too much leaves nothing.
    """
    have = part.stat().st_size if part.exists() else 0
    try:
        with _connect(address, have) as answer:
            receive(answer, PurePosixPath(urlsplit(address).path).name, part, have, limit, deadline)
    except TooLargeError:
        part.unlink(missing_ok=True)
        raise
    except HTTPError as error:
        if error.code != NOTHING_LEFT or not have:
            raise
    return part.read_bytes()


def receive(answer: Any, name: str, part: Path, have: int, limit: int, deadline: float = math.inf) -> None:
    """Write what a server answers to `part`, behind the `have` bytes that are there if it goes on from them.

    Raises TooLargeError, CutOffError, and DownloadError where it goes on from elsewhere or lasts beyond the deadline.
    """
    from tqdm import tqdm

    begin = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    if answer.status != PARTIAL:  # the server does not resume
        have = 0
    elif begin != str(have):
        raise DownloadError(f"sends from byte {begin or '?'} on, not from {have}; delete {part}")
    length = answer.headers.get("Content-Length", "")
    total = have + int(length) if length.isdecimal() and len(length) < 16 else None
    if total is not None and total > limit:
        raise TooLargeError(f"is {total >> 20} MiB, above the limit of {limit >> 20} MiB")
    label, shown = f"downloading {name}", {"unit": "B", "unit_scale": True, "leave": False, "disable": None}
    bar = tqdm(total=total, initial=have, desc=label, **shown)
    with part.open("ab" if have else "wb") as file, bar:
        while block := answer.read(BLOCK):
            have += len(block)
            if have > limit:
                raise TooLargeError(f"sends more than {limit >> 20} MiB")
            file.write(block)
            bar.update(len(block))
            if time.monotonic() > deadline:
                raise DownloadError(f"took longer than {TOTAL_SECONDS:.0f} s")
    if total is not None and have != total:
        raise CutOffError(f"ended after {have} of {total} bytes")


def _connect(address: str, have: int = 0) -> http.client.HTTPResponse:
    """Open the address, from byte `have` on, waiting CONNECT_SECONDS at most.

    A socket's timeout does not cover the look-up of the name, which can hang for half a minute where there is
    no network; so a thread does the waiting, and is left behind when it takes too long.
    """
    answers: list[http.client.HTTPResponse | BaseException] = []
    late = threading.Event()

    def work() -> None:
        try:
            answers.append(urlopen(request(address, have), timeout=CONNECT_SECONDS))
        except Exception as error:
            answers.append(error)
        if late.is_set() and not isinstance(answers[0], Exception):
            answers[0].close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if thread.is_alive():
        late.set()
        raise DownloadError(f"no answer within {CONNECT_SECONDS:.0f} s")
    if isinstance(answers[0], BaseException):
        raise answers[0]
    return answers[0]


def request(address: str, have: int) -> Request:
    """A request for what comes behind the first `have` bytes."""
    headers = {"User-Agent": "minunet"} | ({"Range": f"bytes={have}-"} if have else {})
    return Request(address, headers=headers)


def _reason(error: BaseException) -> str:
    """One short line for what went wrong on the way."""
    if isinstance(error, URLError) and not hasattr(error, "code"):
        error = error.reason if isinstance(error.reason, BaseException) else error
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:120]
