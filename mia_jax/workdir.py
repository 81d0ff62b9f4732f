"""The files of a run: atomic writes, stage folders that remember their config, and readers that say what is wrong with a file.

A file is written under a temporary name and renamed, so that it is either absent or whole. No pickle is ever loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping

import numpy as np

Path = pathlib.Path


def write(path: Path, save: Callable) -> None:
    """Calls save(file) on a temporary file beside `path` and renames it: atomic on one file system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            save(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Atomic text file."""
    write(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value) -> None:
    """Atomic JSON file; NaN and infinities are refused (null is the word for 'no number')."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, default=_plain) + "\n")


def write_npy(path: Path, array: np.ndarray) -> None:
    """Atomic .npy file."""
    write(path, lambda file: np.save(file, array, allow_pickle=False))


def write_npz(path: Path, **arrays) -> None:
    """Atomic .npz file."""
    write(path, lambda file: np.savez(file, **arrays))


def read_json(path: Path):
    """The JSON value of a file; ValueError with the remedy if it is damaged."""
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(damaged(path, error)) from error


def read_npy(path: Path, *, mmap: bool = False) -> np.ndarray:
    """The array of a .npy file, memory-mapped on request; ValueError with the remedy if it is damaged."""
    try:
        return np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(damaged(path, error)) from error


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz file; ValueError with the remedy if it is damaged (every member's checksum is verified)."""
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise
    except (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(damaged(path, error)) from error


def damaged(path: Path, error: Exception) -> str:
    """What to tell a person about a file that cannot be read."""
    return f"{path} is damaged ({error}). Delete it and type the same command again: only what it held is made anew."


def append_jsonl(path: Path, records) -> None:
    """Appends one JSON object a line in one write (O_APPEND: several processes may write the same file)."""
    text = "".join(json.dumps(r, default=_plain) + "\n" for r in records)
    if text:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def _plain(value):
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def flat(config: Mapping, prefix: str = "") -> dict[str, object]:
    """{'a.b': value} of nested mappings; values in their JSON form."""
    found = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = json.loads(json.dumps(value, default=_plain))
    return found


def differences(old: Mapping, new: Mapping) -> list[str]:
    """Lines 'key: old on disk, new in this run' for every key that differs."""
    old, new, absent = flat(old), flat(new), "(absent)"
    keys = [k for k in {**old, **new} if old.get(k, absent) != new.get(k, absent)]
    return [f"{k}: {old.get(k, absent)!r} on disk, {new.get(k, absent)!r} in this run" for k in keys]


def claim(folder: Path, config: Mapping, *, remedy: str) -> None:
    """Makes the folder this config's own: writes config.json the first time, ValueError naming the differing keys if it is another's."""
    path = folder / "config.json"
    if path.exists():
        lines = differences(read_json(path), config)
        if lines:
            raise ValueError(f"{folder} belongs to another config:\n  " + "\n  ".join(lines) + f"\n{remedy}")
    else:
        write_json(path, config)


def set_aside(folder: Path) -> Path | None:
    """Renames a folder to the first free 'name.1', 'name.2', ...; nothing is overwritten. None if there is no such folder."""
    if not folder.exists():
        return None
    number = 1
    while (target := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    os.rename(folder, target)
    return target


def digest(*values) -> str:
    """16 hex digits of sha256 over JSON values and arrays (dtype, shape and bytes)."""
    state = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            state.update(f"{value.dtype.str}{value.shape}".encode())
            state.update(np.ascontiguousarray(value).tobytes())
        else:
            state.update(json.dumps(value, sort_keys=True, default=_plain).encode())
    return state.hexdigest()[:16]
