"""Running as a job of a cluster: a share of the work (--task=i/n), and a pause at the next safe place when the scheduler asks for it.

A run is resumable by starting the same command again, so a job that was preempted needs no more than that. On SIGTERM, SIGUSR1 or Ctrl-C training
writes its state after the epoch that runs, a query stops after its batch, and the process ends with code PAUSED.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Sequence

PAUSED = 75  # EX_TEMPFAIL: start the same command again
SIGNALS = ("SIGTERM", "SIGUSR1", "SIGINT")


class Paused(Exception):
    """The run was asked to stop and what it has done is on disk."""


class Pause:
    """Whether the run was asked to stop. `listen` makes signals ask; a second one ends the process at once."""

    def __init__(self):
        self.asked = False

    def listen(self) -> None:
        """Installs the handlers; only the main thread may."""
        for name in SIGNALS:
            signal.signal(getattr(signal, name), self._hear)

    def _hear(self, number, frame) -> None:
        del frame
        name = signal.Signals(number).name
        if self.asked:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.asked = True
        print(f"{name}: stopping at the next epoch or batch; once more stops at once.", file=sys.stderr, flush=True)

    def check(self) -> None:
        """Raises Paused if the run was asked to stop."""
        if self.asked:
            raise Paused


def task(text: str) -> tuple[int, int] | None:
    """(i, n) of 'i/n', 0 <= i < n; None of ''. ValueError otherwise.

    >>> task('3/8')
    (3, 8)
    """
    if not text:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or int(found[1]) >= int(found[2]):
        raise ValueError(f"--task={text}: expected i/n with 0 <= i < n, as in --task=0/8, the first of eight shares.")
    return int(found[1]), int(found[2])


def share(items: Sequence, task: tuple[int, int] | None, *, block: int = 1) -> list:
    """The items of one task: blocks of `block` neighbors are dealt out in turn; all items without a task.

    >>> share(range(10), (1, 2), block=2)
    [2, 3, 6, 7]
    """
    if task is None:
        return list(items)
    return [item for i, item in enumerate(items) if i // block % task[1] == task[0]]
