"""Large archives from the internet: resumed where they were cut off, checked by checksum, unpacked as a folder."""

from __future__ import annotations

import hashlib
import http.client
import os
import secrets
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from minunet.data.download import BLOCK, NOTHING_LEFT, CutOffError, DownloadError, receive, request

SECONDS = 20.0  # without a byte, until a server is given up
MAX_MEMBERS = 20_000


def fetch(address: str, target: Path, sha256: str, limit: int) -> None:
    """Put the file at `address` into `target`, at most `limit` bytes, with a progress bar on stderr.

    What has come is kept in TARGET.part, and the next call goes on from there. `target` appears when its sha256 is
    right. Raises DownloadError with the reason; a wrong checksum removes the part, everything else keeps it.
    """
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _receive(address, part, limit)
    except HTTPError as error:
        words = " ".join(str(error.reason).split())
        raise DownloadError(f"{address}: the server says {error.code} {words}") from error
    except (CutOffError, URLError, OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        kept = part.stat().st_size >> 20 if part.exists() else 0
        raise DownloadError(f"{address}: {reason}; {kept} MiB are kept, call again to go on") from error
    except DownloadError as error:
        raise DownloadError(f"{address}: {error}") from error
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        part.unlink()
        raise DownloadError(f"{address}: has the checksum {found[:12]}..., not {sha256[:12]}..., and is removed")
    part.replace(target)


def _receive(address: str, part: Path, limit: int) -> None:
    have = part.stat().st_size if part.exists() else 0
    try:
        answer = urlopen(request(address, have), timeout=SECONDS)
    except HTTPError as error:
        if error.code == NOTHING_LEFT and have:  # the checksum decides
            return
        raise
    with answer:
        receive(answer, PurePosixPath(address).name, part, have, limit)


def unpack(archive: Path, folder: Path, limit: int) -> None:
    """Unpack a zip whose members all lie in one folder NAME as `folder` (which must not exist): whole or not at all.

    Nothing is written elsewhere: members that are links, absolute or climb out by .. make the archive unusable, and so
    do more than MAX_MEMBERS members or `limit` bytes, whatever the headers declare. Raises DownloadError.
    """
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        with zipfile.ZipFile(archive) as source:
            members = [m for m in source.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
            if len(members) > MAX_MEMBERS:
                raise DownloadError(f"{archive}: holds {len(members)} files, above the limit of {MAX_MEMBERS}")
            left = limit
            for member in members:
                left = _write(source, member, temporary / _inside(archive, member), left)
        os.replace(temporary, folder)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, zlib.error) as error:
        raise DownloadError(f"{archive}: is damaged ({error}); delete it and fetch it again") from error
    except OSError as error:
        raise DownloadError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _inside(archive: Path, member: zipfile.ZipInfo) -> Path:
    """Where a member belongs, below the archive's own folder."""
    path = PurePosixPath(member.filename)
    link = stat.S_ISLNK(member.external_attr >> 16)
    if link or path.is_absolute() or ".." in path.parts or "\\" in member.filename or len(path.parts) < 2:
        raise DownloadError(f"{archive}: holds {member.filename!r}, which does not lie in a folder of its own")
    return Path(*path.parts[1:])


def _write(source: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, left: int) -> int:
    """Write one member; returns how many bytes are left to write."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open(member) as data, target.open("xb") as file:
        while block := data.read(BLOCK):
            left -= len(block)
            if left < 0:
                raise DownloadError(f"{source.filename}: unpacks to more than is allowed; it is not what it should be")
            file.write(block)
    return left
