"""The files of a run: atomic writes, stage folders that remember their config, and readers that say
what is wrong with a file.

Where each file of a workdir is: mia_jax/runtime/store.py.

A file is written under a temporary name and renamed, so that it is either absent or whole; it
carries a checksum and a record of what it belongs to (mia_jax/runtime/sealed.py). Files are
readable by their user alone: they tell who was a member. No pickle is ever loaded.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import pathlib
import re
import secrets
import socket
import time
from collections.abc import Callable, Mapping

import numpy as np

from mia_jax.runtime import sealed

Path = pathlib.Path
FILE_MODE, FOLDER_MODE = 0o600, 0o700
CLAIM = "config.json"  # which config a folder belongs to
ANEW = "Delete it and type the same command again: only what it held is made anew."
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_NEW = os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
OLD = 2 * 86400.0  # seconds after which a temporary file of another machine is of a dead process
_TEMPORARY = re.compile(r"\..*\.(?P<machine>[0-9a-f]{8})\.(?P<process>\d+)\.[0-9a-f]{8}\.tmp")


def make_folder(folder: Path) -> None:
    """Creates a folder and its parents for this user alone; those that exist are left as they
    are.
    """
    if not folder.is_dir():
        for path in reversed([folder, *folder.parents]):
            if not path.exists():
                path.mkdir(mode=FOLDER_MODE, exist_ok=True)


def private_folder(folder: Path, *, ours: bool) -> str:
    """Creates a folder of files that are executed when they are read; returns a warning if other
    users can write to it, else ''.

    `ours`: one that exists and belongs to this user is closed to all others.
    """
    try:
        make_folder(folder)
        status = folder.stat()
        if ours and status.st_uid == os.getuid() and status.st_mode & 0o077:
            folder.chmod(FOLDER_MODE)
        elif status.st_mode & 0o022:
            return (
                f"warning: other users can write to {folder}, and what is in it is executed; close "
                "it with chmod go-w."
            )
    except OSError:
        pass  # a cache that cannot be had is no error
    return ""


def write(path: Path, save: Callable) -> None:
    """Calls save(file) on a temporary file beside `path` and renames it: atomic on one file system.

    An OSError names the file.
    """
    temporary = _temporary(path, save)
    try:
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def create(path: Path, save: Callable) -> bool:
    """Returns `write`, but only if there is no such file: False if another process was first."""
    temporary = _temporary(path, save)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        try:
            descriptor = os.open(path, os.O_WRONLY | _NEW, FILE_MODE)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "wb") as file:
            save(file)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _temporary(path: Path, save: Callable) -> Path:
    """Returns a finished file of a new name beside `path`.

    The name has machine, process and random letters: containers have equal process numbers.
    """
    make_folder(path.parent)
    temporary = path.with_name(
        f".{path.name[:120]}.{machine()}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    )
    descriptor = os.open(temporary, os.O_WRONLY | _NEW, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            save(file)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno is not None and error.filename is None:  # a full disk does not say which
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


@functools.cache
def machine() -> str:
    """Returns 8 hex digits of this machine, its start, and this container's processes: where a
    process number means the same process.
    """
    parts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        try:
            parts.append(read())
        except OSError:
            pass
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:8]


def sweep(folder: Path) -> list[Path]:
    """Removes the temporary files of dead processes under `folder` and returns them: those of this
    machine whose process is gone, and old ones.
    """
    gone = []
    for place, _, names in os.walk(folder):
        for name in names:
            match = _TEMPORARY.fullmatch(name)
            path = Path(place) / name
            try:
                if match and (_dead(match) or time.time() - path.lstat().st_mtime > OLD):
                    path.unlink()
                    gone.append(path)
            except OSError:
                continue  # another process was faster, or the disk is read-only
    return gone


def _dead(match: re.Match) -> bool:
    if match["machine"] != machine():
        return False
    try:
        os.kill(int(match["process"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return False


def write_text(path: Path, text: str) -> None:
    """Atomic text file."""
    write(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value, *, seal: bool = False) -> None:
    """Atomic JSON file; NaN and infinities are refused (null is the word for 'no number').

    `seal`: an object, with a checksum as its last key.
    """
    write_text(path, _json_text(sealed.seal(value) if seal else value))


def _json_text(value) -> str:
    return json.dumps(value, indent=1, allow_nan=False, default=sealed.plain) + "\n"


def write_npy(path: Path, array: np.ndarray, record: Mapping | None = None) -> None:
    """Atomic .npy file with its checksum, and with a record of what it belongs to."""
    write(path, lambda file: sealed.save_npy(file, array, record or {}))


def write_npz(path: Path, /, record: Mapping | None = None, **arrays) -> None:
    """Atomic .npz file, with a record of what it belongs to."""
    write(path, lambda file: sealed.save_npz(file, arrays, record))


def read_json(path: Path, *, needs: Mapping[str, type | tuple] | None = None, remedy: str = ANEW):
    """Returns the JSON value of a file; ValueError with the remedy if it is damaged.

    With `needs` {key: type} it must be an object that has these.
    """
    try:
        text = path.read_text(encoding="utf-8")
        value = sealed.json_value(text)
        if isinstance(value, dict) and sealed.SEAL in value and not text.endswith("\n"):
            raise ValueError("its last byte is lost")
        if needs is not None:
            if not isinstance(value, dict):
                raise ValueError(f"it holds a {type(value).__name__}, expected an object")
            value = sealed.unseal(value)
            for key, kind in needs.items():
                if key not in value:
                    raise ValueError(
                        f"it has no {key!r}; its keys are {', '.join(map(repr, value)) or 'none'}"
                    )
                if not isinstance(value[key], kind) or (
                    isinstance(value[key], bool) and kind is not bool
                ):
                    raise ValueError(f"{key} is {value[key]!r}")
        return value
    except (ValueError, IsADirectoryError) as error:
        raise ValueError(damaged(path, error, remedy=remedy)) from error


def read_npy(path: Path, *, record: Mapping = {}, remedy: str = ANEW) -> np.ndarray:
    """Returns the array of a .npy file; ValueError with the remedy if it is damaged, or belongs to
    another place than `record` says.
    """
    return _read_npy(path, record=record, remedy=remedy)[0]


def read_npy_and_record(
    path: Path, *, record: Mapping = {}, remedy: str = ANEW
) -> tuple[np.ndarray, dict | None]:
    """Returns `read_npy`, and the whole record of the file: None if it was written without one."""
    return _read_npy(path, record=record, remedy=remedy)


def read_npz(path: Path, *, record: Mapping = {}, remedy: str = ANEW) -> dict[str, np.ndarray]:
    """Returns the arrays of a .npz file; ValueError with the remedy if it is damaged, or belongs to
    another place than `record` says.
    """
    return _read_npz(path, record=record, remedy=remedy)[0]


def read_npz_and_record(
    path: Path, *, record: Mapping = {}, remedy: str = ANEW
) -> tuple[dict[str, np.ndarray], dict | None]:
    """Returns `read_npz`, and the whole record of the file: None if it was written without one."""
    return _read_npz(path, record=record, remedy=remedy)


def read_digest(
    path: Path, *, record: Mapping = {}, without: str = "", whole: bool = False, remedy: str = ANEW
) -> str:
    """Returns 16 hex digits of the names, sizes and checksums of the arrays of a .npz file, but
    those whose names begin with `without`.

    Only the archive's directory and the record are read, unless `whole`. Raises like `read_npz`.
    """
    try:
        with open(path, "rb") as file:
            parts, stored = sealed.members(file)
            if whole:
                sealed.parse_npz(file)
    except (ValueError, IsADirectoryError) as error:
        raise ValueError(damaged(path, error, remedy=remedy)) from error
    _check_place(path, stored, record, remedy)
    return digest([part for part in parts if not (without and part[0].startswith(without))])


def _read_npy(path: Path, *, record: Mapping, remedy: str):
    try:
        array, stored = sealed.parse_npy(path.read_bytes())
    except (ValueError, IsADirectoryError) as error:
        raise ValueError(damaged(path, error, remedy=remedy)) from error
    _check_place(path, stored, record, remedy)
    return array, stored


def _read_npz(path: Path, *, record: Mapping, remedy: str):
    try:
        with open(path, "rb") as file:
            arrays, stored = sealed.parse_npz(file)
    except (ValueError, IsADirectoryError) as error:
        raise ValueError(damaged(path, error, remedy=remedy)) from error
    _check_place(path, stored, record, remedy)
    return arrays, stored


RUN = "another seed, data, design, model or learner"


def _check_place(path: Path, stored: Mapping | None, expected: Mapping, remedy: str) -> None:
    """Raises ValueError if the record of a file says that it belongs elsewhere; a file without a
    record is believed.
    """
    if stored is None:
        return
    wrong = [
        k
        for k, v in expected.items()
        if k in stored and stored[k] != json.loads(json.dumps(v, default=sealed.plain))
    ]
    if wrong:
        words = "; ".join(
            f"{k}: {stored[k]!r} in the file, {expected[k]!r} expected" + f" ({RUN})" * (k == "run")
            for k in wrong
        )
        raise ValueError(
            f"{path} belongs to another place ({words}). Was it copied from another run? {remedy}"
        )


def damaged(path: Path, error: Exception, *, remedy: str = ANEW) -> str:
    """Returns what to tell a person about a file that cannot be read."""
    reason = "it is a folder" if isinstance(error, IsADirectoryError) else str(error).rstrip(".")
    return f"{path} is damaged ({reason}). {remedy}"


def append_jsonl(path: Path, records) -> None:
    """Appends one JSON object a line in one write (O_APPEND: several processes may write the same
    file). A torn last line is ended first.
    """
    text = "".join(json.dumps(r, default=sealed.plain) + "\n" for r in records)
    if text:
        append(path, text.encode(), lines=True)


def append(path: Path, data: bytes, *, lines: bool = False) -> None:
    """Appends all of the bytes.

    `lines`: if a killed process left the last line torn, it is ended first.

    Links are not followed: in a folder that others can write, one could lead to any file of the
    user.
    """
    make_folder(path.parent)
    descriptor = os.open(
        path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), FILE_MODE
    )
    try:
        size = os.fstat(descriptor).st_size
        torn = lines and size and os.pread(descriptor, 1, size - 1) != b"\n"
        left = memoryview(b"\n" * bool(torn) + data)
        while left:  # a disk that is nearly full takes a part
            left = left[os.write(descriptor, left) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)


def read_jsonl(path: Path) -> list[dict]:
    """Returns the records of a file of `append_jsonl`; lines that a killed process left torn are
    skipped.
    """
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            value = sealed.json_value(line)
        except ValueError:
            continue
        records += [value] if isinstance(value, dict) else []
    return records


def flat(tree: Mapping, prefix: str = "") -> dict[str, object]:
    """Returns {'a.b': value} of nested mappings; values in their JSON form."""
    values: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = json.loads(json.dumps(value, default=sealed.plain))
    return values


def differences(old: Mapping, new: Mapping) -> list[str]:
    """Returns lines 'key: old on disk, new in this run' for every key that differs."""
    old, new, absent = flat(old), flat(new), "(absent)"
    keys = [k for k in {**old, **new} if old.get(k, absent) != new.get(k, absent)]
    return [
        f"{k}: {old.get(k, absent)!r} on disk, {new.get(k, absent)!r} in this run" for k in keys
    ]


def claimed(folder: Path) -> bool:
    """Returns whether a folder belongs to a config already."""
    return (folder / CLAIM).exists()


def check_claim(folder: Path, settings: Mapping, *, remedy: str) -> None:
    """Raises ValueError that lists the differing keys if the folder belongs to other settings.

    A folder that nothing has claimed is not changed.
    """
    path = folder / CLAIM
    if path.is_symlink() and not path.exists():
        raise ValueError(damaged(path, ValueError("it is a link to nowhere")))
    if path.exists():
        lines = differences(read_json(path, needs={}), settings)
        if lines:
            raise ValueError(
                f"{folder} belongs to another config:\n  " + "\n  ".join(lines) + f"\n{remedy}"
            )


def claim(folder: Path, settings: Mapping, *, remedy: str) -> bool:
    """Claims the folder for these settings: writes config.json if there is none.

    Of two processes that begin at the same time one is first; the other reads what it wrote.

    Returns:
        Whether this process was the first.

    Raises:
        ValueError: the folder belongs to other settings; the message lists the differing keys.
    """
    path = folder / CLAIM
    first = not path.exists() and create(
        path, lambda file: file.write(_json_text(settings).encode())
    )
    check_claim(folder, settings, remedy=remedy)
    return first


def set_aside(folder: Path) -> Path | None:
    """Renames a folder to the first free 'name.1', 'name.2', ...; nothing is overwritten.

    None if there is no such folder.
    """
    if not folder.exists():
        return None
    number = 1
    while (target := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    os.rename(folder, target)
    return target


def digest(*values) -> str:
    """Returns 16 hex digits of sha256 over JSON values and arrays (dtype, shape and bytes)."""
    state = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            state.update(f"{value.dtype.str}{value.shape}".encode())
            state.update(np.ascontiguousarray(value).tobytes())
        else:
            state.update(json.dumps(value, sort_keys=True, default=sealed.plain).encode())
    return state.hexdigest()[:16]
