"""A process that begins runs of `minunet train` as children, to be killed at any step or at any stage of a write."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import textwrap
from pathlib import Path

# Reads orders, a JSON line each, and runs `minunet train` for each in a child: forked, since all imports are then done.
# A child that is told to stop at a stage kills itself when it gets there in its second or third write.
NURSERY = """
    import json, os, signal, sys
    import scipy.ndimage
    import safetensors.numpy
    from minunet import backends, checkpoint, cli, files, tiled, train
    from minunet.training import job, loop

    backends.available()  # imports them

    UNNAMED = ("half written", "written", "replaced")  # where arguments do not tell of which file

    def die_at(stage):
        calls = []

        def at(module, name, after=False):
            original = getattr(module, name)

            def instead(*arguments, **options):
                if not after:
                    count(arguments)
                result = original(*arguments, **options)
                if after:
                    count(arguments)
                return result

            setattr(module, name, instead)

        def count(arguments):
            ours = [a for a in arguments if "checkpoint" in str(a)] or stage in UNNAMED
            calls.append(1) if ours else None
            if len(calls) == (5 if stage == "written" else 3):  # that also counts fsync of log and folder
                os.kill(os.getpid(), signal.SIGKILL)

        if stage == "opened":
            at(files, "_held", after=True)
        elif stage == "half written":
            at(checkpoint, "_sha256")  # the numbers are written, their checksum is not
        elif stage == "written":
            at(os, "fsync")
        elif stage == "synced":
            at(files.Path, "replace")
        elif stage == "linked":
            at(os, "link", after=True)
        elif stage == "kept":
            at(checkpoint, "second_name", after=True)
        elif stage == "replaced":
            at(files, "_sync_folder")

    step, done = loop.Trainer.step, []

    def reported(self, batch):
        if len(done) == order["most"]:
            signal.pause()  # until the kill, however late it comes: no step more on a fast machine
        loss = step(self, batch)
        done.append(1)
        os.write(progress, b".")
        return loss

    progress = int(sys.argv[1])
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            os.dup2(2, 1)
            loop.Trainer.step = reported
            loop.SAVE_SECONDS = order["every"]
            die_at(order["stage"])
            os._exit(cli.run(train.main, order["argv"]))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Nursery:
    """Runs of `minunet train`, one after the other."""

    def __init__(self, log: Path):
        self.log = log
        self.progress, writes = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(NURSERY), str(writes)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log.open("w"), text=True, pass_fds=[writes],
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
        )  # fmt: skip
        os.close(writes)

    def start(self, argv: list[object], every: float = 0, stage: str = "", most: int | None = None) -> int:
        """Begin a run that saves each `every` seconds and waits to be killed after `most` steps; its process."""
        order = {"argv": [str(a) for a in argv], "every": every, "stage": stage, "most": most}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def wait(self) -> int:
        """The exit code of the run, once it has ended."""
        code = int(self.process.stdout.readline())
        while select.select([self.progress], [], [], 0)[0]:
            os.read(self.progress, 10_000)
        return code

    def steps(self, count: int) -> None:
        """Return when the run has done so many steps."""
        for _ in range(count):
            assert select.select([self.progress], [], [], 1200)[0], self.log.read_text()
            os.read(self.progress, 1)

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait(600)
        self.process.stdout.close()
        os.close(self.progress)
