"""Models that cannot be used: what happened to each is on disk beside the models, so that the run
goes on without them.

`failed/<m>.json` of the train folder says in which stage, epoch and attempt, and why. The record
counts while there is no model file: a later attempt that succeeds leaves the model and removes the
record, and a model whose answers are not finite is moved to `failed/<m>.npz`.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from mia_jax.runtime import files
from mia_jax.runtime.store import Store, Trained
from mia_jax.training import checkpoint

Path = pathlib.Path


def failed_file(folder: Path, m: int) -> Path:
    """What is recorded about model m, which cannot be used."""
    return Trained(folder).failed(m)


def record(
    folder: Path,
    m: int,
    *,
    stage: str,
    reason: str,
    epoch: int | None = None,
    loss: str = "",
    attempt: int = 0,
) -> dict:
    """Records that an attempt (0 is the first) at model m failed; of the stage 'query' the model
    itself is kept beside the record.
    """
    found = dict(model=m, stage=stage, attempt=attempt, epoch=epoch, loss=loss, reason=reason)
    files.write_json(failed_file(folder, m), found, seal=True)
    model = checkpoint.model_file(folder, m)
    if model.exists():
        os.replace(model, Trained(folder).failed_model(m))
    return found


def known(folder: Path, models: Iterable[int]) -> dict[int, dict]:
    """{model: record} of those of `models` that failed and were not trained since."""
    there = [
        m
        for m in models
        if failed_file(folder, m).exists() and not checkpoint.model_file(folder, m).exists()
    ]
    return {m: _read(failed_file(folder, m), m) for m in there}


def _read(path: Path, m: int) -> dict:
    """The record of one model; ValueError if it is damaged or another model's."""
    remedy = (
        "Delete it and type the same command again: the model is trained again, with the same key."
    )
    found = files.read_json(
        path, needs=dict(model=int, stage=str, attempt=int, reason=str), remedy=remedy
    )
    if found["model"] != m:
        raise ValueError(
            files.damaged(path, ValueError(f"it is of model {found['model']}"), remedy=remedy)
        )
    return found


def attempts(failed: Mapping[int, Mapping], retries: int) -> dict[int, int]:
    """{failed model: the number of its next attempt} of those that have fewer than `retries`
    further attempts behind them.
    """
    return {m: one["attempt"] + 1 for m, one in failed.items() if one["attempt"] < retries}


def forget(store: Store, m: int) -> None:
    """Removes what an earlier attempt at model m left in a workdir: answers, snapshots, ledger.

    Its record stays until there is a model.
    """
    train = store.train
    for path in [*store.answers_of(m), *train.snapshots_of(m), train.ledger(m)]:
        path.unlink(missing_ok=True)


def listed(models: Sequence[int], most: int = 5) -> str:
    """'model 3', 'models 3, 5', 'models 0, 1, 2, 3, 4 and 7 more'."""
    text = ", ".join(map(str, models[:most])) + (
        f" and {len(models) - most} more" if len(models) > most else ""
    )
    return f"model{'s' * (len(models) > 1)} {text}"


def sentences(failed: Mapping[int, Mapping]) -> list[str]:
    """One sentence per model: what happened, in its last attempt."""
    found = []
    for m, one in sorted(failed.items()):
        again = f" (attempt {one['attempt'] + 1})" if one["attempt"] else ""
        found.append(f"model {m}{again}: {one['reason']}")
    return found


def refusal(failed: Mapping[int, Mapping], *, why: str) -> str:
    """The message of a run that cannot go on with the models that are left, with its remedies."""
    shown = sentences(failed)
    text = (
        f"{why}: "
        + "; ".join(shown[:3])
        + (f"; and {len(shown) - 3} more" if len(shown) > 3 else "")
    )
    return (
        f"{text}. A lower learner.learning_rate is the usual remedy. That is another training: use "
        "another workdir for it. In this workdir "
        "run.retries=1 (or more) trains each failed model anew with another key. What is known "
        "about each is in train/failed."
    )
