"""Keeps the finished pieces of a long stage on disk, so that it continues where it was interrupted.

A stage computes its pieces in a fixed order. Those of a stage that takes less than SAVE_EVERY
seconds are never written, unless it is asked to stop. Pieces are read again only if they were
computed from the same inputs by the same versions, and are removed when the stage is done.
"""

from __future__ import annotations

import concurrent.futures
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

    def each(self, computes: Mapping[str, Callable[[], T]]) -> list[T]:
        """Returns the pieces of these names, which do not depend on each other."""
        ...


class Unkept:
    """Computes pieces one after the other and keeps none."""

    def __call__(self, name: str, compute: Callable[[], T]) -> T:
        """Returns compute()."""
        del name
        return compute()

    def each(self, computes: Mapping[str, Callable[[], T]]) -> list[T]:
        """Returns the results of all."""
        return [compute() for compute in computes.values()]


unkept = Unkept()


class Named:
    """Computes pieces under names that begin with the name of a part of the stage.

    Args:
        piece: keeps them.
        part: the beginning of their names.
    """

    def __init__(self, piece: Piece, part: str):
        self.piece, self.part = piece, part

    def __call__(self, name: str, compute: Callable[[], T]) -> T:
        """Returns the piece of this name."""
        return self.piece(f"{self.part}.{name}", compute)

    def each(self, computes: Mapping[str, Callable[[], T]]) -> list[T]:
        """Returns the pieces of these names."""
        return self.piece.each({f"{self.part}.{name}": c for name, c in computes.items()})


class Pieces:
    """Keeps pieces in a folder; `pieces(name, compute)` returns what is kept, or computes it.

    Args:
        folder: the folder of the pieces.
        made_from: what determines them; pieces that were made from something else are not read.
        kinds: the NamedTuples and dataclasses that pieces may hold.
        pause: called after each piece; it may raise jobs.Paused to end the run.
        begin: called before the first file is written.
        workers: how many pieces of `each` are computed at a time, in threads: NumPy's sorts, sums
            and products of large arrays run beside each other.
    """

    def __init__(
        self,
        folder: Path,
        *,
        made_from: Mapping[str, Any],
        kinds: Sequence[type] = (),
        pause: Callable[[], None] = lambda: None,
        begin: Callable[[], None] = lambda: None,
        workers: int = 1,
    ):
        self.folder, self.kinds, self.pause, self.begin = folder, tuple(kinds), pause, begin
        self.workers = workers
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
            self._keep(name, value)
        except jobs.Paused:
            self.save()
            raise
        return value

    def _keep(self, name: str, value) -> None:
        self.unsaved[name] = value
        self.pause()
        if time.monotonic() - self.saved > SAVE_EVERY:
            self.save()

    def each(self, computes: Mapping[str, Callable[[], T]]) -> list[T]:
        """Returns the pieces of these names, which are computed `workers` at a time.

        They are computed by threads and kept by the caller's, in their order: files, pauses and
        errors are those of one after the other. No more pieces wait than threads work.
        """
        if self.workers == 1 or len(computes) == 1:
            return [self(name, compute) for name, compute in computes.items()]
        values: dict[str, Any] = {}
        running: dict[str, concurrent.futures.Future] = {}

        def take(name: str) -> None:
            values[name] = running.pop(name).result()
            self._keep(name, values[name])

        pool = concurrent.futures.ThreadPoolExecutor(self.workers)
        try:
            for name, compute in computes.items():
                known = self._read(name)
                if known is not None:
                    values[name] = known[0]
                    continue
                if len(running) == self.workers:
                    take(next(iter(running)))
                running[name] = pool.submit(lambda compute=compute: trees.contiguous(compute()))
            for name in list(running):
                take(name)
        except jobs.Paused:
            self.save()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        return [values[name] for name in computes]

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
