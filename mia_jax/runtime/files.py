"""Reads and writes the files of a run: atomic writes, claimed folders, and readers that verify.

The paths of a workdir are defined in mia_jax/runtime/store.py.

A file is written under a temporary name and renamed, so that it is either absent or complete. It
has a checksum and a record of what it belongs to (mia_jax/runtime/sealed.py). Files are readable by
their user only, because they reveal the training members. A pickle is never loaded.
"""

from __future__ import annotations

import contextlib
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
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from mia_jax.runtime import remote, sealed, stacks

Path = pathlib.Path
FILE_MODE, FOLDER_MODE = 0o600, 0o700
CLAIM = "config.json"  # Says to which config a folder belongs.
RECOMPUTE = "Delete it and type the same command again: only what it held is computed again."
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_NEW = os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
OLD = 2 * 86400.0  # Seconds after which the process of a temporary file is taken for dead.
_TEMPORARY = re.compile(r"\..*\.(?P<machine>[0-9a-f]{8})\.(?P<process>\d+)\.[0-9a-f]{8}\.tmp")


def folder_at(path: str | Path, *, argument: str) -> Path:
    """Returns the local folder that a user named, with '~' expanded.

    >>> str(folder_at("runs/quickstart", argument="--workdir"))
    'runs/quickstart'

    Args:
        path: what the user gave.
        argument: what the user calls it, such as '--workdir'.

    Raises:
        ValueError: it is the address of a remote store. pathlib would take 'gs://bucket/run' for
            the local folder 'gs:/bucket/run'.
    """
    if isinstance(path, remote.Mirrored):
        return path
    scheme = remote.scheme_of(path) or _SHORTENED.match(str(path))
    if scheme:
        raise ValueError(
            f"{argument}={path} is the address of a remote store, and a local folder is needed "
            "here. Only the workdir of a run takes an address (and mia-jax status): copy a local "
            "folder to the store afterwards."
        )
    return Path(path).expanduser()


_SHORTENED = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:+/")  # what pathlib makes of an address


class Unwritten(type(pathlib.Path())):  # type: ignore[misc]
    """A path below which this process writes nothing: every change does nothing, silently.

    It is how a process reads a workdir that another process of the same run writes
    (runtime/distributed.py). What is joined to it is of the same kind.

    >>> folder = Unwritten("/nowhere")
    >>> folder.joinpath("a").mkdir(), write_text(folder / "a.txt", "text"), folder.exists()
    (None, None, False)
    """

    def mkdir(self, mode=0o777, parents=False, exist_ok=False) -> None:
        """Does nothing."""

    def unlink(self, missing_ok=False) -> None:
        """Does nothing."""

    def rmdir(self) -> None:
        """Does nothing."""


def move(source: Path, target: Path) -> None:
    """Renames a file; what was at `target` is replaced."""
    if isinstance(source, Unwritten):
        return
    if isinstance(source, remote.Mirrored):
        source.mirror.rename(source, target)
    os.replace(source, target)


def make_folder(folder: Path) -> None:
    """Creates a folder and its parents for this user only; existing folders are not changed."""
    if not folder.is_dir():
        for path in reversed([folder, *folder.parents]):
            if not path.exists():
                path.mkdir(mode=FOLDER_MODE, exist_ok=True)


