"""Running as a job of a cluster: a share of the work (--task=i/n), and a pause at the next safe
place when the scheduler asks for it.

A run is resumable by starting the same command again, so a job that was preempted needs no more
than that. On SIGTERM, SIGUSR1 or Ctrl-C training writes its state after the epoch that runs,
questions are stopped after their batch, everything else is interrupted where it is (a file is
absent or whole), and the process ends with code PAUSED. Where a safe place does not come in time,
the process ends without one: what is on disk is enough.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence

PAUSED = 75  # EX_TEMPFAIL: start the same command again
SIGNALS = ("SIGTERM", "SIGUSR1", "SIGINT")
MENDABLE = (
    ValueError,
    OSError,
    FloatingPointError,
    MemoryError,
)  # errors whose message says what a user can mend
GRACE = 20.0  # seconds until a safe place must have come; clusters give 30 and more
# seconds in which a second signal is the first one that came twice, to the process and to its group
TOGETHER = 0.5
SAVING = 60.0  # seconds that a safe place may take to write what it has


class Paused(Exception):
    """The run was asked to stop and what it has done is on disk."""


class Pause:
    """Whether the run was asked to stop. Calling it, as is done at safe places, raises Paused then.

    `listen` makes signals ask. A signal interrupts the main thread at once, unless it is within
    `deferred`, where safe places are called. A second signal, or GRACE seconds without a safe
    place, end the process. That is watched by a thread of its own, because Python runs the handlers
    of signals in the main thread only, and not before a long call of a library (a compilation, a
    sort) has returned.
    """

    def __init__(
        self,
        *,
        grace: float = GRACE,
        saving: float = SAVING,
        leave: Callable[[int], None] | None = None,
    ):
        self.asked, self.grace, self.saving, self.leave = (
            False,
            grace,
            saving,
            leave or globals()["leave"],
        )
        self._deferred, self._told, self._safe = 0, threading.Event(), threading.Event()

    def listen(self) -> None:
        """Installs the handlers; only the main thread may."""
        read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for name in SIGNALS:
            signal.signal(getattr(signal, name), self._interrupt)
        threading.Thread(target=self._watch, args=(read,), name="signals", daemon=True).start()

    def __call__(self) -> None:
        """Raises Paused if the run was asked to stop."""
        if self.asked:
            self._safe.set()
            raise Paused

    @contextlib.contextmanager
    def deferred(self):
        """Within it a signal does not interrupt: the safe places that are called there end the
        run.
        """
        self._deferred += 1
        try:
            yield
        finally:
            self._deferred -= 1
        self()

    def _interrupt(self, number, frame) -> None:
        """Returns the handler in the main thread."""
        del number, frame
        self.asked = True
        self._told.wait(0.2)  # the other thread says so: here a line on stderr may be half written
        if not self._deferred:
            self()

    def _watch(self, read: int) -> None:
        """Returns the thread that hears every signal when it comes, whatever the main thread
        does.
        """
        number = self._next(read)
        self.asked, first = True, time.monotonic()
        threading.Thread(target=self._timed, name="grace", daemon=True).start()
        say(
            f"{signal.Signals(number).name}: stopping at the next safe place, within "
            f"{self.grace:.0f} s; once more stops at once."
        )
        self._told.set()
        while time.monotonic() - first < TOGETHER:
            number, came = self._next(read), time.monotonic()
            if came - first >= TOGETHER:
                break
        else:
            number = self._next(read)
        say(
            f"{signal.Signals(number).name} again: stopped at once. What is on disk is kept; start "
            "the same command again."
        )
        self.leave(128 + number)

    def _next(self, read: int) -> int:
        """Returns the number of the next signal among SIGNALS."""
        while (number := os.read(read, 1)[0]) not in {getattr(signal, name) for name in SIGNALS}:
            pass
        return number

    def _timed(self) -> None:
        """Ends the process if no safe place comes, or takes too long."""
        came = self._safe.wait(self.grace)
        if came:
            threading.Event().wait(self.saving)
        what = (
            f"what a safe place writes takes more than {self.saving:.0f} s"
            if came
            else f"no safe place came in {self.grace:.0f} s"
        )
        say(
            f"paused: {what}; the run goes on from what is on disk when the same command is "
            "started again."
        )
        self.leave(PAUSED)


def deferred(pause: Callable):
    """Returns `pause.deferred()` of a Pause; for any other callable a context that does nothing."""
    return getattr(pause, "deferred", contextlib.nullcontext)()


def say(text: str, *, file=None) -> None:
    """Returns a line on stderr (or `file`), if that is there and takes it: no run ends because
    nobody can read what it says.
    """
    file = sys.stderr if file is None else file
    with contextlib.suppress(
        OSError, ValueError, AttributeError
    ):  # a full disk or a broken pipe, a closed stream, none
        file.write(text + "\n")
        file.flush()


def failure(error: Exception) -> str:
    """Returns what a part of a run failed with, in words, so that the other parts can go on; of an
    error that is a fault of this project its traceback is printed as well.
    """
    if not isinstance(error, MENDABLE):
        say("".join(traceback.format_exception(error)).rstrip())
    return f"{error}".strip() or type(error).__name__


def leave(code: int) -> None:
    """Ends the process now: no thread, and no device that computes or waits, is waited for."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def task(text: str) -> tuple[int, int] | None:
    """Returns (i, n) of 'i/n', 0 <= i < n; None of ''. ValueError otherwise.

    >>> task('3/8')
    (3, 8)
    """
    if not text:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise ValueError(
            f"--task={text}: expected i/n with 0 <= i < n, as in --task=0/8, the first of eight "
            "shares."
        )
    return int(match[1]), int(match[2])


def share(items: Sequence, task: tuple[int, int] | None, *, block: int = 1) -> list:
    """Returns the items of one task: blocks of `block` neighbors are dealt out in turn; all items
    without a task.

    >>> share(range(10), (1, 2), block=2)
    [2, 3, 6, 7]
    """
    if task is None:
        return list(items)
    return [item for i, item in enumerate(items) if i // block % task[1] == task[0]]
