"""Keeps a workdir in an object store: gs://, s3:// and whatever else fsspec knows.

A run works in a mirror, a local folder that begins as a copy of the remote one. A file is written
to the store first, by a single put, and becomes visible in the mirror after that; so the store has
everything that a run relies on, each file absent or complete, and a run that is killed goes on on
any machine. All reading, memory maps included, is from the mirror. Its paths are of a class of
their own, `Mirrored`, which keeps itself in all paths that are made from it; runtime/files.py asks
for it. Which address a path of a mirror stands for can be read from the path alone (`named`).
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import functools
import logging
import os
import pathlib
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")
Path = pathlib.Path
ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<rest>.*)")
EXTRAS = dict(gs="gcs", gcs="gcs", s3="s3", s3a="s3")  # scheme: the extra of mia_jax
PREFIX = "mia_jax-mirror-"
NAMED = re.compile(rf"[^\s'\"]*/{PREFIX}[^/\s]+/(?P<scheme>[\w+.-]+)/")
WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before a failed operation is tried again
LOUD = dict(botocore=logging.WARNING, aiobotocore=logging.WARNING, gcsfs=logging.CRITICAL)
DOWNLOADS = 8  # files at a time
FINAL = (FileNotFoundError, FileExistsError)


def named(text: str) -> str:
    """Returns a text in which paths of mirrors are the addresses that they stand for.

    >>> named(f"see /tmp/{PREFIX}1a.77.x/gs/bucket/run/report")
    'see gs://bucket/run/report'
    """
    return NAMED.sub(r"\g<scheme>://", text) if PREFIX in text else text


class Mirror:
    """Copies a folder of a store, and passes every change of the copy on to it.

    Args:
        url: the address of the folder.
        system: the file system of fsspec.
        key: what the file system calls the folder.
        local: the folder of the copy.
        waits: the seconds before a failed operation is tried again.
    """

    def __init__(
        self, url: str, system: Any, key: str, local: Path, *, waits: tuple[float, ...] = WAITS
    ):
        self.url, self.system, self.key, self.local = url, system, key.rstrip("/"), Path(local)
        self.waits, self.lock = waits, threading.RLock()
        # {path below the folder: (size, time) of the local file that the store has}
        self.kept: dict[str, tuple[int, int]] = {}
        self.appended: set[str] = set()

    def pull(self, only: tuple[str, ...] = ("",)) -> int:
        """Copies all files of the store, and returns their bytes.

        Args:
            only: the endings of the names of files that are copied; the others are there, empty.

        Raises:
            OSError: the store cannot be read, or the local disk is too small.
        """
        listed = self._tried("listed", "", lambda: self.system.find(self.key, detail=True))
        files = {}
        for key, info in listed.items():
            below = key.removeprefix(self.key).lstrip("/")
            if below and info.get("type") == "file" and ".." not in below.split("/"):
                files[below] = info
        copied = {below: info for below, info in files.items() if below.endswith(only)}
        size = sum(int(info.get("size") or 0) for info in copied.values())
        free = shutil.disk_usage(self.local).free
        if size > free:
            raise OSError(
                errno.ENOSPC,
                f"its files have {size:,} bytes, and {free:,} are free in {self.local.anchor}, "
                "where the run needs a copy; set TMPDIR to a folder of a larger disk",
                self.url,
            )
        with concurrent.futures.ThreadPoolExecutor(DOWNLOADS) as pool:
            list(pool.map(lambda below: self.get(below, whole=below in copied), files))
        for folder in self.local.rglob("*/"):
            if folder.is_dir():  # a store has no folders, which would seem to have changed now
                os.utime(folder, (0, 0))
        return size

    def get(self, below: str, *, whole: bool = True) -> None:
        """Copies one file of the store; its time is that of the store, where that is known.

        Args:
            below: its path below the folder.
            whole: False for an empty file.
        """
        path = self.local.joinpath(below)
        path.parent.mkdir(parents=True, exist_ok=True)
        if whole:
            self._tried("read", below, lambda: self.system.get_file(self._key(below), str(path)))
        else:
            path.touch()
        with contextlib.suppress(Exception):  # not every store has a time
            changed = self.system.modified(self._key(below)).timestamp()
            os.utime(path, (changed, changed))
        self._keeps(below)

    def put(self, temporary: Path, path: Path) -> None:
        """Writes a finished temporary file to the store, as the file of a path of the mirror."""
        self.flush()  # lines that were appended before come before
        below = self._below(path)
        self._tried("written", below, lambda: self._put(temporary, below))
        with self.lock:
            self.appended.discard(below)
            self.kept[below] = _stamp(temporary)

    def create(self, temporary: Path, path: Path) -> bool:
        """Writes a file like `put`, only if the store has none; returns whether it was written.

        If it was not, the file of the store is in the mirror.
        """
        self.flush()
        below, data = self._below(path), temporary.read_bytes()
        try:
            self._tried(
                "written",
                below,
                lambda: self.system.pipe_file(self._key(below), data, mode="create"),
            )
        except FileExistsError:
            self.get(below)
            return False
        with self.lock:
            self.kept[below] = _stamp(temporary)
        return True

    def append(self, path: Path) -> None:
        """Notes that a file has grown; it is written to the store before the next other file."""
        with self.lock:
            self.appended.add(self._below(path))

    def remove(self, path: Path) -> None:
        """Removes a file from the store."""
        below = self._below(path)
        with self.lock:
            self.appended.discard(below)
            self.kept.pop(below, None)

        def removed() -> None:
            with contextlib.suppress(FileNotFoundError):
                self.system.rm_file(self._key(below))

        self._tried("removed", below, removed)

    def rename(self, source: Path, target: Path) -> None:
        """Renames a file or a folder in the store: all is copied before anything is removed."""
        self.flush()
        paths = [source] if source.is_file() else [p for p in source.rglob("*") if p.is_file()]
        moves = [(path, target / path.relative_to(source)) for path in paths]
        for path, new in moves:
            old, below = self._below(path), self._below(new)
            if self.kept.get(old) == _stamp(path):
                keys = self._key(old), self._key(below)
                copy = functools.partial(self.system.cp_file, *keys)
            else:  # the store lacks it, see `finish`
                copy = functools.partial(self._put, path, below)
            self._tried("written", below, copy)
            with self.lock:
                self.kept[below] = _stamp(path)
        for path, _ in moves:
            self.remove(path)

    def flush(self) -> None:
        """Writes the files that have grown to the store."""
        with self.lock:
            for below in sorted(self.appended):
                path = self.local.joinpath(below)
                self._tried("written", below, lambda: self._put(path, below))  # noqa: B023
                self._keeps(below)
                self.appended.discard(below)

    def finish(self) -> None:
        """Writes to the store what is in the mirror alone: files that others than
        runtime/files.py have written, such as those of trackers.
        """
        self.flush()
        for path in sorted(p for p in self.local.rglob("*") if p.is_file()):
            below = self._below(path)
            if not path.name.startswith(".") and self.kept.get(below) != _stamp(path):
                self._tried("written", below, lambda: self._put(path, below))  # noqa: B023
                self._keeps(below)

    def _put(self, path: Path, below: str) -> None:
        self.system.put_file(str(path), self._key(below))

    def _keeps(self, below: str) -> None:
        with self.lock:
            self.kept[below] = _stamp(self.local.joinpath(below))

    def _key(self, below: str) -> str:
        return f"{self.key}/{below}"

    def _below(self, path: Path) -> str:
        return path.relative_to(self.local).as_posix()

    def _tried(self, what: str, below: str, do: Callable[[], T]) -> T:
        """Returns do(), tried again after errors that may pass.

        Raises:
            OSError: it failed each time, was forbidden, or the store cannot do it; the message has
                the address.
        """
        address = f"{self.url}/{below}".rstrip("/")
        for wait in (*self.waits, None):
            try:
                return do()
            except Exception as error:
                forbidden = isinstance(error, PermissionError)
                if forbidden or type(error).__name__ in NO_CREDENTIALS:
                    sentence = f"{_words(error)}. {CREDENTIALS}"
                    raise OSError(errno.EACCES, sentence, address) from error
                if isinstance(error, FileNotFoundError) and what in ("listed", "written"):
                    words = f"{_words(error)}; is there such a bucket?"
                    raise OSError(errno.ENOENT, words, address) from error
                if isinstance(error, NotImplementedError):
                    words = f"this kind of store cannot do what a workdir needs ({_words(error)})"
                    raise OSError(errno.ENOTSUP, words, address) from error
                if isinstance(error, FINAL):
                    raise
                if wait is None:
                    raise OSError(
                        errno.EIO,
                        f"it could not be {what} in {len(self.waits) + 1} attempts "
                        f"({_words(error)}). What is in the store is complete: start the same "
                        "command again",
                        address,
                    ) from error
                time.sleep(wait)
        raise AssertionError("unreachable")


CREDENTIALS = (
    "Without credentials nothing was changed: gcloud auth application-default login gives those "
    "of gs://, aws configure or AWS_PROFILE those of s3://"
)
# of google-auth and botocore, which are imported by gcsfs and s3fs alone
NO_CREDENTIALS = ("DefaultCredentialsError", "NoCredentialsError", "RefreshError")


class Mirrored(type(pathlib.Path())):  # type: ignore[misc]
    """A path of a mirror; what is made from it by pathlib's means is of the same class."""

    mirror: ClassVar[Mirror]

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes the file, from the store first."""
        self.mirror.remove(self)
        super().unlink(missing_ok=missing_ok)


def scheme_of(text: str | Path) -> str:
    """Returns the scheme of an address, 'gs' of 'gs://bucket/run'; '' of a local path."""
    match = ADDRESS.match(str(text))
    return match["scheme"] if match else ""


def connected(url: str, *, argument: str) -> tuple[Any, str]:
    """Returns (the file system of fsspec, what it calls the folder) of an address.

    Raises:
        ValueError: a package is missing, the scheme is unknown, or no folder is named.
    """
    scheme, rest = scheme_of(url), url.partition("://")[2]
    if "::" in url or not rest.strip("/"):
        raise ValueError(f"{argument}={url}: expected scheme://bucket/folder, as in gs://b/run.")
    for library, level in LOUD.items():  # what they log is said by this module's errors
        logging.getLogger(library).setLevel(level)
    try:
        import fsspec
    except ImportError as error:
        raise ValueError(f"{argument}={url} needs fsspec: pip install fsspec.") from error
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        extra = EXTRAS.get(scheme)
        remedy = f'pip install "mia_jax[{extra}]"' if extra else _words(error)
        raise ValueError(
            f"{argument}={url}: the package for {scheme}:// is missing ({remedy}). Nothing was "
            "written."
        ) from error
    except Exception as error:  # of fsspec, or of the credentials that a store looks for
        raise ValueError(f"{argument}={url}: {_words(error)}. Nothing was written.") from error


def mirrored(
    url: str,
    *,
    argument: str,
    owner: str,
    only: tuple[str, ...] = ("",),
    waits: tuple[float, ...] = WAITS,
) -> Mirrored:
    """Returns the local folder that mirrors an address.

    Args:
        url: the address.
        argument: what the user calls it, such as '--workdir'.
        owner: identifies this process; a part of the folder's name.
        only: see `Mirror.pull`.
        waits: the seconds before a failed operation is tried again.

    Raises:
        ValueError: there is no such store.
        OSError: it cannot be read.
    """
    system, key = connected(url, argument=argument)
    top = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{owner}.")).resolve()
    parts = [part for part in url.partition("://")[2].split("/") if part not in ("", ".", "..")]
    local = top.joinpath(scheme_of(url), *parts)
    try:
        local.mkdir(parents=True)
        mirror = Mirror(url.rstrip("/"), system, key, local, waits=waits)
        mirror.pull(only)
    except BaseException:
        shutil.rmtree(top, ignore_errors=True)
        raise
    return type("Mirrored", (Mirrored,), dict(mirror=mirror))(local)


@contextlib.contextmanager
def shown(url: str, *, argument: str, owner: str, only: tuple[str, ...]):
    """Returns a context with a copy of an address, from which it is read; nothing is written back.

    The arguments and errors are those of `mirrored`.
    """
    folder = mirrored(url, argument=argument, owner=owner, only=only)
    try:
        yield folder
    finally:
        remove(folder)


def remove(folder: Mirrored) -> None:
    """Removes the local folder of a mirror; the store keeps all of it."""
    for parent in folder.parents:
        if parent.name.startswith(PREFIX):
            shutil.rmtree(parent, ignore_errors=True)


def sweep(machine: str) -> None:
    """Removes the mirrors of processes of this machine that no longer exist.

    Args:
        machine: the first part of the owners of this machine, before a dot and the process number.
    """
    for top in Path(tempfile.gettempdir()).glob(f"{PREFIX}{machine}.*"):
        process = top.name.removeprefix(f"{PREFIX}{machine}.").partition(".")[0]
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            shutil.rmtree(top, ignore_errors=True)
        except (OSError, ValueError):
            continue


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _words(error: Exception) -> str:
    words = " ".join(str(error).split()).rstrip(".")
    return words[:300] or type(error).__name__
