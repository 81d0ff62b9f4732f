"""Simulates a disk on which a process dies at a chosen file operation, and the run that is killed.

The death is a BaseException in this process. It is raised before, within or after one operation
inside a folder; from then on every other operation of the dead run is refused, so that no `finally`
tidies up. The next start of the run then sees what kill -9 leaves, with its programs still
compiled.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from unittest import mock

import numpy as np

from mia_jax import configuration
from mia_jax.pipeline import build
from mia_jax.pipeline import run as pipeline_run
from mia_jax.pipeline.experiment import Experiment
from mia_jax.query import interactive
from mia_jax.runtime import jobs, precision, provenance
from mia_jax.runtime.store import Store
from mia_jax.training import fleet

Path = pathlib.Path
MODES = ("before", "half", "after")
STAGES = pipeline_run.STAGES


class Killed(BaseException):
    """Stands for the death of the process."""


class Disk:
    """Counts the file operations inside a folder, and dies at one of them.

    Args:
        root: the folder. `log` has the kind and the path of each operation.
        at: the number of the operation at which the process dies.
        mode: before, half (within) or after the operation.
        seconds: the process dies at the first operation after this time.
    """

    def __init__(
        self,
        root: Path,
        *,
        at: int | None = None,
        mode: str = "before",
        seconds: float | None = None,
    ):
        self.root, self.at, self.mode = str(root), at, mode
        self.end = None if seconds is None else time.monotonic() + seconds
        self.log: list[tuple[str, str]] = []
        self.dead, self.paths, self.lock = False, {}, threading.Lock()

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Disk]:
        """Sends the operations of `os` through this disk.

        Temporary files have the number of a process that is dead.
        """
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        names = dict(replace=1, rename=1, link=1, unlink=0, mkdir=0)
        with contextlib.ExitStack() as stack:
            for name, which in names.items():
                stack.enter_context(
                    mock.patch.object(os, name, self._of_path(name, getattr(os, name), which))
                )
            stack.enter_context(mock.patch.object(os, "open", self._open(os.open)))
            for name in ("fsync", "write"):
                stack.enter_context(
                    mock.patch.object(os, name, self._of_file(name, getattr(os, name)))
                )
            stack.enter_context(mock.patch.object(os, "getpid", lambda: gone.pid))
            yield self

    def _step(self, kind: str, path: str, do: Callable, half: Callable | None = None):
        if not path.startswith(self.root):
            return do()
        with self.lock:
            if self.dead:
                raise Killed
            due = len(self.log) == self.at or (
                self.end is not None and time.monotonic() >= self.end
            )
            self.log.append((kind, path))
            self.dead = due
        if not due:
            return do()
        if self.mode == "after":
            do()
        elif self.mode == "half" and half is not None:
            half()
        raise Killed

    def _of_path(self, kind: str, do: Callable, which: int) -> Callable:
        return lambda *args, **more: self._step(kind, str(args[which]), lambda: do(*args, **more))

    def _open(self, do: Callable) -> Callable:
        def opened(path, flags, *args, **more):
            if not flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
                return do(path, flags, *args, **more)

            def kept():
                descriptor = do(path, flags, *args, **more)
                self.paths[descriptor] = str(path)
                return descriptor

            return self._step("open", str(path), kept)

        return opened

    def _of_file(self, kind: str, do: Callable) -> Callable:
        def done(descriptor, *data):
            def half():
                if data:
                    do(descriptor, bytes(data[0])[: len(data[0]) // 2])
                else:
                    os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)

            return self._step(
                kind, self.paths.get(descriptor, ""), lambda: do(descriptor, *data), half
            )

        return done


def config(*, seed: int = 0, learning_rate: float = 0.1, private: bool = False) -> dict:
    """Returns the config of a fleet of six nets that uses most kinds of files.

    It has two snapshots, checkpoints, a signal that counts its queries, and attacks that are
    repeated over the epochs.
    """
    guarded = (
        dict(gradient="private", privacy=dict(clip_norm=1.0, noise_multiplier=1.0, delta=1e-3))
        if private
        else {}
    )
    completed = configuration.complete(
        seed=seed,
        data=dict(name="synthetic", examples=60, features=10, classes=3, random_labels=True),
        design=dict(name="halves", models=6),
        model=dict(name="mlp", widths=(8,)),
        learner=dict(epochs=4, batch_size=10, learning_rate=learning_rate, snapshots=(2, 4))
        | guarded,
        query=dict(ask_batch_size=20),
        attacks=dict(
            loss=dict(name="threshold", signal="loss"),
            lira=dict(),
            distance=dict(name="threshold", signal="boundary_distance:iterations=1,box=none"),
        ),
        report=dict(draws=40, figures=False, epochs=("loss",)),
        run=dict(chunk=2, lanes=1, checkpoint_every=1),
    )
    return pipeline_run.plain(completed)


def prepared(**fields) -> Experiment:
    """Builds the experiment of `config`, so that all its runs use the same compiled programs."""
    settings = config(**fields)
    return build.build({k: v for k, v in settings.items() if k != "seed"}, seed=settings["seed"][0])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Removes lines on stderr, and the clock and the revision in the files.

    Partial answers are on disk after every batch.
    """
    clock = types.SimpleNamespace(**{**vars(time), "monotonic": lambda: 0.0})
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(fleet, "time", clock))
        stack.enter_context(mock.patch.object(interactive, "SAVE_EVERY", -1.0))
        stack.enter_context(
            mock.patch.object(provenance, "versions", lambda: dict(git="of no commit"))
        )
        stack.enter_context(contextlib.redirect_stderr(stack.enter_context(open(os.devnull, "w"))))
        yield


def run(audit: Experiment, folder: Path, *, stages=STAGES, pause: Callable = lambda: None) -> dict:
    """Runs the stages of one run in this process."""
    with precision.single():
        return pipeline_run.run_one(
            audit,
            store=Store(folder, audit.run),
            stages_wanted=stages,
            extend=False,
            task=None,
            pause=pause,
            numerics=precision.settings(),
        )


def contents(folder: Path) -> dict[str, object]:
    """Returns {path: bytes} of a workdir without run.json, which holds times.

    The value of metrics.jsonl is the set of its lines, and of those of tasks.
    """
    by_path: dict[str, object] = {}
    metrics: set[str] = set()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name.startswith("metrics."):
            metrics |= set(path.read_text().splitlines())
            by_path["metrics.jsonl"] = metrics
        elif not name.startswith("run"):
            by_path[name] = path.read_bytes()
    return by_path


def differences(expected: dict, actual: dict) -> list[str]:
    """Returns the names of the files in which two workdirs differ.

    Incomplete lines that a killed process left in metrics.jsonl are no difference.
    """
    whole = (
        {k: v for k, v in expected.items() if k != "metrics.jsonl"},
        {k: v for k, v in actual.items() if k != "metrics.jsonl"},
    )
    differing = sorted(k for k in {*whole[0], *whole[1]} if whole[0].get(k) != whole[1].get(k))
    return differing + ["metrics.jsonl"] * bool(
        expected.get("metrics.jsonl", set()) - actual.get("metrics.jsonl", set())
    )


class Countdown:
    """Asks to stop at the n-th safe place."""

    def __init__(self, places: int):
        self.left = places

    def __call__(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise jobs.Paused


def spread_out(total: int, count: int) -> list[int]:
    """Returns `count` different numbers below `total`, evenly spaced."""
    return sorted({int(i) for i in np.linspace(0, total - 1, min(count, total))})
