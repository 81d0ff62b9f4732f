"""Measures how much memory is left, recognizes errors of running out, and waits for devices safely.

The limit is the smallest of what the system has available and what this process may use: control
groups (jobs of Slurm, containers of Kubernetes), resource limits (`ulimit -v`, `ulimit -d`), or on
an accelerator the device's memory.
"""

from __future__ import annotations

import pathlib
import resource
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax

from mia_jax.runtime.progress import size

Path = pathlib.Path
ROOT = Path("/")
UNLIMITED = 1 << 60  # A control group without a limit writes a larger number.
# The files of a control group (versions 2 and 1): its limit, its usage, and the part of the usage
# that the system can drop.
V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
# Bytes of an address-space limit that are not for arrays: the stacks, arenas and holes of threads
# and allocators.
RESERVED = 768 * 2**20
# In so many seconds of waiting, a CPU device that computes takes more than IDLE of a core.
WINDOW = 30.0
IDLE = 0.01
# Parts of the messages of errors that say that memory ran out.
SIGNS = (
    "resource_exhausted",
    "out of memory",
    "failed to allocate",
    "ynnpack operation failed",
    "bad_alloc",
)


class OutOfMemory(MemoryError):
    """Says that a plan does not fit or that memory ran out, with the numbers and the remedies."""


class Limit(NamedTuple):
    """Holds the bytes that can still be used, and where that limit comes from."""

    bytes: int
    source: str


def available(device=None, *, root: Path = ROOT) -> Limit:
    """Returns the memory that can still be used.

    Args:
        device: an accelerator, whose memory counts; None for the smallest of all limits of this
            process.
        root: the root of the file system.
    """
    stats = (device.memory_stats() or {}) if device is not None else {}
    if "bytes_limit" in stats:
        return Limit(
            max(0, stats["bytes_limit"] - stats.get("bytes_in_use", 0)),
            f"free memory of {device.device_kind}",
        )
    return min(limits(root))


def limits(root: Path = ROOT) -> list[Limit]:
    """Returns every limit of this process's memory, less what it uses; at least one."""
    known = [*_of_system(root), *_of_groups(root), *_of_process(root)]
    return known or [Limit(UNLIMITED, "no limit is known")]


def _of_system(root: Path) -> Iterator[Limit]:
    """Yields the memory that is available on this machine."""
    for name, number in _numbers(root / "proc" / "meminfo"):
        if name == "MemAvailable":
            yield Limit(number * 1024, "memory that is free on this machine")


def _of_groups(root: Path) -> Iterator[Limit]:
    """Yields the limits of control groups (versions 2 and 1).

    They start at the group of the process and end at the root of what this process can see.
    """
    for line in _text(root / "proc" / "self" / "cgroup").splitlines():
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        version_2 = number == "0" and not controllers
        if not version_2 and "memory" not in controllers.split(","):
            continue
        top = root / "sys" / "fs" / "cgroup" / ("" if version_2 else "memory")
        names = V2 if version_2 else V1
        group = Path(path.lstrip("/"))
        for folder in [top / part for part in (group, *group.parents)]:
            limit = _text(folder / names[0]).strip()
            if limit.isdigit() and int(limit) < UNLIMITED:
                used = int(_text(folder / names[1]).strip() or 0) - dict(
                    _numbers(folder / "memory.stat")
                ).get(names[2], 0)
                yield Limit(
                    max(0, int(limit) - max(0, used)),
                    "memory that is left in this job's control group",
                )


def _of_process(root: Path) -> Iterator[Limit]:
    """Yields the resource limits of this process (`ulimit -v`, `ulimit -d`)."""
    used = dict(_numbers(root / "proc" / "self" / "status"))
    for kind, name, words in (
        (resource.RLIMIT_AS, "VmSize", "ulimit -v"),
        (resource.RLIMIT_DATA, "VmData", "ulimit -d"),
    ):
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY:
            limit -= RESERVED if kind == resource.RLIMIT_AS else 0
            yield Limit(
                max(0, limit - used.get(name, 0) * 1024),
                f"memory that is left of this process's limit ({words})",
            )


def _text(path: Path) -> str:
    """Returns the text of a file; '' if it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _numbers(path: Path) -> Iterator[tuple[str, int]]:
    """Yields (name, number) of lines 'name: 123 kB' and 'name 123'."""
    for line in _text(path).splitlines():
        name, *rest = line.replace(":", " ").split()[:2] or [""]
        if rest and rest[0].isdigit():
            yield name, int(rest[0])


def ran_out(error: BaseException) -> bool:
    """Returns whether an error of Python, NumPy or XLA says that memory ran out."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, jax.errors.JaxRuntimeError) and any(
        sign in str(error).lower() for sign in SIGNS
    )


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, shortened."""
    return (str(error).strip().splitlines() or [""])[0][:200]


def sentence(error: BaseException, *, what: str, remedy: str, limit: Limit) -> str:
    """Returns the message that memory ran out while `what` was done."""
    first = first_line(error)
    return (
        f"out of memory while {what}{f' ({first})' if first else ''}; {size(limit.bytes)} are left "
        f"({limit.source}). {remedy}"
    )


def fetch(tree):
    """Returns the arrays of a pytree on the host; MemoryError if they never arrive.

    Same as jax.device_get, but on a CPU device the wait is watched (see `watched`).
    """
    return watched(lambda: jax.device_get(tree)) if _on_cpu(tree) else jax.device_get(tree)


def wait(tree):
    """Returns a pytree once its arrays are computed; MemoryError if they never are."""
    return (
        watched(lambda: jax.block_until_ready(tree))
        if _on_cpu(tree)
        else jax.block_until_ready(tree)
    )


def _on_cpu(tree) -> bool:
    """Returns whether the arrays of a pytree are on a CPU device."""
    array = next((leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)), None)
    return array is not None and next(iter(array.devices())).platform == "cpu"


def watched(work: Callable, *, window: float = WINDOW):
    """Returns the result of work(), which waits for a CPU device.

    XLA's CPU device loses a program whose memory could not be allocated. No error is raised, and a
    thread that waits for its results waits forever and does not react to signals. A process that
    computes takes processor time, so a process that takes none for `window` seconds waits in vain.
    `work` runs in a separate thread, which is abandoned in that case.

    Raises:
        MemoryError: if this process does not compute anything any more.
    """
    results, done = [], threading.Event()

    def run() -> None:
        try:
            results.append((work(), None))
        except BaseException as error:
            results.append((None, error))
        finally:
            done.set()

    threading.Thread(target=run, name="waiting for the device", daemon=True).start()
    waited, used, step = 0.0, time.process_time(), min(1.0, window / 4)
    while not done.wait(step):
        waited += step  # The clock would also count time in which the process was stopped.
        if waited >= window:
            if time.process_time() - used < IDLE * waited:
                raise MemoryError(
                    f"the device has computed nothing for {waited:.0f} s and gives no result: most "
                    "likely an allocation failed"
                )
            waited, used = 0.0, time.process_time()
    result, error = results[0]
    if error is not None:
        raise error
    return result
