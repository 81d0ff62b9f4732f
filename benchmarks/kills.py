"""Kills a run, starts it again, and compares every file with an undisturbed run.

    python -m benchmarks.kills [--quick] [--operations 60] [--times 60] [--pauses 20]
        [--processes 0] [--seed 0]

The ways of dying:

    operations  The process dies before, within or after a file operation (open, fsync, rename,
                link, unlink, mkdir, append); the operations are spread evenly over the run. This is
                simulated in one process (benchmarks/_disk.py), so that programs are compiled once.
    times       The same at random times.
    pauses      The run is asked to stop (as by SIGTERM) at its n-th safe place.
    processes   A separate process of the same run gets kill -9 after a random time.

A run is `identical` if the second start ends and every file is the same byte for byte, including
provenance (except run.json and the order of lines of metrics.jsonl; no temporary file may be left).
It is `stuck` if it does not end, and `lost` if a file differs. Prints a Markdown table; exits with
1 unless all are identical.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks import _disk
from mia_jax.runtime import jobs


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kills",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, count in (
        ("operations", 60),
        ("times", 60),
        ("pauses", 20),
        ("processes", 0),
        ("seed", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--quick", action="store_true", help="six of each")
    flags = parser.parse_args(arguments)
    if flags.quick:
        flags.operations, flags.times, flags.pauses = (
            min(6, n) for n in (flags.operations, flags.times, flags.pauses)
        )
    audit, failed = _disk.prepared(), 0
    print(
        "| kill | tried | identical | stuck | lost | temporary files left "
        "|\n|---|---|---|---|---|---|",
        flush=True,
    )
    for name, outcomes in (
        ("at chosen file operations", operations(audit, flags.operations)),
        ("at random times", times(audit, flags.times, seed=flags.seed)),
        ("paused at safe places", pauses(audit, flags.pauses)),
        ("kill -9 of processes", processes(flags.processes, seed=flags.seed)),
    ):
        results = list(outcomes)
        if results:
            counts = Counter(word for word, *_ in results)
            line = [
                name,
                len(results),
                counts["identical"],
                counts["stuck"],
                counts["lost"],
                sum(left for *_, left in results),
            ]
            print("| " + " | ".join(map(str, line)) + " |", flush=True)
            for word, where, why, _ in results:
                if word != "identical":
                    print(f"  {word}: {where}: {why}", flush=True)
            failed += len(results) - counts["identical"]
    return int(failed > 0)


def reference(audit, root: Path) -> tuple[dict, int, float]:
    """Returns an undisturbed run's files, its number of file operations, and its seconds."""
    with _disk.quiet():
        _disk.run(audit, root / "warm")
        start = time.monotonic()
        disk = _disk.Disk(root / "whole")
        with disk.mounted():
            _disk.run(audit, root / "whole")
    return _disk.contents(root / "whole"), len(disk.log), time.monotonic() - start


def outcome(audit, folder: Path, whole: dict, where: str) -> tuple[str, str, str, int]:
    """Starts a run again after a death.

    Returns:
        (identical, stuck or lost; where it died; why; the number of temporary files left).
    """
    with _disk.quiet():
        try:
            _disk.run(audit, folder)
        except Exception as error:
            return (
                "stuck",
                where,
                f"{type(error).__name__}: {error}",
                len(list(folder.rglob("*.tmp"))),
            )
    left = len(list(folder.rglob("*.tmp")))
    differing = _disk.differences(whole, _disk.contents(folder))
    return ("lost" if differing else "identical"), where, ", ".join(differing[:4]), left


def operations(audit, count: int, *, modes=_disk.MODES):
    """Yields outcomes of deaths at `count` evenly spread operations; the modes take turns."""
    if not count:
        return
    with tempfile.TemporaryDirectory() as place:
        whole, total, _ = reference(audit, Path(place))
        for i, at in enumerate(_disk.spread_out(total, count)):
            yield killed(audit, Path(place) / f"{at}", whole, at=at, mode=modes[i % len(modes)])


def killed(audit, folder: Path, whole: dict, **death) -> tuple[str, str, str, int]:
    """Returns the outcome of a run that dies once."""
    disk = _disk.Disk(folder, **death)
    with _disk.quiet(), disk.mounted():
        try:
            _disk.run(audit, folder)
        except _disk.Killed:
            pass
    kind, path = disk.log[-1] if disk.log else ("", "")
    return outcome(
        audit, folder, whole, f"{disk.mode} {kind} {Path(path).name} ({len(disk.log)} operations)"
    )


def times(audit, count: int, *, seed: int):
    """Yields outcomes of deaths at random times."""
    if not count:
        return
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        whole, _, seconds = reference(audit, Path(place))
        for i in range(count):
            yield killed(
                audit,
                Path(place) / f"{i}",
                whole,
                seconds=rng.uniform(0, seconds),
                mode=rng.choice(_disk.MODES),
            )


def pauses(audit, count: int):
    """Yields outcomes of runs that are asked to stop at a safe place."""
    if not count:
        return
    with tempfile.TemporaryDirectory() as place:
        whole, *_ = reference(audit, Path(place))
        counted = _disk.Countdown(10**9)
        with _disk.quiet():
            _disk.run(audit, Path(place) / "counted", pause=counted)
        for places in _disk.spread_out(10**9 - counted.left, count):
            folder = Path(place) / f"{places}"
            with _disk.quiet():
                try:
                    _disk.run(audit, folder, pause=_disk.Countdown(places))
                except jobs.Paused:
                    pass
            yield outcome(audit, folder, whole, f"safe place {places}")


COMMAND = (
    "from benchmarks import _disk; import sys, pathlib\nwith _disk.quiet():\n    "
    "_disk.run(_disk.prepared(), pathlib.Path(sys.argv[1]))"
)


def processes(count: int, *, seed: int):
    """Yields outcomes of processes that get kill -9."""
    if not count:
        return
    rng = random.Random(seed)
    command = [sys.executable, "-c", COMMAND]
    with tempfile.TemporaryDirectory() as place:
        start = time.monotonic()
        subprocess.run([*command, f"{place}/warm"], check=True)
        subprocess.run([*command, f"{place}/whole"], check=True)
        seconds, whole = (time.monotonic() - start) / 2, _disk.contents(Path(place) / "whole")
        for i in range(count):
            folder = Path(place) / f"{i}"
            process = subprocess.Popen([*command, str(folder)])
            time.sleep(rng.uniform(0.2, 1) * seconds)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            done = len(list(folder.rglob("*"))) if folder.exists() else 0
            again = subprocess.run([*command, str(folder)], capture_output=True, text=True)
            where, left = f"after {done} files", len(list(folder.rglob("*.tmp")))
            differing = _disk.differences(whole, _disk.contents(folder))
            word = "stuck" if again.returncode else "lost" if differing else "identical"
            yield word, where, again.stderr[-200:] or ", ".join(differing[:4]), left


if __name__ == "__main__":
    sys.exit(main())
