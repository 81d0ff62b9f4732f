"""Reads and writes models: one file per finished model and one file per group in training.

Arrays are restored into a template of shapes and dtypes that `jax.eval_shape` returns. Every file
records its place: `run` (the digest of everything that determines the variables; '' is not
recorded), its models, and the epoch of a snapshot. A file of another place raises a ValueError that
names it.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from mia_jax.runtime import files
from mia_jax.runtime.store import Trained

Path = pathlib.Path


def flatten(tree) -> dict[str, np.ndarray]:
    """Returns {'a/b/c': array} of a pytree.

    Typed PRNG keys become their key data under 'name@impl'.
    """
    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            arrays[f"{name}@{jax.random.key_impl(leaf)}"] = np.asarray(jax.random.key_data(leaf))
        else:
            arrays[name] = np.asarray(leaf)
    return arrays


def unflatten(arrays: dict[str, np.ndarray], template, *, source: Path):
    """Returns the pytree of `template` (shapes and dtypes) filled with the arrays of `flatten`.

    Raises:
        ValueError: if a name, shape or dtype differs.
    """
    named = {name.split("@")[0]: (name, array) for name, array in arrays.items()}
    leaves = []
    for path, want in jax.tree_util.tree_leaves_with_path(template):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name not in named:
            raise ValueError(
                f"{source} has no array {name!r}; it was written by another model or optimizer. "
                "Use another workdir."
            )
        stored, array = named[name]
        if jax.dtypes.issubdtype(want.dtype, jax.dtypes.prng_key):
            leaves.append(jax.random.wrap_key_data(array, impl=stored.split("@")[1]))
            continue
        if array.shape != want.shape or array.dtype != want.dtype:
            raise ValueError(
                f"{source}: {name!r} is {array.dtype}{array.shape}, expected "
                f"{want.dtype}{want.shape}. Use another workdir."
            )
        leaves.append(array)
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def model_file(folder: Path, m: int) -> Path:
    """Returns the path of the file of finished model m."""
    return Trained(folder).model(m)


def ledger_file(folder: Path, m: int) -> Path:
    """Returns the path of the file that records the private training of model m."""
    return Trained(folder).ledger(m)


def finished(folder: Path, models: Sequence[int]) -> list[int]:
    """Returns those of `models` whose final variables are on disk."""
    return [m for m in models if model_file(folder, m).exists()]


def place(run: str, m: int, epoch: int | None = None) -> dict:
    """Returns the record of a model's file; {} without a run.

    Args:
        run: the digest of everything that determines the variables; '' for none.
        m: the number of the model.
        epoch: the epoch of a snapshot; None for the final model.
    """
    return dict(run=run, model=m, epoch=epoch) if run else {}


def save_model(
    folder: Path,
    m: int,
    variables,
    history: dict[str, np.ndarray],
    *,
    run: str = "",
    epoch: int | None = None,
) -> None:
    """Writes the final variables of model m and its history ({name: [epochs]}).

    Args:
        folder: the train folder, or the folder of a snapshot.
        m: the number of the model.
        variables: the variables; for a snapshot those after `epoch`.
        history: the metrics of every epoch.
        run: recorded in the file, see `place`.
        epoch: the epoch of a snapshot; None for the final model.
    """
    arrays = flatten(dict(variables=variables)) | {f"history/{k}": v for k, v in history.items()}
    files.write_npz(model_file(folder, m), record=place(run, m, epoch) or None, **arrays)


def load_models(
    folder: Path, models: Sequence[int], template, *, run: str = "", epoch: int | None = None
):
    """Returns the variables of several models stacked on a leading axis M, on the host."""
    trees = []
    for m in models:
        path = model_file(folder, m)
        stored = files.read_npz(
            path,
            record=place(run, m, epoch),
            remedy=files.RECOMPUTE if epoch is None else snapshot_remedy(m),
        )
        arrays = {k: v for k, v in stored.items() if k.startswith("variables/")}
        trees.append(unflatten(arrays, dict(variables=template), source=path)["variables"])
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def snapshot_remedy(m: int) -> str:
    """Returns what a user can do about a lost snapshot of model m."""
    return (
        f"A snapshot can only be made while its model trains: delete train/model/{m:05d}.npz and "
        f"train/snapshot/*/model/{m:05d}.npz and type the "
        "same command again, which trains this model again."
    )


def load_history(folder: Path, m: int) -> dict[str, np.ndarray]:
    """Returns {name: [epochs]} of finished model m, including its numbers 'summary/...'.

    Raises:
        ValueError: if the file has no such numbers.
    """
    path = model_file(folder, m)
    history = {
        k.removeprefix("history/"): v
        for k, v in files.read_npz(path).items()
        if k.startswith("history/")
    }
    for name in ("summary/epochs", "summary/best_epoch", "summary/seconds"):
        if name not in history or history[name].shape or history[name].dtype.kind not in "if":
            raise ValueError(files.damaged(path, ValueError(f"it has no number history/{name}")))
    return history


def digest(
    folder: Path, m: int, *, run: str = "", epoch: int | None = None, whole: bool = False
) -> str:
    """Returns 16 hex digits that identify the variables of model m.

    They are computed from the names, sizes and checksums of its arrays. Only the archive's
    directory is read, unless `whole` asks for the arrays as well.

    Raises:
        ValueError: if the file is damaged or belongs to another place; the message has the remedy.
    """
    path, remedy = model_file(folder, m), files.RECOMPUTE if epoch is None else snapshot_remedy(m)
    return files.read_digest(
        path, record=place(run, m, epoch), without="history/", whole=whole, remedy=remedy
    )


def save_ledger(folder: Path, m: int, ledger: Mapping, *, run: str = "") -> None:
    """Writes the record of the private training of model m."""
    files.write_json(
        ledger_file(folder, m), dict(ledger) | (dict(place=place(run, m)) if run else {}), seal=True
    )


def load_ledger(folder: Path, m: int, *, run: str = "") -> dict:
    """Returns the record that `save_ledger` wrote.

    Raises:
        FileNotFoundError: if there is no record.
        ValueError: if it is damaged or belongs to another model or run.
    """
    path = ledger_file(folder, m)
    remedy = (
        f"Delete it and train/model/{m:05d}.npz and type the same command again, which trains this "
        "model again."
    )
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist, and no epsilon is known without it. {remedy}"
        )
    ledger = files.read_json(
        path, needs=dict(steps=int, noise_multiplier=int | float), remedy=remedy
    )
    if run and ledger.pop("place", place(run, m)) != place(run, m):
        raise ValueError(f"{path} belongs to another model or run. {remedy}")
    return ledger


def running_file(folder: Path, models: Sequence[int], attempt: int = 0) -> Path:
    """Returns the path of the checkpoint of a group of models in training.

    A further attempt at models that failed has another file than the first attempt.
    """
    return Trained(folder).running(models, attempt)


def save_running(
    folder: Path,
    models: Sequence[int],
    epoch: int,
    state,
    history: dict[str, np.ndarray],
    attempt: int = 0,
    *,
    partial: tuple | None = None,
    run: str = "",
) -> None:
    """Writes the state of a group after `epoch` epochs, with its metrics ({name: [epochs, M]}).

    `partial` is (steps, sums) of an epoch that was interrupted: how many of its steps are done, and
    {name: [M]} of them.
    """
    arrays = flatten(dict(state=state)) | {f"history/{k}": v for k, v in history.items()}
    if partial is not None:
        arrays |= {"steps": np.asarray(partial[0])}
        arrays |= {f"sums/{k}": np.asarray(v) for k, v in partial[1].items()}
    record = dict(run=run, models=list(models), attempt=attempt) if run else None
    files.write_npz(
        running_file(folder, models, attempt),
        record=record,
        models=np.asarray(models),
        epoch=np.asarray(epoch),
        **arrays,
    )


def load_running(folder: Path, models: Sequence[int], template, attempt: int = 0, *, run: str = ""):
    """Returns (epoch, state, history, partial) of the checkpoint with a group of models, or None.

    `partial` is (steps, sums) as in `save_running`, or None.
    The checkpoint must hold all models of the group in this attempt. A short group is padded with
    its last model.
    """
    size = jax.tree.leaves(template)[0].shape[0]
    for path in Trained(folder).running_groups():
        first, last = span(path)
        if not first <= models[0] <= models[-1] <= last or attempt_of(path) != attempt:
            continue  # It is not even read, because another process may be about to remove it.
        arrays = files.read_npz(
            path, record=dict(run=run, attempt=attempt) if run else {}, remedy=RUNNING
        )
        saved = _saved(arrays, path)
        if not set(models) <= set(saved):
            continue
        take = np.asarray([saved.index(m) for m in [*models, *[models[-1]] * (size - len(models))]])
        rows = {k: v[take] for k, v in arrays.items() if k.startswith("state/")}
        state = unflatten(rows, dict(state=template), source=path)["state"]
        history = {
            k.removeprefix("history/"): v[:, take[: len(models)]]
            for k, v in arrays.items()
            if k.startswith("history/")
        }
        partial = None
        if "steps" in arrays:
            sums = {k: v[take] for k, v in arrays.items() if k.startswith("sums/")}
            partial = int(arrays["steps"]), {k.removeprefix("sums/"): v for k, v in sums.items()}
        return int(arrays["epoch"]), state, history, partial
    return None


RUNNING = "Delete it and type the same command again: its models are trained from their start."


def _saved(arrays: Mapping[str, np.ndarray], path: Path) -> list[int]:
    """Returns the models of a checkpoint.

    Raises:
        ValueError: if its arrays do not fit each other or the name of the file.
    """
    first, last = span(path)
    saved = np.atleast_1d(arrays.get("models", np.zeros(0, int))).tolist()
    if (
        not saved
        or arrays.get("epoch", np.zeros(1)).shape
        or (saved[0], saved[-1]) != (first, last)
    ):
        raise ValueError(
            files.damaged(
                path,
                ValueError(f"it holds the models {saved}, not {first} to {last}"),
                remedy=RUNNING,
            )
        )
    for name, array in arrays.items():
        # The state of a short group is as long as the chunk of the program.
        axis = array.shape[name.startswith("history/") :][:1]
        if name.startswith(("state/", "history/", "sums/")) and (not axis or axis[0] < len(saved)):
            raise ValueError(
                files.damaged(
                    path,
                    ValueError(f"{name} has the shape {array.shape} for {len(saved)} models"),
                    remedy=RUNNING,
                )
            )
    return saved


def discard_running(folder: Path, failed: Mapping[int, int] = {}) -> None:
    """Removes the checkpoints whose models are all finished or failed.

    Args:
        folder: the train folder.
        failed: {model: attempt} of the models that failed in that attempt; a model counts as failed
            for checkpoints of this attempt and of earlier ones.
    """
    for path in Trained(folder).running_groups():
        first, last = span(path)
        over = {m for m, attempt in failed.items() if attempt >= attempt_of(path)} | set(
            finished(folder, range(first, last + 1))
        )
        if over >= set(range(first, last + 1)):
            path.unlink(missing_ok=True)


def attempt_of(path: Path) -> int:
    """Returns the number of the attempt from the name of a running group's file."""
    return int(path.stem.partition("r")[2] or 0)


def span(path: Path) -> tuple[int, int]:
    """Returns the first and the last model of a running group from the name of its file."""
    first, last = path.stem.split("x")[0].split("-")
    return int(first), int(last)
