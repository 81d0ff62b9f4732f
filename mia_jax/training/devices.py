"""Spreads work over several devices: each worker takes the next item from a queue.

Every device runs the same single-device program. One program partitioned over a mesh was measured
on fake CPU devices: it fuses its loops differently from the single-device one and differs in the
last bit, so that the number of devices would change the models. Independent models need no
communication, and a queue also keeps devices busy when some models stop early. A program is traced
once. Each CPU and TPU device compiles its own copy, all at the same time; GPUs of one kind read
what the first one has compiled from the cache on disk (`share_programs`).
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Sequence

import jax

from mia_jax.runtime import machine, precision
from mia_jax.training import mesh


class Cancelled(Exception):
    """Says that another worker failed; that worker's error is the one that is raised."""


def default_lanes(devices: Sequence) -> int:
    """Returns how many workers a device can feed.

    On CPU that is the number of cores (a program of small arrays keeps one core busy), elsewhere
    one.
    """
    if devices[0].platform != "cpu" or isinstance(devices[0], mesh.Group):
        return 1  # two programs that wait for each other's devices would wait forever
    return max(1, machine.cores() // len(devices))


def share_programs(devices: Sequence, *, cached: bool | None = None) -> bool:
    """Returns whether what one of these devices has compiled serves the others.

    The key of JAX's cache on disk names the device, except on GPUs.

    Args:
        devices: the devices.
        cached: whether there is such a cache; None asks JAX.
    """
    if cached is None:
        config = jax.config
        cached = config.jax_enable_compilation_cache and bool(config.jax_compilation_cache_dir)
    return cached and len(set(devices)) > 1 and devices[0].platform == "gpu"


def spread(
    work: Callable,
    items: Sequence,
    devices: Sequence,
    lanes: int | None = None,
    pause: Callable = lambda: None,
    first_alone: bool = False,
) -> None:
    """Calls work(item, device, check) for every item and raises the first error.

    `check()` calls `pause()` first, and raises Cancelled once another worker has failed. All lanes
    of a device run the same compiled programs.

    Args:
        work: the function of an item.
        items: the items of work.
        devices: the devices to use.
        lanes: the number of items in work per device at the same time; None for `default_lanes`.
        pause: raises an exception if all work has to end at its next safe place.
        first_alone: whether the other workers start after the first one has called `check` twice or
            ended, so that they find what it compiled in between.
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
    checks, warm = itertools.count(1), threading.Event()

    def check() -> None:
        pause()  # This comes first, because every worker has state to save.
        if errors:
            raise Cancelled

    def check_of_first() -> None:
        if next(checks) == 2:
            warm.set()
        check()

    def worker(device, number: int) -> None:
        if first_alone and number:
            warm.wait()
        try:
            while not errors:
                work(todo.get_nowait(), device, check if number else check_of_first)
        except (queue.Empty, Cancelled):
            return
        except BaseException as error:
            errors.append(error)
        finally:
            if not number:
                warm.set()

    target = precision.same_in_threads(worker)
    threads = [
        threading.Thread(target=target, args=(device, i), name=f"device {device.id}", daemon=True)
        for i, device in enumerate(devices[: len(items)])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
