"""Shows the progress of a stage: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time

import tqdm

from mia_jax.runtime import jobs


class Progress:
    """Counts the units of work of one stage and shows how many are done.

    On a terminal a bar shows the remaining time. Otherwise a line is printed at most every
    `seconds`, with the estimated remaining time.

    Args:
        title: the name of the stage.
        total: the number of units.
        unit: the name of a unit, in the singular.
        file: the stream; None for stderr.
        seconds: the time between two lines where there is no terminal.
        lines: False prints nothing where there is no terminal, for functions that a program calls.
    """

    def __init__(
        self,
        *,
        title: str,
        total: int,
        unit: str,
        file=None,
        seconds: float = 15.0,
        lines: bool = True,
    ):
        self.title, self.total, self.unit, self.seconds, self.lines = (
            title,
            total,
            unit,
            seconds,
            lines,
        )
        self.file = sys.stderr if file is None else file  # None if stderr is closed
        self.count, self.start = 0, time.monotonic()
        self.printed = self.start
        self.bar = (
            tqdm.tqdm(total=total, desc=title, unit=unit, file=self.file, leave=False)
            if terminal(self.file)
            else None
        )

    def advance(self, units: int, note: str = "") -> None:
        """Adds finished units, and shows `note` next to their number."""
        self.count += units
        if self.bar is not None:
            self.bar.set_postfix_str(note)
            self.bar.update(units)
            return
        now = time.monotonic()
        if self.lines and now - self.printed >= self.seconds and self.count < self.total:
            self.printed = now
            left = (now - self.start) / max(1, self.count) * (self.total - self.count)
            self.line(
                f"{self.title}: {self.count:,} of {self.total:,} {self.unit}s, about "
                f"{duration(left)} left" + (f" ({note})" if note else "")
            )

    def line(self, text: str) -> None:
        """Prints a sentence without breaking the bar; a stream that fails ends no run."""
        if self.bar is not None:
            self.bar.write(text, file=self.file)
        else:
            jobs.say(text, file=self.file)

    def close(self) -> float:
        """Ends the bar and returns the seconds since the start."""
        if self.bar is not None:
            self.bar.close()
        return time.monotonic() - self.start


def terminal(file) -> bool:
    """Returns whether a stream is a terminal; False for a closed one and for None."""
    try:
        return file.isatty()
    except (AttributeError, ValueError, OSError):
        return False


def duration(seconds: float) -> str:
    """Returns a number of seconds as text, such as '9 s', '3 min' or '2.5 h'.

    >>> duration(9), duration(180), duration(9000)
    ('9 s', '3 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 9.5 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(num_bytes: float) -> str:
    """Returns a number of bytes as text, such as '12 MB' or '3.4 GB'.

    >>> size(12e6), size(3.4e9)
    ('12 MB', '3.4 GB')
    """
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.3g} MB"