def private_folder(folder: Path, *, ours: bool) -> str:
    """Creates a folder whose files are executed when they are read.

    Args:
        folder: the folder.
        ours: closes an existing folder of this user to all other users.

    Returns:
        A warning if other users can write to the folder, else ''.
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
        pass  # A run also works without this folder, which holds a cache.
    return ""


def write(path: Path, save: Callable) -> None:
    """Calls save(file) on a temporary file next to `path` and renames it to `path`.

    This is atomic on one file system. An OSError names the file.
    """
    if isinstance(path, Unwritten):
        return
    temporary = _temporary(path, save)
    try:
        if isinstance(path, remote.Mirrored):
            path.mirror.put(temporary, path)
        os.replace(temporary, path)
    finally:
        _discard(temporary)


def create(path: Path, save: Callable) -> bool:
    """Writes a file like `write`, but only if it does not exist.

    Returns:
        Whether it was written; False if another process was first.
    """
    if isinstance(path, Unwritten):
        return False
    temporary = _temporary(path, save)
    try:
        if isinstance(path, remote.Mirrored):
            first = path.mirror.create(temporary, path)
            if first:
                os.replace(temporary, path)
            return first
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # A file system without hard links.
        try:
            descriptor = os.open(path, os.O_WRONLY | _NEW, FILE_MODE)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "wb") as file:
            save(file)
    finally:
        _discard(temporary)
    return True


def _discard(temporary: Path) -> None:
    """Removes a temporary file, of which no store knows."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)


def _temporary(path: Path, save: Callable) -> Path:
    """Returns a finished temporary file next to `path`.

    Its name holds the machine, the process and random letters, because containers may have equal
    process numbers.
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
        _discard(temporary)
        if error.errno is not None and error.filename is None:  # A full disk.
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    except BaseException:
        _discard(temporary)
        raise
    return temporary


@functools.cache
def machine() -> str:
    """Returns 8 hex digits that identify where a process number means the same process.

    They are computed from the machine, its last boot, and the container's process namespace.
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
    """Removes the temporary files of dead processes under `folder`, and returns them.

    These are the files of processes of this machine that no longer exist, and all old ones.
    """
    gone: list[Path] = []
    if isinstance(folder, Unwritten):
        return gone
    for place, _, names in os.walk(folder):
        for name in names:
            match = _TEMPORARY.fullmatch(name)
            path = Path(place) / name
            try:
                if match and (_dead(match) or time.time() - path.lstat().st_mtime > OLD):
                    os.unlink(path)
                    gone.append(path)
            except OSError:
                continue  # Another process was faster, or the disk is read-only.
    return gone


def _dead(match: re.Match) -> bool:
    """Returns whether the process of a temporary file of this machine no longer exists."""
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
    """Writes a text file atomically."""
    write(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value, *, seal: bool = False) -> None:
    """Writes a JSON file atomically; NaN and infinities are refused.

    Null stands for a missing number.

    Args:
        path: the file.
        value: the JSON value.
        seal: adds a checksum as the last key of an object.
    """
    write_text(path, _json_text(sealed.seal(value) if seal else value))


def create_json(path: Path, value, *, seal: bool = False) -> bool:
    """Writes a JSON file like `write_json`, but only if it does not exist.

    Returns:
        Whether it was written; False if another process was first.
    """
    text = _json_text(sealed.seal(value) if seal else value)
    return create(path, lambda file: file.write(text.encode("utf-8")))


def _json_text(value) -> str:
    return json.dumps(value, indent=1, allow_nan=False, default=sealed.plain) + "\n"


def write_npy(path: Path, array: np.ndarray, record: Mapping | None = None) -> None:
    """Writes an .npy file atomically, with its checksum and a record of what it belongs to."""
    write(path, lambda file: sealed.save_npy(file, array, record or {}))


def write_npy_parts(
    path: Path,
    parts: Iterable[np.ndarray],
    *,
    shape: tuple[int, ...],
    dtype,
    record: Mapping | None = None,
) -> None:
    """Writes the file of `write_npy` of an array that never exists as a whole.

    Args:
        path: the file.
        parts: arrays whose values, one after the other, are those of the array in C order.
        shape: the shape of the array.
        dtype: its dtype.
        record: what the file belongs to.
    """
    fields: dict = dict(shape=shape, dtype=dtype, record=record or {})
    write(path, lambda file: sealed.save_npy_parts(file, parts, **fields))


def write_npz(path: Path, /, record: Mapping | None = None, **arrays) -> None:
    """Writes an .npz file atomically, with a record of what it belongs to."""
    write(path, lambda file: sealed.save_npz(file, arrays, record))


