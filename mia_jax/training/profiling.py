"""Traces chosen epochs of a training with jax.profiler: what host and device do, operation by
operation.

A trace says where the time of a step goes. XProf reads it (`xprof --logdir WORKDIR/profile`), and
ui.perfetto.dev opens its *.trace.json.gz. A traced epoch is the same program on the same numbers.
"""

from __future__ import annotations

import contextlib
import pathlib
import threading
from collections.abc import Callable, Iterator, Sequence

import jax

from mia_jax.runtime import jobs


class Profiler:
    """Writes a trace of each chosen epoch, of the chunk of models that reaches it first.

    JAX has one profiler per process, so chunks that train at the same time are in the same trace.

    Args:
        epochs: the chosen epochs, from 1 on.
        folder: folder(epoch) is where the trace of an epoch is written.
    """

    def __init__(self, epochs: Sequence[int], folder: Callable[[int], pathlib.Path]):
        self.left, self.folder = set(epochs), folder
        self.lock, self.busy = threading.Lock(), False

    @contextlib.contextmanager
    def of(self, epoch: int) -> Iterator[bool]:
        """Yields whether what runs in this context is traced; it has to end within the context."""
        with self.lock:
            traced = epoch in self.left and not self.busy
            if traced:
                self.left.remove(epoch)
                self.busy = True
        if not traced:
            yield False
            return
        try:
            started = self._start(epoch)
            try:
                yield started
            finally:
                if started:
                    jax.profiler.stop_trace()
                    jobs.say(f"train: the trace of epoch {epoch} is in {self.folder(epoch)}")
        finally:
            self.busy = False

    def _start(self, epoch: int) -> bool:
        """Starts a trace; says why if that is not possible, and the training goes on."""
        try:
            jax.profiler.start_trace(self.folder(epoch))
        except (RuntimeError, OSError) as error:
            jobs.say(f"warning: epoch {epoch} is not traced (run.profile): {error}")
            return False
        return True
