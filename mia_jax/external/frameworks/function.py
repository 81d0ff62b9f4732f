"""A plain function: predict(x) -> answers, fit(x, y, seed) -> a model of any framework."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mia_jax.external import rows
from mia_jax.external.frameworks import Predictor

ORDER = 1  # asked last: models of frameworks can be called as well
BATCH_SIZE = 1024


def takes(model) -> bool:
    """Returns whether a model can be called."""
    return callable(model)


def predictor(model, *, batch_size: int | None, device=None) -> Predictor:
    """Returns the function in batches; of a bound method (`model.predict_proba`) also the classes
    that its object knows.

    >>> answers = predictor(lambda x: 2 * x, batch_size=2).answer(np.arange(3.0))
    >>> answers.tolist()
    [0.0, 2.0, 4.0]
    """
    _check_object(model, "predict")
    if device is not None:
        raise ValueError(
            f"device={device!r} has no meaning for a function; move the rows within predict."
        )
    size = BATCH_SIZE if batch_size is None else batch_size
    classes = getattr(getattr(model, "__self__", None), "classes_", None)
    if not isinstance(classes, np.ndarray) or classes.ndim != 1:
        classes = None
    name = getattr(model, "__name__", type(model).__name__)
    return Predictor(
        answer=lambda x: rows.in_batches(model, x, size),
        form=None,
        classes=classes,
        words="a function" if name == "<lambda>" else f"the function {name}",
    )


def trainer(model) -> Callable:
    """Returns the function itself."""
    _check_object(model, "fit")
    return model


def _check_object(model, argument: str) -> None:
    if isinstance(model, type):
        raise ValueError(
            f"{argument} is the class {model.__name__}; pass an object of it, {model.__name__}(...)"
            ", or a function."
        )
