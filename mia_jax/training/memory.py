"""How much memory there is, what running out of it looks like, and waiting for a device that may
have run out of it.

The limit is the smallest of what the system has available and what this process may use: control
groups (jobs of Slurm, containers of Kubernetes), resource limits (`ulimit -v`, `ulimit -d`), or on
an accelerator the device's own.
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
UNLIMITED = 1 << 60  # control groups write a larger number where there is no limit
V2 = (
    "memory.max",
    "memory.current",
    "inactive_file",
)  # of a control group: its limit, what it uses, and what of that the system can drop
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
RESERVED = (
    768 * 2**20
    # of a limit of addresses: stacks, arenas and holes that threads and allocators take beside the
    # arrays
)
WINDOW = (
    30.0  # seconds of waiting in which a CPU device that computes takes more than IDLE of a core
)
IDLE = 0.01
SIGNS = (
    "resource_exhausted",
    "out of memory",
    "failed to allocate",
    "ynnpack operation failed",
    "bad_alloc",
)


class OutOfMemory(MemoryError):
    """A plan that does not fit, or memory that ran out: the message has the numbers and how to
    lower them.
    """


class Limit(NamedTuple):
    """Bytes that can still be used, and whose limit that is."""

    bytes: int
    source: str


def available(device=None, *, root: Path = ROOT) -> Limit:
    """What can still be used: of an accelerator `device` its own memory, else of this process the
    smallest of all limits.
    """
    stats = (device.memory_stats() or {}) if device is not None else {}
    if "bytes_limit" in stats:
        return Limit(
            max(0, stats["bytes_limit"] - stats.get("bytes_in_use", 0)),
            f"free memory of {device.device_kind}",
        )
    return min(limits(root))


def limits(root: Path = ROOT) -> list[Limit]:
    """Every limit of this process's memory, less what it uses; at least one."""
    found = [*_of_system(root), *_of_groups(root), *_of_process(root)]
    return found or [Limit(UNLIMITED, "no limit is known")]


def _of_system(root: Path) -> Iterator[Limit]:
    for name, number in _numbers(root / "proc" / "meminfo"):
        if name == "MemAvailable":
            yield Limit(number * 1024, "memory that is free on this machine")


def _of_groups(root: Path) -> Iterator[Limit]:
    """Control groups, version 2 and 1, from the process's own up to the root of what this process
    can see.
    """
    for line in _text(root / "proc" / "self" / "cgroup").splitlines():
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        two = number == "0" and not controllers
        if not two and "memory" not in controllers.split(","):
            continue
        top = root / "sys" / "fs" / "cgroup" / ("" if two else "memory")
        names = V2 if two else V1
        own = Path(path.lstrip("/"))
        for folder in [top / part for part in (own, *own.parents)]:
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
    try:
        return path.read_text()
    except OSError:
        return ""


def _numbers(path: Path) -> Iterator[tuple[str, int]]:
    """(name, number) of lines 'name: 123 kB' and 'name 123'."""
    for line in _text(path).splitlines():
        name, *rest = line.replace(":", " ").split()[:2] or [""]
        if rest and rest[0].isdigit():
            yield name, int(rest[0])


def ran_out(error: BaseException) -> bool:
    """Whether an error of Python, NumPy or XLA says that memory ran out."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, jax.errors.JaxRuntimeError) and any(
        sign in str(error).lower() for sign in SIGNS
    )


def sentence(error: BaseException, *, what: str, remedy: str, limit: Limit) -> str:
    """The message of memory that ran out while `what` was done."""
    first = (str(error).strip().splitlines() or [""])[0][:200]
    return (
        f"out of memory while {what}{f' ({first})' if first else ''}; {size(limit.bytes)} are left "
        f"({limit.source}). {remedy}"
    )


def fetch(tree):
    """The arrays of a pytree on the host, as jax.device_get; MemoryError if they never come."""
    return watched(lambda: jax.device_get(tree)) if _on_cpu(tree) else jax.device_get(tree)


def wait(tree):
    """Blocks until the arrays of a pytree are computed and returns it; MemoryError if they never
    are.
    """
    return (
        watched(lambda: jax.block_until_ready(tree))
        if _on_cpu(tree)
        else jax.block_until_ready(tree)
    )


def _on_cpu(tree) -> bool:
    """Whether the arrays of a pytree are on a CPU device."""
    array = next((leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)), None)
    return array is not None and next(iter(array.devices())).platform == "cpu"


def watched(work: Callable, *, window: float = WINDOW):
    """The result of work(), which waits for a CPU device; MemoryError if this process computes
    nothing any more.

    XLA's CPU device loses a program whose memory could not be allocated: no error is raised, and
    whoever waits for its results waits forever, deaf to signals. A process that computes takes
    processor time, so one that takes none for `window` seconds waits in vain. `work` is done in a
    thread of its own, which is left behind then.
    """
    found, done = [], threading.Event()

    def run() -> None:
        try:
            found.append((work(), None))
        except BaseException as error:
            found.append((None, error))
        finally:
            done.set()

    threading.Thread(target=run, name="waiting for the device", daemon=True).start()
    waited, used, step = 0.0, time.process_time(), min(1.0, window / 4)
    while not done.wait(step):
        waited += step  # not by the clock: time in which the process was stopped does not count
        if waited >= window:
            if time.process_time() - used < IDLE * waited:
                raise MemoryError(
                    f"the device has computed nothing for {waited:.0f} s and gives no result: most "
                    "likely an allocation failed"
                )
            waited, used = 0.0, time.process_time()
    result, error = found[0]
    if error is not None:
        raise error
    return result
