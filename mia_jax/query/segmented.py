"""Keeps the answers of one model to one signal segment by segment, until all examples are asked.

A segment is a range of consecutive examples. Its answers are a file of its own with a checksum, in
signal/<name>/partial/, so that a run that was killed asks only for the segments that are not there.
When there are all of them, they are copied into signal/<name>/<model>.npy block by block and
deleted. No more than one segment is ever in memory.

Segments are files and not parts of one file that is mapped into memory for writing. So a full disk
is an error with a message (writing to a mapped file ends the process by a signal), a file is absent
or whole, and processes that work on the same model write the same bytes. Answers about all examples
at once, as of small pools, are written as the finished file.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from mia_jax import registry
from mia_jax.runtime import files, jobs, store

Path = pathlib.Path


class Segments:
    """Holds which segments of the answers of one model to one signal are on disk.

    Args:
        folder: the folder of the answers.
        name: the name of the signal.
        m: the number of the model.
        num_examples: N.
        record: what the finished file records: its place, and `asked`, the digest of the model.

    Raises:
        ValueError: a segment is damaged, or belongs to another run.
    """

    def __init__(self, folder: Path, name: str, m: int, *, num_examples: int, record: Mapping):
        self.answers, self.name, self.m = (
            store.Answers(folder),
            registry.identity("signals", name),
            m,
        )
        self.num_examples, self.record = num_examples, dict(record)
        self.path = self.answers.signal(self.name, m)
        self.finished = self.path.exists()
        self.parts: dict[tuple[int, int], Path] = {}
        for path in [] if self.finished else self.answers.segments(self.name, m):
            self._take(path)

    def _take(self, path: Path) -> None:
        """Reads which rows a segment holds; deletes it if another model answered."""
        place = {k: v for k, v in self.record.items() if k != "asked"}
        array, record = files.map_npy(path, record=place)
        record = record or {}
        if record.get("asked") != self.record["asked"]:
            jobs.say(f"query: {path} holds answers of another model {self.m}; it is asked again.")
            path.unlink(missing_ok=True)
            return
        start, stop = record.get("rows", (0, 0))
        if array.ndim < 2 or array.shape[1] != stop - start or not stop <= self.num_examples:
            error = ValueError(
                f"it holds an array of shape {list(array.shape)}, expected answers about the "
                f"examples {start} to {stop} of {self.num_examples}"
            )
            raise ValueError(files.damaged(path, error))
        self.parts[int(start), int(stop)] = path

    def has(self, start: int, stop: int) -> bool:
        """Returns whether the answers about the examples start .. stop - 1 are on disk."""
        return self.finished or (start, stop) in self.parts

    def add(self, start: int, value_AB: np.ndarray) -> None:
        """Writes the answers [A,B,..] about the examples from `start` on."""
        stop = start + value_AB.shape[1]
        if self.has(start, stop):
            return
        if stop - start == self.num_examples:
            files.write_npy(self.path, value_AB, self.record)
            self.finished = True
        else:
            path = self.answers.segment(self.name, self.m, start, stop)
            files.write_npy(path, value_AB, self.record | dict(rows=[start, stop]))
            self.parts[start, stop] = path

    def close(self) -> None:
        """Writes the finished file from the segments, and deletes them.

        Raises:
            ValueError: the segments do not cover all examples, or one is damaged.
        """
        if not self.finished:
            chosen = self._cover()
            place = {k: v for k, v in self.record.items() if k != "asked"}
            mapped = [files.map_npy(self.parts[rows], record=place)[0] for rows in chosen]
            views, rest, dtype = len(mapped[0]), mapped[0].shape[2:], mapped[0].dtype
            files.write_npy_parts(
                self.path,
                (part_AB[view] for view in range(views) for part_AB in mapped),
                shape=(views, self.num_examples, *rest),
                dtype=dtype,
                record=self.record,
            )
            self.finished = True
        self.discard()

    def _cover(self) -> list[tuple[int, int]]:
        """Returns segments that follow one another from the first example to the last."""
        chosen, at = [], 0
        while at < self.num_examples:
            following = [rows for rows in self.parts if rows[0] == at]
            if not following:
                raise ValueError(
                    f"the answers of model {self.m} to signal {self.name!r} lack example {at}; "
                    "type the same command again."
                )
            chosen.append(max(following))
            at = chosen[-1][1]
        return chosen

    def discard(self) -> None:
        """Deletes the segments."""
        for path in self.answers.segments(self.name, self.m):
            path.unlink(missing_ok=True)


def discard_finished(folder: Path, names: Iterable[str]) -> None:
    """Deletes the segments of finished files: a process was killed before it had deleted them."""
    answers = store.Answers(folder)
    for name in (registry.identity("signals", name) for name in names):
        for m in answers.segmented(name):
            if answers.signal(name, m).exists():
                for path in answers.segments(name, m):
                    path.unlink(missing_ok=True)


def rows_of(num_examples: int, length: int) -> Iterator[tuple[int, int]]:
    """Yields the ranges (start, stop) of `length` consecutive examples; the last may be shorter.

    >>> list(rows_of(10, 4))
    [(0, 4), (4, 8), (8, 10)]
    """
    for start in range(0, num_examples, length):
        yield start, min(start + length, num_examples)