def read_json(
    path: Path, *, needs: Mapping[str, type | tuple] | None = None, remedy: str = RECOMPUTE
):
    """Returns the JSON value of a file.

    Args:
        path: the file.
        needs: {key: type} that the value, then an object, must have; None for any value.
        remedy: what the message of an error tells the user to do.

    Raises:
        ValueError: the file is damaged.
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


def read_npy(path: Path, *, record: Mapping = {}, remedy: str = RECOMPUTE) -> np.ndarray:
    """Returns the array of an .npy file.

    Args:
        path: the file.
        record: the place to which the file must belong; a file without a record fits every place.
        remedy: what the message of an error tells the user to do.

    Raises:
        ValueError: the file is damaged, or its record differs from `record`.
    """
    return _read_npy(path, record=record, remedy=remedy)[0]


def read_npy_and_record(
    path: Path, *, record: Mapping = {}, remedy: str = RECOMPUTE
) -> tuple[np.ndarray, dict | None]:
    """Returns the array of `read_npy` and the whole record of the file, None if it has none."""
    return _read_npy(path, record=record, remedy=remedy)


def map_npy(
    path: Path, *, record: Mapping = {}, remedy: str = RECOMPUTE
) -> tuple[np.ndarray, dict | None]:
    """Returns the array and the record of `read_npy_and_record`; the array stays in the file.

    It is read-only, and what is used of it is read from the file (a memory map). The checksum is
    verified first, in blocks. Writing the file again (atomically) does not change the array.
    """
    try:
        with open(path, "rb") as file:
            array, stored = sealed.map_npy(file)
    except (ValueError, IsADirectoryError) as error:
        raise ValueError(damaged(path, error, remedy=remedy)) from error
    _check_place(path, stored, record, remedy)
    return array, stored


def read_npz(path: Path, *, record: Mapping = {}, remedy: str = RECOMPUTE) -> dict[str, np.ndarray]:
    """Returns the arrays of an .npz file.

    The arguments and errors are those of `read_npy`.
    """
    return _read_npz(path, record=record, remedy=remedy)[0]


def map_npz(
    path: Path, *, record: Mapping = {}, least: int, remedy: str = RECOMPUTE
) -> dict[str, Any]:
    """Returns the arrays of `read_npz`; members of at least `least` bytes stay in the file.

    They are `stacks.Stored`, which is read where it is used as an array. The checksums are verified
    first. Writing or removing the file does not change the arrays.
    """
    with contextlib.ExitStack() as opened:
        try:
            file = opened.enter_context(open(path, "rb"))
            arrays, stored = sealed.map_npz(file, least=least)
        except (ValueError, IsADirectoryError) as error:
            raise ValueError(damaged(path, error, remedy=remedy)) from error
        _check_place(path, stored, record, remedy)
        if any(isinstance(array, stacks.Stored) for array in arrays.values()):
            opened.pop_all()  # the arrays close it
    return arrays


def read_npz_and_record(
    path: Path, *, record: Mapping = {}, remedy: str = RECOMPUTE
) -> tuple[dict[str, np.ndarray], dict | None]:
    """Returns the arrays of `read_npz` and the whole record of the file, None if it has none."""
    return _read_npz(path, record=record, remedy=remedy)


def read_digest(
    path: Path,
    *,
    record: Mapping = {},
    without: str = "",
    whole: bool = False,
    remedy: str = RECOMPUTE,
) -> str:
    """Returns 16 hex digits of the names, sizes and checksums of the arrays of an .npz file.

    Args:
        path: the file.
        record: the place to which the file must belong.
        without: leaves out the arrays whose names begin with this prefix.
        whole: reads and verifies every array; otherwise only the archive's directory and the record
            are read.
        remedy: what the message of an error tells the user to do.

    Raises:
        ValueError: the file is damaged, or its record differs from `record`.
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
    """Raises ValueError if the record of a file says that it belongs to another place.

    A file without a record fits every place.
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


def damaged(path: Path, error: Exception, *, remedy: str = RECOMPUTE) -> str:
    """Returns the message about a file that cannot be read."""
    reason = "it is a folder" if isinstance(error, IsADirectoryError) else str(error).rstrip(".")
    return f"{path} is damaged ({reason}). {remedy}"


def append_jsonl(path: Path, records) -> None:
    """Appends one JSON object per line in a single write.

    Several processes may write to the same file (O_APPEND). If the last line is incomplete, it is
    ended first.
    """
    text = "".join(json.dumps(r, default=sealed.plain) + "\n" for r in records)
    if text:
        append(path, text.encode(), lines=True)


def append(path: Path, data: bytes, *, lines: bool = False) -> None:
    """Appends all of the bytes to a file.

    Links are not followed: in a folder to which others can write, a link could lead to any file of
    the user.

    Args:
        path: the file.
        data: the bytes.
        lines: ends the last line first if a killed process left it incomplete.
    """
    if isinstance(path, Unwritten):
        return
    make_folder(path.parent)
    descriptor = os.open(
        path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), FILE_MODE
    )
    try:
        size = os.fstat(descriptor).st_size
        torn = lines and size and os.pread(descriptor, 1, size - 1) != b"\n"
        left = memoryview(b"\n" * bool(torn) + data)
        while left:  # A disk that is almost full accepts only a part.
            left = left[os.write(descriptor, left) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)
    if isinstance(path, remote.Mirrored):
        path.mirror.append(path)


def read_jsonl(path: Path) -> list[dict]:
    """Returns the records of a file that `append_jsonl` wrote.

    Incomplete lines of a killed process are skipped.
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
    """Returns {'a.b': value} of nested mappings, with the values in their JSON form.

    >>> flat({'a': {'b': (1, 2)}, 'c': 3})
    {'a.b': [1, 2], 'c': 3}
    """
    values: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = json.loads(json.dumps(value, default=sealed.plain))
    return values


