"""What is computed of the rows of large files, once, and kept in the user's cache.

A file is known again by its path, size, number (inode) and times of change; the time of the last
change of the inode cannot be set by a program, so a file that was written again is read again.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from mia_jax.runtime import files, store

Path = pathlib.Path
LEAST = 2**26  # bytes of all files; what is computed of less is computed at every start


class Origin(NamedTuple):
    """Says from which files rows were read, as they were before.

    Attributes:
        paths: the files.
        known: by what each file is known again.
        how: the settings of the reader on which the rows depend.
    """

    paths: tuple[Path, ...]
    known: tuple[Mapping, ...]
    how: str


def origin(*paths: Path, how: str = "") -> Origin:
    """Returns the origin of what is read from files; to be called before they are read.

    Args:
        *paths: the files.
        how: the settings of the reader on which the rows depend.
    """
    return Origin(tuple(map(Path, paths)), tuple(identity(path) for path in paths), how)


def kept(place: Origin, what: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Returns compute(), or what it returned for the same files.

    Args:
        place: the files of which it is computed.
        what: what is computed, such as 'digests'.
        compute: computes an array of numbers.

    Raises:
        ValueError: a file has changed since `origin`.
    """
    if sum(known["size"] for known in place.known) < LEAST:
        return compute()
    record = dict(files=files.digest(*place.known), how=place.how, what=what)
    kept_file = store.kept_digests(files.digest(record))
    try:
        return files.read_npy_and_record(kept_file, record=record)[0]
    except (OSError, ValueError):
        pass  # There is none, or it is damaged.
    computed = compute()
    unchanged(place)
    try:
        files.private_folder(kept_file.parent, ours=True)
        files.write_npy(kept_file, computed, record)
    except OSError:
        pass  # A run also works without a cache.
    return computed


def unchanged(place: Origin, number: int | None = None) -> None:
    """Raises ValueError if a file, or file `number`, is not what it was before it was read."""
    some = slice(None) if number is None else slice(number, number + 1)
    for path, known in zip(place.paths[some], place.known[some], strict=True):
        if not path.is_file() or identity(path) != known:
            raise ValueError(
                f"{path} has changed while it was read; start again, when nobody writes to it."
            )


def identity(path: Path) -> dict:
    """Returns by what a file is known again."""
    status, whole = os.stat(path), str(Path(path).resolve())
    times = dict(changed=status.st_mtime_ns, inode_changed=status.st_ctime_ns)
    return dict(file=whole, size=status.st_size, inode=status.st_ino) | times
