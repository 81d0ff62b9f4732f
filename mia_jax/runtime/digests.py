"""Digests of the rows of a large file, computed once for a file and kept in the user's cache.

A file is known again by its path, size, number (inode) and times of change; the time of the last
change of the inode cannot be set by a program, so a file that was written again is read again.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable

import numpy as np

from mia_jax.runtime import files, store

Path = pathlib.Path
LEAST = 2**26  # bytes; the digests of smaller files are computed at every start


def of_file(path: Path, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Returns compute(), the digests of the rows of a file, or what it returned for the same file.

    Args:
        path: the file.
        compute: computes the digests.
    """
    before = identity(path)
    if before["size"] < LEAST:
        return compute()
    kept = store.kept_digests(files.digest(before))
    try:
        return files.read_npy_and_record(kept, record=before)[0]
    except (OSError, ValueError):
        pass  # There is none, or it is damaged.
    digests = compute()
    if identity(path) != before:
        raise ValueError(f"{path} has changed while it was read; start again.")
    try:
        files.private_folder(kept.parent, ours=True)
        files.write_npy(kept, digests, before)
    except OSError:
        pass  # A run also works without a cache.
    return digests


def identity(path: Path) -> dict:
    """Returns by what a file is known again."""
    status, whole = os.stat(path), str(Path(path).resolve())
    times = dict(changed=status.st_mtime_ns, inode_changed=status.st_ctime_ns)
    return dict(file=whole, size=status.st_size, inode=status.st_ino) | times
