"""Work over several devices: one worker a device takes the next item, and every device runs the same single-device program.

Not one program over a mesh: measured on fake CPU devices, a partitioned program fuses its loops differently from the single-device one and differs
in the last bit, so that the number of devices would change the models. Independent models need no communication, and a queue also keeps devices
busy when some models stop early. Each device compiles its own copy, all at the same time.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence


class Cancelled(Exception):
    """Another worker failed; its error is the one that is raised."""


def spread(work: Callable, items: Sequence, devices: Sequence) -> None:
    """Calls work(item, device, check) for every item; `check()` raises Cancelled once another worker has failed. Raises the first error."""
    if len(devices) == 1 or len(items) <= 1:
        for item in items:
            work(item, devices[0], lambda: None)
        return
    todo: queue.SimpleQueue = queue.SimpleQueue()
    for item in items:
        todo.put(item)
    errors: list[BaseException] = []

    def check() -> None:
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

    threads = [threading.Thread(target=worker, args=(device,), name=f"device {device.id}", daemon=True) for device in devices[: len(items)]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
