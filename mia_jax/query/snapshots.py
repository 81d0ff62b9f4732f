"""Measures the loss of every example at several epochs of the training of every model.

The variables are kept at snapshots while the models train, and every snapshot is queried after the
training.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from mia_jax.query import forward
from mia_jax.runtime import files
from mia_jax.runtime.store import Answers, Trained
from mia_jax.training import checkpoint

Path = pathlib.Path
SIGNAL = "loss_trajectory"  # [A,N,E], E = the epochs of learner.snapshots


def snapshot_folder(folder: Path, epoch: int) -> Path:
    """Returns the folder of the variables of all models after an epoch."""
    return Trained(folder).snapshot(epoch).folder


def saver(
    folder: Path, epochs: Sequence[int], released: Callable | None = None, *, run: str = ""
) -> Callable:
    """Returns a hook of the fleet that saves the variables of every model after some epochs.

    Args:
        folder: the folder of the training stage.
        epochs: the epochs, 1-based.
        released: the learner's function from a TrainState to the variables that it publishes; None
            if these are the state's variables.
        run: the identity of the run, recorded in the files.
    """
    kept = set(epochs)

    def hook(models, epoch, state, metrics) -> None:
        del metrics
        if epoch in kept:
            variables = jax.device_get(jax.vmap(released)(state) if released else state.variables)
            for i, m in enumerate(models):
                variables_m = jax.tree.map(lambda a, i=i: a[i], variables)
                checkpoint.save_model(
                    snapshot_folder(folder, epoch), m, variables_m, {}, run=run, epoch=epoch
                )

    return hook


def complete(
    *, epochs: Sequence[int], models: Sequence[int], train_folder: Path, run: str = ""
) -> dict[int, Path]:
    """Returns {epoch: the folder of all models as they were after it}, in the order of `epochs`.

    A model that stopped before an epoch is copied there with its final variables.

    Raises:
        FileNotFoundError: if a model was trained without snapshots.
    """
    folders = {}
    for epoch in epochs:
        folders[epoch] = snapshot_folder(train_folder, epoch)
        for m in models:
            if not checkpoint.model_file(folders[epoch], m).exists():
                _stopped(train_folder, m, epoch, run=run)
    return folders


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
    """Writes folder/loss_trajectory/<model>.npy [A,N,E], the losses at E epochs.

    Args:
        epochs: the E epochs.
        models: the numbers of the models.
        train_folder: the folder of the training stage.
        folder: the folder of the answers.
        ask: ask(models_folder=, folder=, epoch=) queries the loss of all models in a folder.
        bad: the models that got no answers; it may grow while `ask` runs.
        run: the identity of the run, recorded in the files.
        begin: called before anything is written, if there is something to ask.
    """
    if all(forward.signal_file(folder, SIGNAL, m).exists() for m in models):
        return
    begin()
    for epoch, models_folder in complete(
        epochs=epochs, models=models, train_folder=train_folder, run=run
    ).items():
        ask(
            models_folder=models_folder,
            folder=Answers(folder).losses_after(epoch).folder,
            epoch=epoch,
        )
    for m in (m for m in models if m not in bad):
        if not forward.signal_file(folder, SIGNAL, m).exists():
            parts = [
                forward.load(Answers(folder).losses_after(e).folder, "loss", [m], run=run, epoch=e)[
                    0
                ]
                for e in epochs
            ]
            record = forward.place(run, SIGNAL, m)
            record |= dict(
                snapshots={
                    str(e): checkpoint.digest(snapshot_folder(train_folder, e), m) for e in epochs
                }
            )
            files.write_npy(
                forward.signal_file(folder, SIGNAL, m), np.stack(parts, axis=-1), record
            )


def _stopped(train_folder: Path, m: int, epoch: int, *, run: str) -> None:
    """Saves the final variables of a model that stopped by `epoch` as its snapshot."""
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
