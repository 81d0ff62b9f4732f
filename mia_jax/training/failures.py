"""Records the models that cannot be used, so that the run continues without them.

The file `failed/<m>.json` of the train folder says in which stage, epoch and attempt model m
failed, and why. The record counts while there is no model file: a later attempt that succeeds
writes the model and removes the record. A model whose answers are not finite is moved to
`failed/<m>.npz`.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping, Sequence

from mia_jax.runtime import files
from mia_jax.runtime.store import Store, Trained
from mia_jax.training import checkpoint

Path = pathlib.Path


def failed_file(folder: Path, m: int) -> Path:
    """Returns the path of the record of model m, which cannot be used."""
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
    """Records that an attempt (0 is the first) at model m failed, and returns the record.

    If it failed in the stage 'query', the model itself is kept next to the record.
    """
    entry = dict(model=m, stage=stage, attempt=attempt, epoch=epoch, loss=loss, reason=reason)
    files.write_json(failed_file(folder, m), entry, seal=True)
    model = checkpoint.model_file(folder, m)
    if model.exists():
        files.move(model, Trained(folder).failed_model(m))
    return entry


def known(folder: Path, models: Iterable[int]) -> dict[int, dict]:
    """Returns {model: record} of those of `models` that failed and were not trained since."""
    failed = [
        m
        for m in models
        if failed_file(folder, m).exists() and not checkpoint.model_file(folder, m).exists()
    ]
    return {m: _read(failed_file(folder, m), m) for m in failed}


def _read(path: Path, m: int) -> dict:
    """Returns the record of one model.

    Raises:
        ValueError: if it is damaged or belongs to another model.
    """
    remedy = (
        "Delete it and type the same command again: the model is trained again, with the same key."
    )
    entry = files.read_json(
        path, needs=dict(model=int, stage=str, attempt=int, reason=str), remedy=remedy
    )
    if entry["model"] != m:
        raise ValueError(
            files.damaged(path, ValueError(f"it is of model {entry['model']}"), remedy=remedy)
        )
    return entry


def attempts(failed: Mapping[int, Mapping], retries: int) -> dict[int, int]:
    """Returns {failed model: number of its next attempt} for those with attempts left.

    Args:
        failed: {model: record}, as `known` returns it.
        retries: the number of further attempts that a model may have.
    """
    return {m: entry["attempt"] + 1 for m, entry in failed.items() if entry["attempt"] < retries}


def forget(store: Store, m: int) -> None:
    """Removes what an earlier attempt at model m left in a workdir: answers, snapshots and ledger.

    Its record stays until there is a model.
    """
    train = store.train
    for path in [*store.answers_of(m), *train.snapshots_of(m), train.ledger(m)]:
        path.unlink(missing_ok=True)


def listed(models: Sequence[int], most: int = 5) -> str:
    """Returns 'model 3', 'models 3, 5' or 'models 0, 1, 2, 3, 4 and 7 more'."""
    text = ", ".join(map(str, models[:most])) + (
        f" and {len(models) - most} more" if len(models) > most else ""
    )
    return f"model{'s' * (len(models) > 1)} {text}"


def sentences(failed: Mapping[int, Mapping]) -> list[str]:
    """Returns one sentence per model that says what happened in its last attempt."""
    lines = []
    for m, entry in sorted(failed.items()):
        attempt = f" (attempt {entry['attempt'] + 1})" if entry["attempt"] else ""
        lines.append(f"model {m}{attempt}: {entry['reason']}")
    return lines


def refusal(failed: Mapping[int, Mapping], *, why: str) -> str:
    """Returns the message of a run that cannot continue with the remaining models."""
    shown = sentences(failed)
    text = (
        f"{why}: "
        + "; ".join(shown[:3])
        + (f"; and {len(shown) - 3} more" if len(shown) > 3 else "")
    )
    return (
        f"{text}. A lower learner.learning_rate is the usual remedy. That is another training: use "
        "another workdir for it. In this workdir "
        "run.retries=1 (or more) trains each failed model again with another key. What is known "
        "about each is in train/failed."
    )
