"""A deployed model as a black box that answers labels: asked in batches, at a limited rate, and
never twice the same question.

Every answer is appended to a log (24 bytes a query: digest of the example, label, checksum) before
the next batch is asked, so that a run which was interrupted, or whose black box failed, goes on
where it was. A record whose checksum is another one is asked again. Logs of older versions, 20
bytes a query without a checksum, can be read.
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
# of the first record, whose other 8 bytes are a digest of the black box's name
HEAD = b"mia_jax log v2\n\n"


class BlackBox:
    """`label(x_B..) -> label_B` int32 of a black box; `asked` counts the queries of this run,
    `known` those of the log as well.

    `answer(x_B..) -> labels [B]`, of examples in float32 (tokens: int32), is asked for at most
    `batch_size` examples at a time and `rate` per second (0: no limit). Raises ValueError that says
    which answer cannot be a label; what was answered before stays in the log, which belongs to the
    black box `name`.
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
                one
                for one in records
                if one["check"] == _check(one["digest"].tobytes(), int(one["label"]))
            ]
        else:
            data = b"" if self.head.startswith(data) else data
            good = records = np.frombuffer(data, OLD_RECORD, len(data) // OLD_RECORD.itemsize)
        labels = {one["digest"].tobytes(): int(one["label"]) for one in good}
        outside = [label for label in labels.values() if not 0 <= label < self.num_classes]
        if outside:
            raise ValueError(
                f"{self.log} is damaged (it holds the label {outside[0]}, and there are "
                f"{self.num_classes} classes). Delete it to ask the black box "
                "anew, or put a copy of it back."
            )
        if len(good) < len(records):
            jobs.say(
                f"query: {len(records) - len(good)} of {len(records)} answers in {self.log} are "
                "damaged; they are asked again."
            )
        return labels, data.startswith(self.head) and len(data) == (len(good) + 1) * RECORD.itemsize

    def _keep(self, labels: Mapping[bytes, int]) -> None:
        """Appends answers to the log; one that is new, of an older version or cut off in the middle
        is written whole first.
        """
        self.labels |= labels
        if self.whole:
            files.append(self.log, _records(labels))
        else:
            files.write(self.log, lambda file: file.write(self.head + _records(self.labels)))
            self.whole = True

    @property
    def known(self) -> int:
        """Returns how many different queries have been answered, in all runs."""
        return len(self.labels)

    def label(self, x) -> jax.Array:
        """Returns Labels [B] int32; each different example is asked once."""
        x = np.asarray(x)
        x = np.ascontiguousarray(
            x, x.dtype if x.dtype.kind in "iu" else np.float32
        )  # tokens stay whole numbers
        digests = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in x]
        new = list(dict.fromkeys(d for d in digests if d not in self.labels))
        place = {d: i for i, d in reversed(list(enumerate(digests)))}
        for start in range(0, len(new), self.batch_size):
            part = new[start : start + self.batch_size]
            self._wait(len(part))
            with precision.as_the_user():
                found = self._checked(self.answer(x[[place[d] for d in part]]), len(part))
            self._keep(dict(zip(part, found.tolist(), strict=True)))
            self.asked += len(part)
        return jnp.asarray([self.labels[d] for d in digests], jnp.int32)

    def _wait(self, count: int) -> None:
        if self.rate:
            time.sleep(max(0.0, self.due - time.monotonic()))
            self.due = max(self.due, time.monotonic()) + count / self.rate

    def _checked(self, found, count: int) -> np.ndarray:
        label_B = np.asarray(found)
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
                "run the query stage again once it is mended."
            )
        return label_B.astype(np.int32)


def _check(digest: bytes, label: int) -> int:
    return zlib.crc32(digest + label.to_bytes(4, "little", signed=True))


def _records(labels: Mapping[bytes, int]) -> bytes:
    return np.array([(np.void(d), v, _check(d, v)) for d, v in labels.items()], RECORD).tobytes()


def answering(name: str, *, folder: Path) -> Callable:
    """Returns the function that answers queries: 'package.module.function', or an npz with x
    [Q,...] and label [Q].

    Queries that the npz does not answer are written to folder/unanswered.npz, and a ValueError says
    so.
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
    """Returns what a signal of one forward pass measures if labels stand in for the outputs,
    one-hot.
    """
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
    """Writes folder/<signal>/<m>.npy of the label-only signals, asked of a black box; other signals
    have no file of this model.

    `shadows(count, index_B) -> Shadows` are models of the attacker's own. The signals run
    uncompiled, one operation at a time, so that the black box is called like any Python function.
    """
    for name, signal in signals.items():
        if signal.access != "labels":
            continue
        found = interactive.Answers(
            folder, name, m, len(pool.y), run=run, counts=interactive.counts_queries(signal)
        )
        asked = (
            signal
            if signal.ask is not None
            else signal._replace(ask=functools.partial(measured_of_labels, signal, pool.task))
        )
        ask = interactive.asking(
            lambda _, own: Probe(black_box.label, shadows=own), asked, views, name=name
        )
        lacking_N = found.lacking(rows[name])
        if not lacking_N.any() and not found.unfinished:
            continue
        begin()
        try:
            for index_B, count in interactive.batches(
                np.flatnonzero(lacking_N), min(batch_size, max(1, int(lacking_N.sum())))
            ):
                key_B = interactive.example_keys(seed=seed, name=name, index_B=index_B)
                own = shadows(signal.shadows, index_B) if signal.shadows else None
                with jax.disable_jit():
                    parts = ask(
                        None, own, jnp.asarray(pool.x[index_B]), jnp.asarray(pool.y[index_B]), key_B
                    )
                found.add(index_B[:count], *(np.asarray(part)[:, :count] for part in parts))
        finally:
            if found.arrays:
                found.save(found.partial)
        found.close()
