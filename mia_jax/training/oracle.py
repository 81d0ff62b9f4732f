"""A deployed model as a black box that answers labels: asked in batches, at a limited rate, and never twice the same question.

Every answer is appended to a log (20 bytes a query: digest of the example, label) before the next batch is asked, so that a run which was
interrupted, or whose black box failed, goes on where it was.
"""

from __future__ import annotations

import hashlib
import importlib
import pathlib
import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax import checks, workdir
from mia_jax.training import probing
from mia_jax.types import Pool, Probe, Signal

Path = pathlib.Path
RECORD = np.dtype([("digest", "S16"), ("label", "<i4")])


class Oracle:
    """`label(x_B..) -> label_B` int32 of a black box; `asked` counts the queries of this run, `known` those of the log as well.

    `answer(x_B.. float32) -> labels [B]` is asked for at most `batch_size` examples at a time and `rate` a second (0: no limit). Raises ValueError
    that says which answer cannot be a label; what was answered before stays in the log.
    """

    def __init__(self, answer: Callable, *, num_classes: int, log: Path, rate: float = 0.0, batch_size: int = 256):
        checks.at_least(0, **{"target.rate": rate})
        checks.at_least(1, **{"target.batch_size": batch_size})
        self.answer, self.num_classes, self.log, self.rate, self.batch_size = answer, num_classes, log, rate, batch_size
        self.asked, self.due = 0, time.monotonic()
        self.labels: dict[bytes, int] = {}
        if log.exists():
            whole = log.stat().st_size // RECORD.itemsize  # a record that was cut off in the middle is asked again
            with open(log, "r+b") as file:
                file.truncate(whole * RECORD.itemsize)
            records = np.fromfile(log, RECORD)
            self.labels = {bytes(d).ljust(16, b"\0"): int(v) for d, v in zip(records["digest"], records["label"], strict=True)}

    @property
    def known(self) -> int:
        """How many different queries have been answered, in all runs."""
        return len(self.labels)

    def label(self, x) -> jax.Array:
        """Labels [B] int32; each different example is asked once."""
        x = np.ascontiguousarray(np.asarray(x), np.float32)
        digests = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in x]
        new = list(dict.fromkeys(d for d in digests if d not in self.labels))
        place = {d: i for i, d in reversed(list(enumerate(digests)))}
        for start in range(0, len(new), self.batch_size):
            part = new[start : start + self.batch_size]
            self._wait(len(part))
            found = self._checked(self.answer(x[[place[d] for d in part]]), len(part))
            records = np.array([(d, v) for d, v in zip(part, found.tolist(), strict=True)], RECORD)
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with open(self.log, "ab") as file:
                file.write(records.tobytes())
            self.labels |= dict(zip(part, found.tolist(), strict=True))
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
                f"the black box answered {count} queries with shape {label_B.shape} of {label_B.dtype}; expected ({count},) whole numbers."
            )
        outside_B = (label_B < 0) | (label_B >= self.num_classes)
        if outside_B.any():
            raise ValueError(
                f"the black box answered {int(outside_B.sum())} of {count} queries with labels outside 0..{self.num_classes - 1}; the first is "
                f"{label_B[outside_B][0]}. The {self.known} answers so far are kept in {self.log}; run the query stage again once it is mended."
            )
        return label_B.astype(np.int32)


def answering(name: str, *, folder: Path) -> Callable:
    """The function that answers queries: 'package.module.function', or an npz with x [Q,...] and label [Q].

    Queries that the npz does not answer are written to folder/unanswered.npz, and a ValueError says so.
    """
    if not name.endswith(".npz"):
        module, _, function = name.rpartition(".")
        try:
            return getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"target.oracle={name!r} is neither an .npz file nor an importable package.module.function ({error}).") from error
    if not Path(name).expanduser().exists():
        raise FileNotFoundError(f"target.oracle={name!r} does not exist; bring an npz with x and label, or package.module.function.")
    arrays = workdir.read_npz(Path(name).expanduser())
    if not {"x", "label"} <= set(arrays) or len(arrays["x"]) != len(arrays["label"]):
        raise ValueError(f"{name} must hold x [Q,...] and label [Q]; it has { ({k: v.shape for k, v in arrays.items()}) }.")
    known = {row.tobytes(): label for row, label in zip(arrays["x"].astype(np.float32), arrays["label"], strict=True)}

    def answer(x_B):
        lacking = [row for row in x_B if row.tobytes() not in known]
        if lacking:
            path = folder / "unanswered.npz"
            workdir.write_npz(path, x=np.stack(lacking))
            raise ValueError(f"{name} has no answer to {len(lacking)} of {len(x_B)} queries; they are in {path}. Add them with their labels.")
        return np.array([known[row.tobytes()] for row in x_B])

    return answer


def query(
    *,
    oracle: Oracle,
    m: int,
    pool: Pool,
    signals: Mapping[str, Signal],
    views,
    rows: Mapping[str, np.ndarray],
    folder: Path,
    seed: int,
    batch_size: int,
    shadows: Callable,
) -> None:
    """Writes folder/<signal>/<m>.npy of the label-only signals, asked of a black box; other signals have no file of this model.

    `shadows(count, index_B) -> Shadows` are models of the attacker's own. The signals run uncompiled, one operation at a time, so that the black
    box is called like any Python function.
    """
    for name, signal in signals.items():
        if signal.access != "labels":
            continue
        found = probing.Answers(folder, name, m, len(pool.y))
        one_hot = lambda probe, x_B, y_B, key_B, s=signal: s.measure(jax.nn.one_hot(probe.label(x_B), pool.num_classes, dtype=jnp.float32), y_B)  # noqa: E731
        ask = probing.asking(
            lambda _, own: Probe(oracle.label, shadows=own), signal if signal.ask is not None else signal._replace(ask=one_hot), views
        )
        lacking_N = found.lacking(rows[name])
        try:
            for index_B, count in probing.batches(np.flatnonzero(lacking_N), min(batch_size, max(1, int(lacking_N.sum())))):
                key_B = probing.example_keys(seed=seed, name=name, index_B=index_B)
                own = shadows(signal.shadows, index_B) if signal.shadows else None
                with jax.disable_jit():
                    parts = ask(None, own, jnp.asarray(pool.x[index_B]), jnp.asarray(pool.y[index_B]), key_B)
                found.add(index_B[:count], *(np.asarray(part)[:, :count] for part in parts))
        finally:
            if found.arrays:
                found.save(found.partial)
        if lacking_N.any():
            found.close()
