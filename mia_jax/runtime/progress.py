"""Progress for people: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time

import tqdm

from mia_jax.runtime import jobs


class Progress:
    """Counts `total` units of work of one stage; `advance` adds units, and `line` prints a sentence
    without breaking the bar.

    On a terminal a bar shows the remaining time; otherwise a line is printed at most every
    `seconds`, with the remaining time once it is known. Without `lines` nothing is printed where
    there is no terminal: the work of a function that a program calls.
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
        """Returns `units` more are done."""
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
        """Prints a sentence; where nothing can be printed the work goes on."""
        if self.bar is not None:
            self.bar.write(text, file=self.file)
        else:
            jobs.say(text, file=self.file)

    def close(self) -> float:
        """Ends the bar; returns the seconds since the start."""
        if self.bar is not None:
            self.bar.close()
        return time.monotonic() - self.start


def terminal(file) -> bool:
    """Returns whether a stream is a terminal; a closed one and None are not."""
    try:
        return file.isatty()
    except (AttributeError, ValueError, OSError):
        return False


def duration(seconds: float) -> str:
    """Returns '9 s', '3 min', '2.5 h'."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 9.5 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(num_bytes: float) -> str:
    """Returns '12 MB', '3.4 GB'."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.3g} MB"
