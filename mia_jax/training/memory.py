"""How much memory there is, what running out of it looks like, and waiting for a device that may have run out of it.

The limit is the smallest of what the system has available and what this process may use: control groups (jobs of Slurm, containers of Kubernetes),
resource limits (`ulimit -v`, `ulimit -d`), or on an accelerator the device's own.
"""

from __future__ import annotations

import pathlib
import resource
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax

from mia_jax.progress import size

Path = pathlib.Path
ROOT = Path("/")
UNLIMITED = 1 << 60  # control groups write a larger number where there is no limit
V2 = ("memory.max", "memory.current", "inactive_file")  # of a control group: its limit, what it uses, and what of that the system can drop
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
WINDOW = 60.0  # seconds of waiting in which a CPU device that computes takes more than IDLE of a core
IDLE = 0.01
SIGNS = ("resource_exhausted", "out of memory", "failed to allocate", "ynnpack operation failed", "bad_alloc")


class OutOfMemory(MemoryError):
    """A plan that does not fit, or memory that ran out: the message has the numbers and how to lower them."""


class Limit(NamedTuple):
    """Bytes that can still be used, and whose limit that is."""

    bytes: int
    source: str


def available(device=None, *, root: Path = ROOT) -> Limit:
    """What can still be used: of an accelerator `device` its own memory, else of this process the smallest of all limits."""
    stats = (device.memory_stats() or {}) if device is not None else {}
    if "bytes_limit" in stats:
        return Limit(max(0, stats["bytes_limit"] - stats.get("bytes_in_use", 0)), f"free memory of {device.device_kind}")
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
    """Control groups, version 2 and 1, from the process's own up to the root of what this process can see."""
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
                used = int(_text(folder / names[1]).strip() or 0) - dict(_numbers(folder / "memory.stat")).get(names[2], 0)
                yield Limit(max(0, int(limit) - max(0, used)), "memory that is left in this job's control group")


def _of_process(root: Path) -> Iterator[Limit]:
    used = dict(_numbers(root / "proc" / "self" / "status"))
    for kind, name, words in ((resource.RLIMIT_AS, "VmSize", "ulimit -v"), (resource.RLIMIT_DATA, "VmData", "ulimit -d")):
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY:
            yield Limit(max(0, limit - used.get(name, 0) * 1024), f"memory that is left of this process's limit ({words})")


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
    return isinstance(error, jax.errors.JaxRuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


def sentence(error: BaseException, *, what: str, remedy: str, limit: Limit) -> str:
    """The message of memory that ran out while `what` was done."""
    first = (str(error).strip().splitlines() or [""])[0][:200]
    return f"out of memory while {what}{f' ({first})' if first else ''}; {size(limit.bytes)} are left ({limit.source}). {remedy}"


def fetch(tree):
    """The arrays of a pytree on the host, as jax.device_get; OutOfMemory if they never come."""
    wait(tree)
    return jax.device_get(tree)


def wait(tree, *, window: float = WINDOW):
    """Blocks until the arrays of a pytree are computed and returns it; OutOfMemory if the device does nothing any more.

    XLA's CPU device loses a program whose memory could not be allocated: no error is raised and its results are never ready. A process that computes
    takes processor time, so one that takes none for `window` seconds of waiting waits in vain. Time in which it is stopped does not count.
    """
    for leaf in jax.tree.leaves(tree):
        ready = getattr(leaf, "is_ready", None)
        if ready is None or ready():
            continue
        on_cpu = next(iter(leaf.devices())).platform == "cpu"
        slept, total, used = 0.0, 0.0, time.process_time()
        while not ready():
            step = min(0.05, max(2e-5, 0.02 * total))
            time.sleep(step)
            slept, total = slept + step, total + step
            if slept >= window:
                if on_cpu and time.process_time() - used < IDLE * slept:
                    raise OutOfMemory(f"the device has computed nothing for {slept:.0f} s and gives no result: most likely an allocation failed")
                slept, used = 0.0, time.process_time()
    return tree
