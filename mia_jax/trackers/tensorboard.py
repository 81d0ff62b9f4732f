"""Event files of TensorBoard: `tensorboard --logdir WORKDIR`. Written with tensorboardX."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import secrets
import time
from collections.abc import Mapping
from typing import Any

from mia_jax.runtime import files

FLUSH = 10.0  # seconds after which events are on disk at the latest, if something is logged


class EventFile:
    """Appends scalars to an event file of its own, which is created by the first number.

    A process never opens another's file, so a resumed run adds one more; TensorBoard shows all
    files of a folder as one line.
    """

    def __init__(self, folder: pathlib.Path):
        from tensorboardX.proto import event_pb2, summary_pb2  # takes seconds: before the training

        self.proto = event_pb2, summary_pb2
        self.folder, self.flushed = folder, 0.0
        self.events: Any = None

    def log(self, step: int, values: Mapping) -> None:
        """Appends the numbers of one step as one event; texts and None are left out."""
        event_pb2, summary_pb2 = self.proto
        numbers = [
            summary_pb2.Summary.Value(tag=name, simple_value=float(value))
            for name, value in values.items()
            if not isinstance(value, str | None)
        ]
        if not numbers:
            return
        if self.events is None:
            self.events = _opened(self.folder)
        event = event_pb2.Event(summary=summary_pb2.Summary(value=numbers), step=int(step))
        event.wall_time = time.time()
        # Without the queue and the thread of tensorboardX.SummaryWriter: what is logged is written.
        self.events.write_event(event)
        if time.monotonic() - self.flushed > FLUSH:
            self.events.flush()
            self.flushed = time.monotonic()

    def close(self) -> None:
        """Writes what is buffered and closes the file."""
        if self.events is not None:
            self.events.close()
            self.events = None


def make(*, folder: pathlib.Path | None) -> EventFile:
    """Makes a tracker whose event files are in `folder`.

    Raises:
        ValueError: tensorboardX is not installed, or there is no folder.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        raise ValueError(
            "the tracker 'tensorboard' needs tensorboardX, which is not installed: "
            "pip install mia_jax[tensorboard]"
        )
    if folder is None:
        raise ValueError("the tracker 'tensorboard' writes files and needs a folder: pass folder=.")
    return EventFile(folder)


def _opened(folder: pathlib.Path):
    from tensorboardX import event_file_writer

    files.make_folder(folder)
    # tensorboardX names a file by the second and would overwrite another of the same second.
    name = f".{os.getpid()}.{secrets.token_hex(4)}"
    events = event_file_writer.EventsWriter(os.path.join(folder, "events"), name)
    for path in folder.glob(f"events*{name}"):
        path.chmod(files.FILE_MODE)  # like all files of a workdir
    return events
