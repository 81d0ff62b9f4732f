"""Keras models of any backend, asked in inference mode and in batches."""

from __future__ import annotations

import sys

import numpy as np

from mia_jax.external import rows
from mia_jax.external.frameworks import Predictor

ORDER = -1  # asked first: with the torch backend a Keras model is a torch module as well
BATCH_SIZE = 1024


def takes(model) -> bool:
    """Returns whether a model is a keras.Model (Keras 3, or Keras 2 as tf_keras)."""
    return _library(model) is not None


def predictor(model, *, batch_size: int | None, device=None) -> Predictor:
    """Returns the model as a function of rows: `predict_on_batch`, batch by batch.

    Rows may be arrays, tensors, frames, or dicts of arrays (the names of the inputs).

    Raises:
        ValueError: the model has several outputs, or a device was named.
    """
    name = type(model).__name__
    if device is not None:
        raise ValueError(
            f"device={device!r} has no meaning for the Keras model {name}; use keras.device(...) "
            "around the audit."
        )
    size = BATCH_SIZE if batch_size is None else batch_size

    def ask(part) -> np.ndarray:
        out = model.predict_on_batch(rows.for_net(part, texts=True))
        if isinstance(out, list | tuple | dict):
            raise ValueError(
                f"predict is the Keras model {name}, which has {len(out)} outputs; pass a function "
                "of rows that selects one."
            )
        return np.asarray(out)

    return Predictor(
        answer=lambda x: rows.in_batches(ask, x, size),
        form=None,
        classes=None,
        words=f"Keras {name}",
    )


def trainer(model) -> None:
    """Returns None: a model would be trained further, never again from the start."""


def after_epochs(ended):
    """Returns a keras.callbacks.Callback for fit(callbacks=[...]).

    Args:
        ended: ended(model, epoch) -> whether to stop the training; epochs count from 1.
    """
    import keras

    class AfterEpochs(keras.callbacks.Callback):
        """Calls `ended` after every epoch."""

        def on_epoch_end(self, epoch, logs=None):
            del logs
            if ended(self.model, epoch + 1):
                self.model.stop_training = True

    return AfterEpochs()


def _library(model):
    """Returns the loaded Keras module that the model is of, or None."""
    for name in ("keras", "tf_keras"):
        library = sys.modules.get(name)
        if hasattr(library, "Model") and isinstance(model, library.Model):
            return library
    return None
