"""The errors a user can cause, and the exit codes they lead to.

Every such error is one line: the file or argument, what is wrong with it, and the remedy.
"""

from __future__ import annotations

import errno
import os

REMEDIES = {
    errno.ENOSPC: "make room on that disk, or name a folder on another",
    errno.EDQUOT: "make room in your quota, or name a folder on another disk",
    errno.EFBIG: "name a folder where files may be larger",
    errno.EROFS: "name a folder that can be written to",
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}


def reason(error: OSError) -> str:
    """The system's words for what went wrong, without its number."""
    return error.strerror or (os.strerror(error.errno) if error.errno else str(error)) or type(error).__name__


def remedy(error: OSError) -> str:
    """What to do about it, as the end of a line ("; make room ..."); "" where the system's words say it all."""
    return f"; {REMEDIES[error.errno]}" if error.errno in REMEDIES else ""


class UserError(ValueError):
    """Something the user gave cannot be used (exit code 1)."""

    exit_code = 1


class DeviceMemoryError(UserError):
    """A GPU's memory is full. what : the message without the remedy."""

    def __init__(self, what: str, remedy: str = "use a smaller batch or tile"):
        super().__init__(f"{what}; {remedy}")
        self.what = what


class UsageError(UserError):
    """The command line itself is wrong (exit code 2, as argparse uses)."""

    exit_code = 2
