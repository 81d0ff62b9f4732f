"""One JSON object per line, {"step": 3, "loss/mean": 0.25}, appended to metrics.jsonl."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

from mia_jax.runtime import files, store


class Lines:
    """Appends the numbers of every step as one line; several processes may append at once."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def log(self, step: int, values: Mapping) -> None:
        """Appends one line."""
        files.append_jsonl(self.path, [dict(step=int(step)) | dict(values)])

    def close(self) -> None:
        """Does nothing: every line is written at once."""


def make(*, folder: pathlib.Path | None) -> Lines:
    """Makes a tracker of lines in `folder`.

    Raises:
        ValueError: there is no folder.
    """
    if folder is None:
        raise ValueError("the tracker 'jsonl' writes a file and needs a folder: pass folder=.")
    return Lines(store.tracked_lines(folder))
