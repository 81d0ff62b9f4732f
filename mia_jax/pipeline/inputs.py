"""Checks whether every file of a workdir was computed from the files that are there now.

Every output records the digests of its inputs, and a report compares them. The answers of a model
hold the digest of the model that was asked. The scores of an attack hold the digests of the signals
that were read and of the membership. The digests are in the same file as the output, so that no
interruption can separate them. Workdirs of older versions have signal/inputs.json and
attack/<name>/inputs.json instead.

A model file is a zip archive whose directory holds a checksum of every array, so large fleets are
not read completely.
"""

from __future__ import annotations

import functools
import hashlib
import pathlib
from collections.abc import Mapping, Sequence

from mia_jax.query import interactive
from mia_jax.runtime import files
from mia_jax.runtime.store import ScoreFiles, Store
from mia_jax.training import checkpoint

Path = pathlib.Path
# If all models together have at most this many bytes, the checksum of every array is verified;
# otherwise only the directories of the archives are read.
WHOLE = 2**30


def of_signal(folder: Path, name: str, models: int) -> str:
    """Returns the digest of the files of one signal of models 0 .. models - 1.

    A model that was never asked (a shadow, behind the target's defense) has no file.
    """
    state = hashlib.sha256()
    for path in (interactive.signal_file(folder, name, m) for m in range(models)):
        if path.exists():
            with open(path, "rb") as file:
                state.update(hashlib.file_digest(file, "sha256").digest())
        else:
            state.update(b"not asked")
    return state.hexdigest()[:16]


def check(
    store: Store,
    attacks: Mapping[str, Sequence[str]],
    *,
    models: int,
    membership: str,
    signals: Sequence[str] = (),
    snapshots: Mapping[int, Sequence[str]] = {},
) -> dict:
    """Compares the recorded digests of all outputs with the digests of their inputs on disk.

    The outputs of one model count as one, and so do those of one attack. Models that were not
    trained here have no file and no record.

    Args:
      store: the workdir.
      attacks: {attack: the signals that it reads}.
      models: the number of models.
      membership: the digest of the membership.
      signals: all signals that were asked.
      snapshots: {epoch: the signals that were asked after it}.

    Returns:
      {checked, stale, unknown}: the number of outputs that were compared, sentences about those
      whose
        inputs have changed, and outputs without a record.

    Raises:
      ValueError: a file is damaged or belongs to another run, model or signal.
    """
    outcome: dict = dict(checked=0, stale=[], unknown=[])
    run = store.run
    _check_models(
        store,
        outcome,
        models=models,
        signals=sorted({*signals, *(name for read in attacks.values() for name in read)}),
        run=run,
    )
    for epoch, names in snapshots.items():
        _check_snapshots(store, outcome, epoch, names, models=models, run=run)
    current = functools.cache(lambda signal: of_signal(store.answers.folder, signal, models))
    for name in attacks:
        known = _inputs(store.attack(name), dict(run=run, attack=name) if run else {})
        if known is None:
            outcome["unknown"].append(f"the scores of {name}")
            continue
        outcome["checked"] += 1
        # an older version of an attack may have read other signals for the same scores
        changed = [s for s in known["signals"] if known["signals"][s] != current(s)] + (
            ["the membership"] if known["membership"] != membership else []
        )
        if changed:
            outcome["stale"].append(
                f"the scores of {name} were computed from other files ({', '.join(changed)}): "
                f"delete attack/{name}/ and report/"
            )
    return outcome


def _check_models(
    store: Store, outcome: dict, *, models: int, signals: Sequence[str], run: str
) -> None:
    """Adds to `outcome` the comparison of every model's answers with the model as it is now."""
    folder, path = store.answers.folder, store.answers.older_inputs
    older = files.read_json(path, needs={}, remedy=OLDER) if path.exists() else {}
    model_files = {m: store.train.model(m) for m in range(models)}
    model_files = {m: path for m, path in model_files.items() if path.exists()}
    whole = sum(path.stat().st_size for path in model_files.values()) <= WHOLE
    digest = functools.cache(
        lambda m: (
            checkpoint.digest(store.train.folder, m, run=run, whole=whole)
            if m in model_files
            else None
        )
    )
    for m in range(models):
        records = [record for name in signals for record in _records(folder, name, m, run=run)]
        if digest(m) is None or not records:
            continue
        asked = {
            (int(n), known) for record in records for n, known in record.get("asked", {}).items()
        }
        if not all(records):
            if str(m) not in older:
                outcome["unknown"].append(f"the outputs of model {m}")
                continue
            asked.add((m, older[str(m)]))
        outcome["checked"] += 1
        parts = {
            (int(epoch), known)
            for record in records
            for epoch, known in record.get("snapshots", {}).items()
        }

        def since(n: int, m: int = m) -> str:
            return "it was queried" if n == m else f"the outputs of model {m} were computed with it"

        changed = [
            f"model {n} has changed since {since(n)}" for n, known in asked if digest(n) != known
        ]
        changed += [
            f"model {m} after epoch {epoch} has changed since it was queried"
            for epoch, d in parts
            if _snapshot(store, epoch, m, run) != d
        ]
        if changed:
            outcome["stale"].append(
                f"{min(changed)}: delete signal/*/{m:05d}.npy, attack/ and report/"
            )


def _check_snapshots(
    store: Store, outcome: dict, epoch: int, names: Sequence[str], *, models: int, run: str
) -> None:
    """Adds to `outcome` the comparison of the answers after one epoch with the snapshots."""
    place = store.after(epoch).folder
    for m in range(models):
        asked = {
            d
            for name in names
            for record in _records(place, name, m, run=run, epoch=epoch)
            for d in record.get("asked", {}).values()
        }
        if asked - {_snapshot(store, epoch, m, run)}:
            where = place.parent.relative_to(store.root)
            outcome["stale"].append(
                f"model {m} after epoch {epoch} has changed since it was queried: delete {where}/ "
                "and report/"
            )


def _snapshot(store: Store, epoch: int, m: int, run: str) -> str | None:
    """Returns the digest of a snapshot of model m; None if there is none."""
    folder = store.train.snapshot(epoch).folder
    return (
        checkpoint.digest(folder, m, run=run, epoch=epoch)
        if checkpoint.model_file(folder, m).exists()
        else None
    )


def _records(folder: Path, name: str, m: int, *, run: str, epoch: int | None = None) -> list[dict]:
    """Returns the records of one model's answers and counts; {} for a file without a record.

    Raises:
      ValueError: a file is damaged or belongs to another place.
    """
    place, paths = (
        interactive.place(run, name, m, epoch),
        [interactive.signal_file(folder, name, m), interactive.count_file(folder, name, m)],
    )
    return [
        files.read_npy_and_record(path, record=place)[1] or {} for path in paths if path.exists()
    ]


OLDER = (
    "Delete it: the report then says that there is no record of what these files were computed "
    "from."
)


def _inputs(score_files: ScoreFiles, place: Mapping) -> dict | None:
    """Returns {signals: {signal: digest}, membership} of an attack's scores, None without."""
    path = score_files.scores
    record = files.read_npz_and_record(path, record=place)[1] if path.exists() else None
    if record is not None and {"signals", "membership"} <= set(record):
        return record
    older = score_files.older_inputs
    return (
        files.read_json(older, needs=dict(signals=dict, membership=str), remedy=OLDER)
        if older.exists()
        else None
    )
