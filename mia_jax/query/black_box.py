"""Queries a deployed model as a black box that answers labels: config.target.black_box.

Queries are sent in batches and at a limited rate, and the same example is never sent twice. Every
answer is appended to a log (24 bytes per query: digest of the example, label, checksum) before the
next batch is sent, so that a run that was interrupted, or whose black box failed, continues where
it stopped. A record with a wrong checksum is asked again. Logs of older versions, with 20 bytes per
query and no checksum, can be read.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import pathlib
import time
import zlib
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax import checks
from mia_jax.query import interactive
from mia_jax.runtime import files, jobs, precision, store
from mia_jax.types import Examples, Pool, Probe, Signal, Task

Path = pathlib.Path
RECORD = np.dtype([("digest", "V16"), ("label", "<i4"), ("check", "<u4")])
OLD_RECORD = np.dtype([("digest", "V16"), ("label", "<i4")])
# The start of the log's first record; its other 8 bytes are a digest of the black box's name.
HEAD = b"mia_jax log v2\n\n"


class BlackBox:
    """Answers labels of examples by a black box, with a log of all answers.

    Args:
        answer: answer(x_B..) -> labels [B], for examples in float32 (tokens: int32).
        num_classes: labels are 0..num_classes-1.
        log: the file of the answers.
        rate: the largest number of queries per second; 0 sets no limit.
        batch_size: the largest number of examples in one call of `answer`.
        name: the name of the black box, to which the log belongs.

    Attributes:
        asked: the number of queries of this run.
        known: the number of queries of this run and of the log.

    Raises:
        ValueError: if the log belongs to another black box or is damaged. `label` raises it for an
            answer that cannot be a label; the answers before it stay in the log.
    """

    def __init__(
        self,
        answer: Callable,
        *,
        num_classes: int,
        log: Path,
        rate: float = 0.0,
        batch_size: int = 256,
        name: str = "",
    ):
        checks.at_least(0, **{"target.rate": rate})
        checks.at_least(1, **{"target.batch_size": batch_size})
        self.answer, self.num_classes, self.log, self.rate, self.batch_size = (
            answer,
            num_classes,
            log,
            rate,
            batch_size,
        )
        self.asked, self.due = 0, time.monotonic()
        self.head = HEAD + hashlib.blake2b(name.encode(), digest_size=8).digest()
        self.labels, self.whole = self._read()

    def _read(self) -> tuple[dict[bytes, int], bool]:
        """Returns ({digest of an example: label}, whether the log can be appended to as it is)."""
        data = self.log.read_bytes() if self.log.exists() else b""
        if data.startswith(HEAD) and len(data) >= len(self.head):
            if not data.startswith(self.head):
                raise ValueError(
                    f"{self.log} belongs to another black box. Delete it to ask this one, or use "
                    "another workdir."
                )
            records = np.frombuffer(data, RECORD, len(data) // RECORD.itemsize)[1:]
            good = [
                record
                for record in records
                if record["check"] == _check(record["digest"].tobytes(), int(record["label"]))
            ]
        else:
            data = b"" if self.head.startswith(data) else data
            good = records = np.frombuffer(data, OLD_RECORD, len(data) // OLD_RECORD.itemsize)
        labels = {record["digest"].tobytes(): int(record["label"]) for record in good}
        outside = [label for label in labels.values() if not 0 <= label < self.num_classes]
        if outside:
            raise ValueError(
                f"{self.log} is damaged (it holds the label {outside[0]}, and there are "
                f"{self.num_classes} classes). Delete it to ask the black box "
                "again, or put a copy of it back."
            )
        if len(good) < len(records):
            jobs.say(
                f"query: {len(records) - len(good)} of {len(records)} answers in {self.log} are "
                "damaged; they are asked again."
            )
        return labels, data.startswith(self.head) and len(data) == (len(good) + 1) * RECORD.itemsize

    def _keep(self, labels: Mapping[bytes, int]) -> None:
        """Appends answers to the log.

        A log that is new, of an older version or cut off in the middle is rewritten as a whole.
        """
        self.labels |= labels
        if self.whole:
            files.append(self.log, _records(labels))
        else:
            files.write(self.log, lambda file: file.write(self.head + _records(self.labels)))
            self.whole = True

    @property
    def known(self) -> int:
        """Returns the number of different queries that were answered, in all runs."""
        return len(self.labels)

    def label(self, x) -> jax.Array:
        """Returns the labels [B] int32 of examples; each different example is sent once."""
        x = np.asarray(x)
        # Tokens stay whole numbers.
        x = np.ascontiguousarray(x, x.dtype if x.dtype.kind in "iu" else np.float32)
        digests = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in x]
        new = list(dict.fromkeys(d for d in digests if d not in self.labels))
        place = {d: i for i, d in reversed(list(enumerate(digests)))}
        for start in range(0, len(new), self.batch_size):
            part = new[start : start + self.batch_size]
            self._wait(len(part))
            with precision.as_the_user():
                labels = self._checked(self.answer(x[[place[d] for d in part]]), len(part))
            self._keep(dict(zip(part, labels.tolist(), strict=True)))
            self.asked += len(part)
        return jnp.asarray([self.labels[d] for d in digests], jnp.int32)

    def _wait(self, count: int) -> None:
        if self.rate:
            time.sleep(max(0.0, self.due - time.monotonic()))
            self.due = max(self.due, time.monotonic()) + count / self.rate

    def _checked(self, answered, count: int) -> np.ndarray:
        label_B = np.asarray(answered)
        if label_B.shape != (count,) or label_B.dtype.kind not in "iub":
            raise ValueError(
                f"the black box answered {count} queries with shape {label_B.shape} of "
                f"{label_B.dtype}; expected ({count},) whole numbers."
            )
        outside_B = (label_B < 0) | (label_B >= self.num_classes)
        if outside_B.any():
            raise ValueError(
                f"the black box answered {int(outside_B.sum())} of {count} queries with labels "
                f"outside 0..{self.num_classes - 1}; the first is "
                f"{label_B[outside_B][0]}. The {self.known} answers so far are kept in {self.log}; "
                "run the query stage again once it is fixed."
            )
        return label_B.astype(np.int32)


def _check(digest: bytes, label: int) -> int:
    return zlib.crc32(digest + label.to_bytes(4, "little", signed=True))


def _records(labels: Mapping[bytes, int]) -> bytes:
    return np.array([(np.void(d), v, _check(d, v)) for d, v in labels.items()], RECORD).tobytes()


def answering(name: str, *, folder: Path) -> Callable:
    """Returns the function that answers queries, answer(x_B..) -> label_B.

    Args:
        name: 'package.module.function', which is imported, or an npz file with x [Q,...] and
            label [Q].
        folder: where the queries are written that the npz file does not answer
            (unanswered.npz); the function then raises ValueError.

    Raises:
        ValueError: if `name` is neither.
        FileNotFoundError: if the npz file does not exist.
    """
    if not name.endswith(".npz"):
        module, _, function = name.rpartition(".")
        try:
            return getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(
                f"target.black_box={name!r} is neither an .npz file nor an importable "
                f"package.module.function ({error})."
            ) from error
    if not Path(name).expanduser().exists():
        raise FileNotFoundError(
            f"target.black_box={name!r} does not exist; supply an npz with x and label, or "
            "package.module.function."
        )
    arrays = files.read_npz(
        Path(name).expanduser(), remedy="Write it again with numpy.savez(x=..., label=...)."
    )
    if not {"x", "label"} <= set(arrays) or len(arrays["x"]) != len(arrays["label"]):
        raise ValueError(
            f"{name} must hold x [Q,...] and label [Q]; it has "
            f"{ ({k: v.shape for k, v in arrays.items()}) }."
        )

    @functools.cache
    def answers_to(dtype: np.dtype) -> dict[bytes, int]:
        return {
            row.tobytes(): label
            for row, label in zip(arrays["x"].astype(dtype), arrays["label"], strict=True)
        }

    def answer(x_B):
        known = answers_to(x_B.dtype)
        lacking = [row for row in x_B if row.tobytes() not in known]
        if lacking:
            path = store.unanswered(folder)
            files.write_npz(path, x=np.stack(lacking))
            raise ValueError(
                f"{name} has no answer to {len(lacking)} of {len(x_B)} queries; they are in "
                f"{path}. Add them with their labels."
            )
        return np.array([known[row.tobytes()] for row in x_B])

    return answer


def measured_of_labels(signal: Signal, task: Task, probe: Probe, x_B, y_B, key_B) -> jax.Array:
    """Returns what a signal of one forward pass measures on one-hot labels instead of outputs."""
    del key_B
    out_BC = jax.nn.one_hot(probe.label(x_B), task.num_classes, dtype=jnp.float32)
    return signal.measure(out_BC, Examples(x=x_B, y=y_B, task=task))


def query(
    *,
    black_box: BlackBox,
    m: int,
    pool: Pool,
    signals: Mapping[str, Signal],
    views,
    rows: Mapping[str, np.ndarray],
    folder: Path,
    seed: int,
    batch_size: int,
    shadows: Callable,
    begin: Callable = lambda: None,
    run: str = "",
) -> None:
    """Queries a black box for every label-only signal and writes folder/<signal>/<m>.npy.

    Other signals get no file. The signals run uncompiled, one operation at a time, so that the
    black box is called like any Python function.

    Args:
        black_box: the black box.
        m: its number among the models of the design.
        pool: the N examples.
        signals: {name: signal}.
        views: the A query views.
        rows: {name: which rows [N] are asked about}.
        folder: where the answers are written.
        seed: the seed of the run.
        batch_size: examples per call of a signal.
        shadows: shadows(count, index_B) -> Shadows, the attacker's models for signals that need
            them.
        begin: called before anything is written, if there is something to ask.
        run: the identity of the run, recorded in the files.
    """
    for name, signal in signals.items():
        if signal.access != "labels":
            continue
        answers = interactive.Answers(
            folder, name, m, len(pool.y), run=run, counts=interactive.counts_queries(signal)
        )
        asked = (
            signal
            if signal.ask is not None
            else signal._replace(ask=functools.partial(measured_of_labels, signal, pool.task))
        )
        ask = interactive.asking(
            lambda _, helpers: Probe(black_box.label, shadows=helpers), asked, views, name=name
        )
        lacking_N = answers.lacking(rows[name])
        if not lacking_N.any() and not answers.unfinished:
            continue
        begin()
        try:
            for index_B, count in interactive.batches(
                np.flatnonzero(lacking_N), min(batch_size, max(1, int(lacking_N.sum())))
            ):
                key_B = interactive.example_keys(seed=seed, name=name, index_B=index_B)
                helpers = shadows(signal.shadows, index_B) if signal.shadows else None
                with jax.disable_jit():
                    parts = ask(
                        None,
                        helpers,
                        jnp.asarray(pool.x[index_B]),
                        jnp.asarray(pool.y[index_B]),
                        key_B,
                    )
                answers.add(index_B[:count], *(np.asarray(part)[:, :count] for part in parts))
        finally:
            if answers.arrays:
                answers.save(answers.partial)
        answers.close()
