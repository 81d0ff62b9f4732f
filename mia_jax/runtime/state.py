"""Reads how far a run has come, from the files of its workdir alone; writes nothing.

No file says that a process is alive. What can be known is when a file last changed, and which
stages the last start has ended: `RunState.status` says no more than that.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mia_jax.runtime import files, sealed
from mia_jax.runtime.progress import duration
from mia_jax.runtime.store import Store

DONE, IN_TRAINING, MISSING, FAILED = "done", "in training", "missing", "failed"
FINISHED, ENDED, RUNNING, SILENT, EMPTY = "finished", "ended", "running", "silent", "empty"
ALIVE = 120.0  # seconds without a change after which a run may have been killed
SETTLED = 3.0  # seconds after which a stage that ended was the last one
EPOCHS = 5  # epochs that are shown


class ModelState(NamedTuple):
    """Holds what the files say of one model.

    Attributes:
        model: its number.
        state: DONE, FAILED, IN_TRAINING (it has epochs or a saved state) or MISSING.
        epoch: the last epoch with metrics; None if there is none.
        age: seconds since its state was saved; None if there is none.
        message: why it failed.
    """

    model: int
    state: str
    epoch: int | None = None
    age: float | None = None
    message: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunState:
    """Holds what the files of one workdir say.

    Attributes:
        root: the workdir.
        status: FINISHED (there is a report), ENDED (the last start ended before that: paused or
            failed), RUNNING (a file changed lately), SILENT (none did) or EMPTY (no run yet).
        stage: the stage that was ended last, or ''.
        models, epochs: what the config asks for; 0 if nothing is trained.
        finished: the numbers of the models that are trained.
        failed: {model: reason}.
        of_epoch: {epoch: {model: {metric: value}}}.
        signals: {signal: how many models have answered}.
        attacks, attacked: the attacks of the config, and those with scores.
        age: seconds since the last change; None for an empty workdir.
        seconds: {stage: seconds} of the last start.
        started: when the last start began, in seconds of time.time(); None if that is unknown.
        starts: how many starts there were.
        checkpoint_age: {model: seconds since its group's state was saved}, of models in training.
        troubles: files that cannot be read, in sentences.
    """

    root: Path
    status: str
    stage: str = ""
    models: int = 0
    epochs: int = 0
    finished: frozenset[int] = frozenset()
    failed: Mapping[int, str] = dataclasses.field(default_factory=dict)
    of_epoch: Mapping[int, Mapping[int, Mapping[str, float]]] = dataclasses.field(
        default_factory=dict
    )
    signals: Mapping[str, int] = dataclasses.field(default_factory=dict)
    attacks: Sequence[str] = ()
    attacked: Sequence[str] = ()
    age: float | None = None
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    started: float | None = None
    starts: int = 0
    checkpoint_age: Mapping[int, float] = dataclasses.field(default_factory=dict)
    troubles: Sequence[str] = ()

    @property
    def trained(self) -> int:
        """Returns how many models are trained."""
        return len(self.finished)

    @property
    def trained_epochs(self) -> int:
        """Returns how many epochs of models are done; all of a finished model count, and none of a
        failed one.
        """
        others = self.finished | set(self.failed)
        at_work = sum(m not in others for of_model in self.of_epoch.values() for m in of_model)
        return self.trained * self.epochs + at_work

    @property
    def all_epochs(self) -> int:
        """Returns how many epochs of models there will be, unless models stop early."""
        return max(self.models - len(self.failed), 0) * self.epochs

    def model_states(self) -> list[ModelState]:
        """Returns what is known of every model, in the order of their numbers."""
        last_epoch: dict[int, int] = {}
        for reached, of_model in self.of_epoch.items():
            for m in of_model:
                last_epoch[m] = max(reached, last_epoch.get(m, 0))
        states = []
        for m in range(max([self.models, *(n + 1 for n in self.finished)])):
            epoch, age = last_epoch.get(m), self.checkpoint_age.get(m)
            if m in self.finished:
                states.append(ModelState(m, DONE, epoch))
            elif m in self.failed:
                states.append(ModelState(m, FAILED, epoch, message=self.failed[m]))
            elif epoch is not None or age is not None:
                states.append(ModelState(m, IN_TRAINING, epoch, age))
            else:
                states.append(ModelState(m, MISSING))
        return states

    def means(self) -> list[dict]:
        """Returns [{epoch, models, <metric>: mean over these models}] of the last epochs."""
        rows = []
        for epoch in sorted(self.of_epoch)[-EPOCHS:]:
            of_model = list(self.of_epoch[epoch].values())
            names = dict.fromkeys(name for numbers in of_model for name in numbers)
            values = {name: [m[name] for m in of_model if name in m] for name in names}
            means = {name: sum(v) / len(v) for name, v in values.items() if v}
            rows.append(dict(epoch=epoch, models=len(of_model)) | means)
        return rows


class Reader:
    """Reads one workdir again and again; of the training metrics only what was appended."""

    def __init__(self, root: Path):
        self.store = Store(root)
        self.read_of: dict[Path, tuple[int, bytes]] = {}  # how far each file is read; a torn line
        self.of_epoch: dict[int, dict[int, dict[str, float]]] = {}
        self.troubles: list[str] = []

    def read(self) -> RunState:
        """Returns what the files say now."""
        store, self.troubles = self.store, []
        config = self._json(store.config)
        logs = [log for path in store.logs() if (log := self._json(path))]
        starts = [start for log in logs for start in log.get("runs", []) if isinstance(start, dict)]
        starts.sort(key=lambda start: str(start.get("started", "")))
        last = starts[-1] if starts else {}
        age = self._age()
        if age is None or not (config or starts):
            return RunState(root=store.root, status=EMPTY, age=age, troubles=tuple(self.troubles))
        self._read_metrics()
        design, learner = (_section(config, name) for name in ("design", "learner"))
        trains = "scores" not in config
        failed = {
            int(path.stem): str(self._json(path).get("reason", "for a reason that is not readable"))
            for path in store.train.failures()
            if not store.train.model(int(path.stem)).exists()
        }
        seconds = _section(last, "seconds")
        return RunState(
            root=store.root,
            status=self._status(age, seconds),
            stage=list(seconds)[-1] if seconds else "",
            models=_whole(design.get("models")) if trains else 0,
            epochs=_whole(learner.get("epochs")) if trains else 0,
            finished=frozenset(int(path.stem) for path in store.train.models()),
            failed=failed,
            of_epoch=self.of_epoch,
            signals=store.answers.counted(),
            attacks=tuple(_section(config, "attacks")),
            attacked=tuple(
                place.folder.name for place in store.attacked() if place.scores.exists()
            ),
            age=age,
            seconds=seconds,
            started=_moment(last.get("started")),
            starts=len(starts),
            checkpoint_age=self._checkpoint_ages(),
            troubles=tuple(self.troubles),
        )

    def _status(self, age: float, seconds: Mapping) -> str:
        if self.store.report.json.exists():
            return FINISHED
        logs = [_modified(path) for path in self.store.logs()]
        # the last files of a start are written right after its log
        newest_is_log = bool(logs) and time.time() - max(logs) <= age + SETTLED
        if seconds and newest_is_log and age > SETTLED:
            return ENDED
        return RUNNING if age < ALIVE else SILENT

    def _json(self, path: Path) -> dict:
        """Returns an object; {} if there is none, and a sentence if it cannot be read."""
        try:
            value = files.read_json(path) if path.exists() else {}
        except (ValueError, OSError) as error:
            self.troubles.append(str(error).split(". ")[0].rstrip(".") + ".")
            return {}
        return value if isinstance(value, dict) else {}

    def _checkpoint_ages(self) -> dict[int, float]:
        """Returns {model: seconds since the state of its group was saved}."""
        ages: dict[int, float] = {}
        for path in self.store.train.running_groups():
            numbers = re.match(r"(\d+)-(\d+)", path.name)
            if numbers:
                for m in range(int(numbers[1]), int(numbers[2]) + 1):
                    ages[m] = max(time.time() - _modified(path), 0.0)
        return ages

    def _age(self) -> float | None:
        """Returns the seconds since a file changed; None if there is no file."""
        times = [_modified(path) for path in self.store.root.rglob("*")]
        return max(time.time() - max(times), 0.0) if times else None

    def _read_metrics(self) -> None:
        """Adds the lines that were appended since the last call; a torn last line waits."""
        paths = self.store.all_training_metrics()
        lost = [path for path in self.read_of if path not in paths or self._shorter(path)]
        if lost:  # after --extend, or of another run
            self.read_of.clear()
            self.of_epoch.clear()
        for path in paths:
            try:
                self._read_lines(path)
            except OSError as error:
                self.troubles.append(f"{path}: {error.strerror}.")

    def _shorter(self, path: Path) -> bool:
        try:
            return path.stat().st_size < self.read_of[path][0]
        except OSError:
            return True

    def _read_lines(self, path: Path) -> None:
        position, rest = self.read_of.get(path, (0, b""))
        with open(path, "rb") as file:
            file.seek(position)
            data = file.read()
        *lines, rest = (rest + data).split(b"\n")
        self.read_of[path] = position + len(data), rest
        for line in lines:
            try:
                record = sealed.json_value(line.decode())
                epoch, m = int(record["epoch"]), int(record["model"])
            except (ValueError, KeyError, TypeError):
                continue  # of a killed process
            self.of_epoch.setdefault(epoch, {})[m] = {
                name: value
                for name, value in record.items()
                if isinstance(value, int | float) and name not in ("epoch", "model")
            }


class Rate:
    """Estimates how fast epochs are trained, from the states that were seen.

    The first estimate is from the start of the run, if there was only one start.
    """

    def __init__(self) -> None:
        self.first: tuple[float, int] | None = None

    def seconds_left(self, state: RunState) -> float | None:
        """Returns the seconds until the training ends; None if that is unknown."""
        if state.age is None or state.trained_epochs >= state.all_epochs:
            return None
        # The time of the last change, not of the look: between two epochs nothing is written.
        now, done = time.time() - state.age, state.trained_epochs
        if self.first is None:
            self.first = (state.started, 0) if state.starts == 1 and state.started else (now, done)
        begin, before = self.first
        if done <= before or now <= begin:
            return None
        return (state.all_epochs - done) * (now - begin) / (done - before)


def since(seconds: float) -> str:
    """Returns when something happened: 'now', '3 min ago'.

    >>> since(0.2), since(180)
    ('now', '3 min ago')
    """
    return "now" if seconds < 1 else f"{duration(seconds)} ago"


def _section(tree: Mapping, name: str) -> dict:
    value = tree.get(name)
    return dict(value) if isinstance(value, Mapping) else {}


def _whole(value) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _moment(text) -> float | None:
    try:
        return datetime.datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def _modified(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:  # renamed in between
        return 0.0
