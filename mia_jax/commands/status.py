"""Shows what is done, at work, missing and failed in a workdir, from its files alone.

mia-jax status runs/quickstart
mia-jax status runs/quickstart --json

Stage by stage: which models are trained, in training (their last epoch, and how old their saved
state is), missing or failed and why; how many models each signal was asked of; which attacks have
scores; the last line that each job of a cluster printed (--slurm). A workdir of several seeds or
of a grid shows each of its runs. Nothing is written, and no process is asked: a model that is in
training in a run that was killed is shown with the age of its last state. The exit code is 0 if
every run has its report, 1 if something is still to do, and 2 if a model failed.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from mia_jax.commands import watch
from mia_jax.runtime import files, remote, state
from mia_jax.runtime.state import ModelState, Reader, RunState
from mia_jax.runtime.store import Store, runs_below

SHOWN = 10  # failed models whose reason is shown
LAST = 100  # characters of the last line of a job


def main(arguments: Sequence[str]) -> int:
    """Prints the state of the runs; returns 0 (finished), 1 (not yet) or 2 (models failed).

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a file is in its place.
    """
    asked = parser().parse_args(list(arguments))
    if remote.scheme_of(asked.workdir) in ("", "file"):
        return told(watch.folder(Path(asked.workdir.removeprefix("file://"))), as_object=asked.json)
    owner = f"{files.machine()}.{os.getpid()}"
    where = dict(argument="WORKDIR", owner=owner)
    with remote.shown(asked.workdir, only=(".json", ".jsonl", ".out"), **where) as root:
        return told(root, as_object=asked.json)


def told(root: Path, *, as_object: bool) -> int:
    """Prints the state of the runs below a folder, and returns the exit code.

    Args:
        root: the folder.
        as_object: prints JSON.
    """
    states = [Reader(run).read() for run in runs_below(root)]
    if as_object:
        print(remote.named(json.dumps([as_json(seen) for seen in states], indent=1)))
    else:
        print(remote.named("\n\n".join("\n".join(lines(seen)) for seen in states)))
        for line in jobs(Store(root)):
            print(line)
    if any(seen.failed for seen in states):
        return 2
    return 0 if all(seen.status == state.FINISHED for seen in states) else 1


def parser() -> argparse.ArgumentParser:
    """Returns the reader of the command line."""
    reads = argparse.ArgumentParser(
        prog="mia-jax status",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    reads.add_argument("workdir", metavar="WORKDIR", help="the --workdir of a run")
    reads.add_argument("--json", action="store_true", help="prints a list with an object per run")
    return reads


def lines(seen: RunState) -> list[str]:
    """Returns the lines about one run."""
    made = [f"{seen.root}: {watch.status(seen)}"]
    made += [f"  train   {line}" for line in training(seen.model_states())]
    for name, count in seen.signals.items():
        made.append(f"  query   {name}: {count} of {seen.trained} models")
    if seen.attacks:
        waiting = [name for name in seen.attacks if name not in seen.attacked]
        done = f"{len(seen.attacks) - len(waiting)} of {len(seen.attacks)} attacks have scores"
        made.append(f"  attack  {done}{'; missing: ' + ', '.join(waiting) if waiting else ''}")
    report = "written" if seen.status == state.FINISHED else "missing"
    return [*made, f"  report  {report}", *(f"  note    {text}" for text in seen.troubles)]


def training(models: Sequence[ModelState]) -> list[str]:
    """Returns the lines about the models, equal ones together."""
    made = []
    for what in (state.DONE, state.IN_TRAINING, state.MISSING, state.FAILED):
        group = [model for model in models if model.state == what]
        if group:
            made.append(f"{len(group)} {what}: {ranges(model.model for model in group)}")
        if what == state.IN_TRAINING:
            made += [f"  {line}" for line in in_training(group)]
        if what == state.FAILED:
            made += [f"  model {model.model}: {model.message}" for model in group[:SHOWN]]
    return made


def in_training(group: Sequence[ModelState]) -> list[str]:
    """Returns a line for models with the same last epoch and the same saved state."""
    together: dict[tuple, list[int]] = {}
    for model in group:
        age = None if model.age is None else state.since(model.age)
        together.setdefault((model.epoch, age), []).append(model.model)
    made = []
    for (epoch, age), numbers in together.items():
        reached = "no epoch yet" if epoch is None else f"epoch {epoch}"
        saved = "no state saved yet" if age is None else f"state saved {age}"
        made.append(f"{ranges(numbers)}: {reached}, {saved}")
    return made


def ranges(numbers: Iterable[int]) -> str:
    """Returns sorted numbers with runs of neighbors as ranges.

    >>> ranges([0, 1, 2, 5, 7, 8])
    '0-2, 5, 7-8'
    """
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] == number - 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)


def jobs(store: Store) -> list[str]:
    """Returns the last line that each job of a cluster printed."""
    made = []
    for path in store.job_outputs():
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            text = file.read().decode(errors="replace").replace("\r", "\n").strip()
        last = text.splitlines()[-1] if text else "(nothing printed yet)"
        made.append(f"  job     {path.stem}: {last[:LAST]}")
    return made


def as_json(seen: RunState) -> dict:
    """Returns the state of a run as an object of JSON."""
    models = [
        {name: value for name, value in model._asdict().items() if value not in (None, "")}
        for model in seen.model_states()
    ]
    return dict(
        workdir=str(seen.root),
        status=seen.status,
        models=models,
        signals=dict(seen.signals),
        attacks={name: name in seen.attacked for name in seen.attacks},
        report=seen.status == state.FINISHED,
        last_change_s=seen.age,
        troubles=list(seen.troubles),
    )
