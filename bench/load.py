"""Whether other programs were running meanwhile: their threads make every time worse, and not all alike.

Threads that wait by spinning (PyTorch's, ncnn's) lose more on a busy machine than threads that sleep (ours), so that
ratios from a busy machine flatter.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

BUSY = 0.03  # share of the processors that others may have, e.g. 7 % of one core of two
_STAT = Path("/proc/stat")


class Others:
    """Share of all processors' time that went to others since this object was made; None where Linux does not tell."""

    def __init__(self) -> None:
        self.begin, self.before = time.perf_counter(), self._seconds()

    def share(self) -> float | None:
        after = self._seconds()
        if self.before is None or after is None:
            return None
        passed = (time.perf_counter() - self.begin) * (os.cpu_count() or 1)
        return round(max(0.0, after - self.before) / passed, 3)

    @staticmethod
    def _seconds() -> float | None:
        """Processor seconds of everybody, stolen by other virtual machines included, less ours and our children's."""
        if not _STAT.is_file():
            return None
        user, nice, system, _, _, irq, soft, steal, *_ = map(int, _STAT.read_text().splitlines()[0].split()[1:])
        everybody = (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
        return everybody - sum(os.times()[:4])
