"""Writes run.json: what produced the results of a workdir, and how long each stage took."""

from __future__ import annotations

import datetime
import pathlib
import platform
import subprocess
import time
from collections.abc import Callable, Mapping

from mia_jax.runtime import files, jobs, machine

Path = pathlib.Path


def unless_read_only(write: Callable, *, strict: bool) -> None:
    """Calls write(); a read-only disk is an error only if `strict`."""
    try:
        write()
    except OSError as error:
        if strict or error.errno not in files.READ_ONLY:
            raise


class RunLog:
    """Records every start of a run in this workdir in run.json.

    An entry holds the versions, devices, arithmetic and revision of the start, and the seconds that
    each of its stages took, by the clock and of all threads of this process together.

    Args:
        path: the path of run.json.
        seed: the seed of the run.
        numerics: the arithmetic of the run (runtime.precision.settings).
    """

    def __init__(self, path: Path, *, seed: int, numerics: Mapping):
        self.path, self.begun = path, False
        self.runs: list[dict] | None = None  # the earlier starts, read when this one is written
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.run = versions() | dict(
            numerics=dict(numerics), seed=seed, started=started, seconds={}, cpu_seconds={}
        )

    def begin(self) -> None:
        """Writes the entry of this start; called once the run has something to do."""
        self.begun = True
        self.write()

    def write(self) -> None:
        """Writes the file with this start as its last entry; a damaged file is set aside."""
        if self.runs is None:
            try:
                self.runs = (
                    files.read_json(self.path, needs=dict(runs=list))["runs"]
                    if self.path.exists()
                    else []
                )
            except ValueError as error:
                aside = files.set_aside(self.path)
                kept = "" if aside is None else f" It is kept as {aside.name};"
                jobs.say(f"{error}{kept} no result depends on it.")
                self.runs = []
        files.write_json(self.path, dict(runs=[*self.runs, self.run]), seal=True)

    def timed(self, stage: str, work):
        """Returns the result of work() and records its seconds, also if it fails."""
        start = time.monotonic(), time.process_time()
        try:
            result = work()
        except BaseException:
            self._took(stage, *start, done=False)
            raise
        self._took(stage, *start, done=True)
        return result

    def _took(self, stage: str, start: float, cpu_start: float, *, done: bool) -> None:
        """Records the seconds of a stage, and writes the file if this start has an entry in it."""
        self.run["seconds"][stage] = round(time.monotonic() - start, 3)
        self.run["cpu_seconds"][stage] = round(time.process_time() - cpu_start, 3)
        if self.begun or (done and self.path.exists()):
            unless_read_only(self.write, strict=self.begun)


def versions() -> dict:
    """Returns the versions, the machine and the revision on which a result depends."""
    numeric = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "scikit-learn")
    packages = (*numeric, "ml_collections", *machine.COMPILERS)
    here = Path(__file__).resolve().parent
    try:
        revision = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        revision = None
    now = machine.here()
    return dict(
        packages=machine.installed(packages),
        python=platform.python_version(),
        platform=now.platform,
        device_kind=now.device_kind,
        num_devices=now.devices,
        cores=now.cores,
        processor=now.processor,
        git=revision,
    )
