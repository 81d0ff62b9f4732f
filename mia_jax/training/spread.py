"""Work over several devices: a worker of a device takes the next item, and every device runs the
same single-device program.

Not one program over a mesh: measured on fake CPU devices, a partitioned program fuses its loops
differently from the single-device one and differs in the last bit, so that the number of devices
would change the models. Independent models need no communication, and a queue also keeps devices
busy when some models stop early. Each device compiles its own copy, all at the same time.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence

from mia_jax.runtime import precision


class Cancelled(Exception):
    """Another worker failed; its error is the one that is raised."""


def default_lanes(devices: Sequence) -> int:
    """How many workers a device can feed: on CPU as many as it has cores (a program of small arrays
    keeps one core busy), elsewhere one.
    """
    if devices[0].platform != "cpu":
        return 1
    return max(1, cores() // len(devices))


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(
    work: Callable,
    items: Sequence,
    devices: Sequence,
    lanes: int | None = None,
    pause: Callable = lambda: None,
) -> None:
    """Calls work(item, device, check) for every item, `lanes` items a device at a time (None:
    `default_lanes`).

    `check()` calls `pause()`, which raises what ends all work at its next safe place, and raises
    Cancelled once another worker has failed. Raises the first error. All lanes of a device run the
    same compiled programs.
    """
    devices = list(devices) * (default_lanes(devices) if lanes is None else lanes)
    if len(devices) == 1 or len(items) <= 1:
        for item in items:
            work(item, devices[0], pause)
        return
    todo: queue.SimpleQueue = queue.SimpleQueue()
    for item in items:
        todo.put(item)
    errors: list[BaseException] = []

    def check() -> None:
        pause()  # first: every worker has something to keep
        if errors:
            raise Cancelled

    def worker(device) -> None:
        try:
            while not errors:
                work(todo.get_nowait(), device, check)
        except (queue.Empty, Cancelled):
            return
        except BaseException as error:
            errors.append(error)

    target = precision.same_in_threads(worker)
    threads = [
        threading.Thread(target=target, args=(device,), name=f"device {device.id}", daemon=True)
        for device in devices[: len(items)]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
