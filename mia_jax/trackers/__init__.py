"""Trackers: where numbers go while something is trained, one tracker per file.

A tracker has two methods, and a module of this kind makes one of the folder that it may write to
(None where there is no folder):

```
make(*, folder: pathlib.Path | None) -> tracker         the argument may be left out
tracker.log(step: int, values: dict[str, float]) -> None
tracker.close() -> None
```

A module of your own is named with its dotted path, --tracker=my_pkg.my_tracker.
"""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from mia_jax import registry
from mia_jax.runtime import jobs


class Tracker(Protocol):
    """Defines what every tracker does."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the numbers of one step (an epoch), {name: number}."""

    def close(self) -> None:
        """Writes what is left; nothing is logged afterwards."""


class Trackers:
    """Passes numbers to several trackers, from any thread.

    A tracker that raises an error is named in a warning and not used any more: a network that is
    gone must not end a training.

    Args:
        trackers: {name: tracker}.

    >>> Trackers({}).log(1, {"loss": 0.5})
    """

    def __init__(self, trackers: Mapping[str, Tracker]):
        self.trackers, self.lock = dict(trackers), threading.Lock()

    def __bool__(self) -> bool:
        return bool(self.trackers)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Passes the numbers of one step to every tracker."""
        with self.lock:
            for name in list(self.trackers):
                self._try(name, lambda tracker: tracker.log(step, dict(values)))

    def close(self) -> None:
        """Closes every tracker; a second call does nothing."""
        with self.lock:
            for name in list(self.trackers):
                self._try(name, lambda tracker: tracker.close())
            self.trackers.clear()

    def _try(self, name: str, call: Callable[[Tracker], None]) -> None:
        try:
            call(self.trackers[name])
        except Exception as error:  # of a user's code, or of a network
            del self.trackers[name]
            jobs.say(
                f"warning: the tracker {name!r} failed and is not used any more "
                f"({type(error).__name__}: {' '.join(str(error).split())})."
            )


def make(
    given, *, place: Callable[[str], pathlib.Path] | None, argument: str = "tracker"
) -> Trackers:
    """Makes the trackers that a user chose; they write nothing before the first number.

    Args:
        given: None, a name ('tensorboard', 'my_pkg.my_tracker'), names with commas, an object with
            `log` and `close`, or a list of names and objects.
        place: place(name) -> the folder of a tracker's files; None where there is none.
        argument: what messages call `given`.

    Raises:
        ValueError: there is no such tracker, it cannot be made, or it is named twice.
    """
    trackers: dict[str, Tracker] = {}
    for choice in _listed(given):
        name = choice if isinstance(choice, str) else type(choice).__name__
        short = name.rpartition(".")[2]
        if short in trackers:
            raise ValueError(f"{argument}: two trackers are called {short!r}.")
        if isinstance(choice, str):
            folder = None if place is None else place(short)
            choice = registry.make("trackers", name, folder=folder)
        lacking = [method for method in ("log", "close") if not _has(choice, method)]
        if lacking:
            raise ValueError(
                f"{argument}: {name!r} has no {' and no '.join(lacking)}; a tracker has "
                "log(step, values) and close()."
            )
        trackers[short] = choice
    return Trackers(trackers)


def _listed(given) -> list:
    if given is None:
        return []
    parts = [given] if isinstance(given, str) or not isinstance(given, Sequence) else list(given)
    names = [part.split(",") if isinstance(part, str) else [part] for part in parts]
    listed = [part.strip() if isinstance(part, str) else part for group in names for part in group]
    return [part for part in listed if part != ""]


def _has(tracker, method: str) -> bool:
    return callable(getattr(tracker, method, None))
