"""Keeps the finished pieces of a long stage on disk, so that it continues where it was interrupted.

A stage computes its pieces in a fixed order. Those of a stage that takes less than SAVE_EVERY
seconds are never written, unless it is asked to stop. Pieces are read again only if they were
computed from the same inputs by the same versions, and are removed when the stage is done.
"""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from mia_jax.runtime import files, jobs, trees

Path = pathlib.Path
T = TypeVar("T")
SAVE_EVERY = 30.0  # seconds


class Piece(Protocol):
    """Describes how a stage computes a piece: piece(name, compute) returns compute()."""

    def __call__(self, name: str, compute: Callable[[], T]) -> T: ...


def unkept(name: str, compute: Callable[[], T]) -> T:
    """Returns compute(): the piece is not kept."""
    del name
    return compute()


class Pieces:
    """Keeps pieces in a folder; `pieces(name, compute)` returns what is kept, or computes it.

    Args:
        folder: the folder of the pieces.
        made_from: what determines them; pieces that were made from something else are not read.
        kinds: the NamedTuples and dataclasses that pieces may hold.
        pause: called after each piece; it may raise jobs.Paused to end the run.
        begin: called before the first file is written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        made_from: Mapping[str, Any],
        kinds: Sequence[type] = (),
        pause: Callable[[], None] = lambda: None,
        begin: Callable[[], None] = lambda: None,
    ):
        self.folder, self.kinds, self.pause, self.begin = folder, tuple(kinds), pause, begin
        self.record = dict(pieces=files.digest(made_from))
        self.unsaved: dict[str, Any] = {}
        self.saved = time.monotonic()

    def __call__(self, name: str, compute: Callable[[], T]) -> T:
        """Returns the piece of this name, which is different for every piece of the stage."""
        known = self._read(name)
        if known is not None:
            return known[0]
        try:
            value = trees.contiguous(compute())
            self.unsaved[name] = value
            self.pause()
        except jobs.Paused:
            self.save()
            raise
        if time.monotonic() - self.saved > SAVE_EVERY:
            self.save()
        return value

    def save(self) -> None:
        """Writes the pieces that are not on disk."""
        if self.unsaved:
            self.begin()
        for name in list(self.unsaved):
            path = self._path(name)
            with contextlib.suppress(TypeError):  # no form in a file: it is computed again
                trees.write(path, self.unsaved[name], record=self.record, kinds=self.kinds)
            del self.unsaved[name]
        self.saved = time.monotonic()

    def discard(self) -> None:
        """Removes all pieces: the stage is done."""
        self.unsaved = {}
        discard(self.folder)

    def _path(self, name: str) -> Path:
        return self.folder.joinpath(f"{name}.npz")

    def _read(self, name: str) -> tuple[Any] | None:
        """Returns (piece,) if it is on disk and was made from the same, else None."""
        path = self._path(name)
        if not path.exists():
            return None
        try:
            return (trees.read(path, record=self.record, kinds=self.kinds),)
        except ValueError:  # damaged, or of other inputs: it is computed and written again
            return None


def discard(folder: Path) -> None:
    """Removes a folder of pieces, if there is one."""
    for path in folder.glob("*.npz"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # absent, or with a temporary file of another process
        folder.rmdir()
