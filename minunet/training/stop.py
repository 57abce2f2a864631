"""What Ctrl-C does to a run: the step ends, and the run with it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Stoppable(Protocol):
    """What runs in steps, and looks before each whether it is to stop."""

    stopped: bool


@contextmanager
def stop_on_signal(trainer: Stoppable, say: Callable[[str], None]) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) lets the step end and stops; a second one stops at once."""

    def stop(number: int, frame: Any) -> None:
        if trainer.stopped:
            raise KeyboardInterrupt
        trainer.stopped = True
        say("stopping after this step (again: stop at once, losing what was not saved)")

    try:
        before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: there, signals are somebody else's business
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
