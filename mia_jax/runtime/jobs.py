"""Runs as a job of a cluster: takes a share of the work (--task=i/n) and pauses at a safe place.

A run is resumed by starting the same command again, so a preempted job needs nothing else. On
SIGTERM, SIGUSR1 or Ctrl-C the process ends with code PAUSED:

- Training writes its state after the current epoch.
- Interactive queries stop after the current batch.
- All other work is interrupted at once. A file is either absent or complete.

If no safe place is reached in time, the process ends without one, and the files on disk suffice to
resume. Who skips what is done: training/fleet.py (finished models, states of models in training:
training/checkpoint.py), pipeline/query.py and pipeline/attack.py (files that are there).
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

from mia_jax.runtime import remote

PAUSED = 75  # EX_TEMPFAIL: start the same command again
SIGNALS = ("SIGTERM", "SIGUSR1", "SIGINT")
RELAY = "SIGUSR2"  # what a thread interrupts the main thread with, see Pause.ask
# The errors whose message says what a user can do about them.
MENDABLE = (ValueError, OSError, FloatingPointError, MemoryError)
# Seconds within which a safe place must be reached; clusters allow 30 or more before SIGKILL.
GRACE = 20.0
# A second signal within these seconds is taken for the first one, which schedulers may send both to
# the process and to its group.
TOGETHER = 0.5
SAVING = 60.0  # Seconds that a safe place may take to write its files.


class Paused(Exception):
    """Says that the run was asked to stop and that everything it has computed is on disk."""


class Pause:
    """Records whether the run was asked to stop; calling it at a safe place then raises Paused.

    `listen` installs the signal handlers. A signal interrupts the main thread at once, except
    within `deferred`, where the code calls this object at safe places. A second signal, or `grace`
    seconds without a safe place, end the process. A separate thread watches for this: Python runs
    signal handlers only in the main thread, and only after a long library call (a compilation, a
    sort) has returned.

    Args:
        grace: seconds within which a safe place must be reached.
        saving: seconds that a safe place may take to write its files.
        leave: leave(code) ends the process; None for `leave` of this file.
    """

    def __init__(
        self,
        *,
        grace: float = GRACE,
        saving: float = SAVING,
        leave: Callable[[int], None] | None = None,
    ):
        self.asked = False
        self.grace = grace
        self.saving = saving
        self.leave = leave or globals()["leave"]
        self._deferred = 0
        self._announced = threading.Event()
        self._safe = threading.Event()

    def listen(self) -> None:
        """Installs the signal handlers; must be called in the main thread."""
        read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for name in SIGNALS:
            signal.signal(getattr(signal, name), self._interrupt)
        threading.Thread(target=self._watch, args=(read,), name="signals", daemon=True).start()

    def hear(self) -> None:
        """Lets other threads `ask`; must be called in the main thread, after `listen`."""
        signal.signal(getattr(signal, RELAY), self._interrupt)

    def ask(self, why: str) -> None:
        """Asks the run to stop as a first signal does, from another thread.

        Args:
            why: who asks, for the message.
        """
        if self.asked:
            return
        self.asked = True
        threading.Thread(target=self._timed, name="grace", daemon=True).start()
        say(f"{why}: stopping at the next safe place, within {self.grace:.0f} s.")
        self._announced.set()
        main = threading.main_thread().ident
        if main is not None:
            signal.pthread_kill(main, getattr(signal, RELAY))

    def __call__(self) -> None:
        """Raises Paused if the run was asked to stop."""
        if self.asked:
            self._safe.set()
            raise Paused

    @contextlib.contextmanager
    def deferred(self):
        """Returns a context in which a signal does not interrupt but waits for a safe place."""
        with self.waiting():
            yield
        self()

    @contextlib.contextmanager
    def waiting(self):
        """Returns a context like `deferred`, whose end is no safe place."""
        self._deferred += 1
        try:
            yield
        finally:
            self._deferred -= 1

    def _interrupt(self, number, frame) -> None:
        """Handles a signal in the main thread."""
        del number, frame
        self.asked = True
        # The other thread prints the message, because a line of this one may be half written.
        self._announced.wait(0.2)
        if not self._deferred:
            self()

    def _watch(self, read: int) -> None:
        """Waits, in a thread of its own, for signals and ends the process at the second one.

        It receives every signal when it arrives, whatever the main thread is doing.
        """
        number = self._next(read)
        self.asked, first = True, time.monotonic()
        threading.Thread(target=self._timed, name="grace", daemon=True).start()
        say(
            f"{signal.Signals(number).name}: stopping at the next safe place, within "
            f"{self.grace:.0f} s; a second signal stops at once."
        )
        self._announced.set()
        while time.monotonic() - first < TOGETHER:
            number, came = self._next(read), time.monotonic()
            if came - first >= TOGETHER:
                break
        else:
            number = self._next(read)
        say(
            f"{signal.Signals(number).name} again: stopped at once. All files on disk are kept; "
            "start the same command again to resume."
        )
        self.leave(128 + number)

    def _next(self, read: int) -> int:
        """Returns the number of the next signal among SIGNALS."""
        while (number := os.read(read, 1)[0]) not in {getattr(signal, name) for name in SIGNALS}:
            pass
        return number

    def _timed(self) -> None:
        """Ends the process if no safe place is reached in time, or if saving takes too long."""
        came = self._safe.wait(self.grace)
        if came:
            threading.Event().wait(self.saving)
        what = (
            f"saving at a safe place takes more than {self.saving:.0f} s"
            if came
            else f"no safe place was reached in {self.grace:.0f} s"
        )
        say(f"paused: {what}; the same command resumes the run from the files on disk.")
        self.leave(PAUSED)


def deferred(pause: Callable):
    """Returns `pause.deferred()` of a Pause; for any other callable a context that does nothing."""
    return getattr(pause, "deferred", contextlib.nullcontext)()


def waiting(pause: Callable):
    """Returns `pause.waiting()` of a Pause; for any other callable a context that does nothing."""
    return getattr(pause, "waiting", contextlib.nullcontext)()


def say(text: str, *, file=None) -> None:
    """Prints a line on stderr, or on `file`, if that can be written.

    Files of a remote workdir have their addresses. A stream that is missing, closed or full never
    ends a run.
    """
    file = sys.stderr if file is None else file
    # OSError: a full disk or a broken pipe; ValueError: a closed stream; AttributeError: None.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        file.write(remote.named(text) + "\n")
        file.flush()


def failure(error: Exception) -> str:
    """Returns the message of an error that ended one part of a run, so that other parts can go on.

    An error that users cannot mend is a fault of this project; its traceback is printed as well.
    """
    if not isinstance(error, MENDABLE):
        say("".join(traceback.format_exception(error)).rstrip())
    return f"{error}".strip() or type(error).__name__


def leave(code: int) -> None:
    """Ends the process at once, without waiting for threads or for devices that still compute."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def task(text: str) -> tuple[int, int] | None:
    """Returns (i, n) of 'i/n', where 0 <= i < n; None of ''.

    >>> task('3/8')
    (3, 8)

    Raises:
        ValueError: the text is of another form.
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
    """Returns the items of one task.

    Blocks of `block` neighboring items are dealt out to the tasks in turn.

    >>> share(range(10), (1, 2), block=2)
    [2, 3, 6, 7]

    Args:
        items: the items of all tasks.
        task: (i, n) for task i of n; None for all items.
        block: how many neighboring items stay together.
    """
    if task is None:
        return list(items)
    return [item for i, item in enumerate(items) if i // block % task[1] == task[0]]
