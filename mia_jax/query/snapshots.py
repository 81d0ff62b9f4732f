"""The loss of every example at several epochs of its models' own training: snapshots while they
train, one query a snapshot afterwards.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from mia_jax.query import forward as queries
from mia_jax.runtime import files
from mia_jax.runtime.store import Answers, Trained
from mia_jax.training import checkpoint

Path = pathlib.Path
SIGNAL = "loss_trajectory"  # [A,N,E], E = the epochs of learner.snapshots


def snapshot_folder(folder: Path, epoch: int) -> Path:
    """Returns where the variables after an epoch are."""
    return Trained(folder).snapshot(epoch).folder


def saver(
    folder: Path, epochs: Sequence[int], released: Callable | None = None, *, run: str = ""
) -> Callable:
    """Returns a hook of the fleet that keeps the variables of every model after these epochs;
    `released` is the learner's.
    """
    wanted = set(epochs)

    def hook(models, epoch, state, metrics) -> None:
        del metrics
        if epoch in wanted:
            variables = jax.device_get(jax.vmap(released)(state) if released else state.variables)
            for i, m in enumerate(models):
                own = jax.tree.map(lambda a, i=i: a[i], variables)
                checkpoint.save_model(
                    snapshot_folder(folder, epoch), m, own, {}, run=run, epoch=epoch
                )

    return hook


def complete(
    *, epochs: Sequence[int], models: Sequence[int], train_folder: Path, run: str = ""
) -> dict[int, Path]:
    """Returns {epoch: the folder that holds all models as they were after it}, rising.

    A model that stopped before a snapshot's epoch stands there with its final variables.
    FileNotFoundError for a model that was trained without.
    """
    found = {}
    for epoch in epochs:
        found[epoch] = snapshot_folder(train_folder, epoch)
        for m in models:
            if not checkpoint.model_file(found[epoch], m).exists():
                _stopped(train_folder, m, epoch, run=run)
    return found


def query(
    *,
    epochs: Sequence[int],
    models: Sequence[int],
    train_folder: Path,
    folder: Path,
    ask: Callable,
    bad: Mapping = {},
    run: str = "",
    begin: Callable = lambda: None,
) -> None:
    """Writes folder/loss_trajectory/<model>.npy, [A,N,E]; `ask(models_folder=, folder=, epoch=)`
    queries the loss of all models in a folder.

    `bad` are models that got no answers, also while this asks.
    """
    if all(queries.signal_file(folder, SIGNAL, m).exists() for m in models):
        return
    begin()
    for epoch, own in complete(
        epochs=epochs, models=models, train_folder=train_folder, run=run
    ).items():
        ask(models_folder=own, folder=Answers(folder).losses_after(epoch).folder, epoch=epoch)
    for m in (m for m in models if m not in bad):
        if not queries.signal_file(folder, SIGNAL, m).exists():
            parts = [
                queries.load(Answers(folder).losses_after(e).folder, "loss", [m], run=run, epoch=e)[
                    0
                ]
                for e in epochs
            ]
            record = queries.place(run, SIGNAL, m)
            record |= dict(
                snapshots={
                    str(e): checkpoint.digest(snapshot_folder(train_folder, e), m) for e in epochs
                }
            )
            files.write_npy(
                queries.signal_file(folder, SIGNAL, m), np.stack(parts, axis=-1), record
            )


def _stopped(train_folder: Path, m: int, epoch: int, *, run: str) -> None:
    """Keeps the final variables of a model that had stopped by `epoch` as its snapshot."""
    final = int(checkpoint.load_history(train_folder, m)["summary/epochs"])
    if final > epoch:
        raise FileNotFoundError(
            f"model {m} was trained without a snapshot after epoch {epoch}. "
            f"{checkpoint.snapshot_remedy(m)} If learner.snapshots did not name this "
            "epoch when the models were trained, use another workdir."
        )
    stored = files.read_npz(checkpoint.model_file(train_folder, m), record=checkpoint.place(run, m))
    variables = {name: array for name, array in stored.items() if name.startswith("variables/")}
    record = checkpoint.place(run, m, epoch) or None
    files.write_npz(
        checkpoint.model_file(snapshot_folder(train_folder, epoch), m), record=record, **variables
    )