def differences(old: Mapping, new: Mapping) -> list[str]:
    """Returns a line 'key: old on disk, new in this run' for every key that differs."""
    old, new, absent = flat(old), flat(new), "(absent)"
    keys = [k for k in {**old, **new} if old.get(k, absent) != new.get(k, absent)]
    return [
        f"{k}: {old.get(k, absent)!r} on disk, {new.get(k, absent)!r} in this run" for k in keys
    ]


def claimed(folder: Path) -> bool:
    """Returns whether a folder already belongs to a config."""
    return (folder / CLAIM).exists()


def check_claim(folder: Path, settings: Mapping, *, remedy: str) -> None:
    """Raises ValueError if a folder belongs to other settings.

    The message lists the differing keys. A folder that is not claimed is not changed.
    """
    path = folder / CLAIM
    if path.is_symlink() and not path.exists():
        raise ValueError(damaged(path, ValueError("its target does not exist")))
    if path.exists():
        lines = differences(read_json(path, needs={}), settings)
        if lines:
            raise ValueError(
                f"{folder} belongs to another config:\n  " + "\n  ".join(lines) + f"\n{remedy}"
            )


def claim(folder: Path, settings: Mapping, *, remedy: str) -> bool:
    """Claims a folder for these settings: writes config.json if there is none.

    If two processes begin at the same time, one is first and the other one reads what it wrote.

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
    """Renames a folder or file to the first free 'name.1', 'name.2', ...

    Nothing is overwritten.

    Returns:
        The new path; None if there is nothing to rename.
    """
    if isinstance(folder, Unwritten) or not folder.exists():
        return None
    number = 1
    while (target := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    if isinstance(folder, remote.Mirrored):
        folder.mirror.rename(folder, target)
    os.rename(folder, target)
    return target


def digest(*values) -> str:
    """Returns 16 hex digits of the SHA-256 of JSON values and arrays (dtype, shape and bytes)."""
    state = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray | stacks.Stored):
            value = np.asarray(value)
            state.update(f"{value.dtype.str}{value.shape}".encode())
            state.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        else:
            state.update(json.dumps(value, sort_keys=True, default=sealed.plain).encode())
    return state.hexdigest()[:16]
