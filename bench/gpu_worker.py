"""The GPU bench's sections in a process that can be lost: what one kernel breaks must not end the rest.

A kernel that writes where it must not ends CUDA for its whole process, and one that never returns holds it for ever.
So the command itself never touches the GPU. It hands section after section to a worker; where that is lost it starts
another one, which leaves out what broke the device, or which goes on with the next section where time is over.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from bench.gpu_device import Clock, Device, LostError, said

Section = Callable[[Device, Clock], Any]
GRACE = 15.0  # seconds beyond its time until a section is asked for what it has, and some more until it is killed
ANSWER = 5.0
START = 60.0  # seconds for a new process: it imports CuPy, and PyTorch where that is
LOSSES = 4  # of the device within one section, until it is given up


class Worker:
    """Runs sections, `with Worker(dry) as worker: worker.run(section, seconds)`."""

    def __init__(self, dry: bool):
        self.dry = dry
        self.process: Any = None
        self.connection: Connection | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, section: Section, seconds: float) -> dict[str, Any]:
        """{"result": what the section found} or {"failed": why, "result": what it had by then, if anything}."""
        clock, broke = Clock(seconds), {}
        while True:
            kind, *content = self._ask(section, max(1.0, seconds - clock.spent()), broke)
            if kind == "found":
                return content[0]
            self._end()
            if kind != "lost":
                return content[0]
            name, why = content
            if name in broke or len(broke) == LOSSES or clock.over():
                return {"failed": f"{name}: {why}; the device was lost {len(broke) + 1} times, and time is over"}
            broke[name] = f"{why}; the device was lost"

    def _ask(self, section: Section, seconds: float, broke: dict[str, str]) -> tuple[Any, ...]:
        """A worker's answer, or what stands for it where none comes."""
        wait = seconds + GRACE + ANSWER
        if self.connection is None:
            wait += START
            self._begin()
        try:
            self.connection.send((section, seconds, broke))
            if self.connection.poll(wait):
                return self.connection.recv()
        except (EOFError, ConnectionError, pickle.PickleError) as error:
            self.process.join(ANSWER)
            return "gone", {"failed": f"its process ended, exit code {self.process.exitcode} ({said(error)})"}
        return "gone", {"failed": f"did not end within {wait:.0f} s, and did not say where it was"}

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.dry))
        self.process.start()
        theirs.close()

    def _end(self) -> None:
        """End the worker with all that it started."""
        if self.connection is None:
            return
        self.connection.close()  # an idle one leaves by itself
        self.process.join(ANSWER)
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError):  # nobody of its group is left
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.connection = self.process = None


def _serve(connection: Connection, dry: bool) -> None:
    """The worker: sections come in, answers go out, until the other end is closed."""
    if hasattr(os, "setsid"):
        os.setsid()  # so that what it starts, PyTorch's compilers for example, can be ended with it
    device = None
    while True:
        try:
            section, seconds, broke = connection.recv()
        except EOFError:
            return
        device = device or Device(dry)
        device.start(broke)
        lock = threading.Lock()  # one answer for each question
        late = threading.Timer(seconds + GRACE, _late, (connection, lock, device))
        late.daemon = True
        late.start()
        answer = _answer(section, device, Clock(seconds))
        late.cancel()
        with lock:
            connection.send(answer)


def _answer(section: Section, device: Device, clock: Clock) -> tuple[Any, ...]:
    try:
        device.wait()
        found = {"result": section(device, clock)}
    except LostError as error:
        return "lost", error.name, error.why
    except Exception as error:  # the other sections must still run
        traceback.print_exc()
        found = {"failed": said(error)}
    try:
        device.wait()
    except Exception as error:
        return "gone", {**found, "failed": f"{found.get('failed', 'at its end')}; the device was lost ({said(error)})"}
    return "found", found


def _late(connection: Connection, lock: threading.Lock, device: Device) -> None:
    """The section is beyond its time: say what it has and where it is, for the last time."""
    with lock:
        connection.send(("gone", {"failed": f"did not end in time, at: {device.at}", "result": dict(device.found)}))
        os._exit(1)
