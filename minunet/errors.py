"""The errors a user can cause, and the exit codes they lead to.

Every such error is one line: the file or argument, what is wrong with it, and the remedy.
"""

from __future__ import annotations


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
