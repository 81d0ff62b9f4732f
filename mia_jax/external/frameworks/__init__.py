"""Contains the adapters of frameworks, one file each: a trained model as a function of rows.

An adapter is a module with three functions; none of them imports a framework that is not loaded,
because a model of a framework exists only after the framework was imported.

```
takes(model) -> bool                        is this a model of mine? (imports nothing)
predictor(model, *, batch_size, device=None) -> Predictor       of a trained model
trainer(model) -> Callable[[x, y, seed], model] | None          of an untrained one; None: a user
                                                                has to pass a function
```

`batch_size=None` leaves the number of rows per call to the adapter, `device=None` the device to the
model. An optional `ORDER` (0 without it) says who is asked first: a Keras model may also be a torch
module, and anything that can be called is a function. Errors are ValueErrors in one sentence.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from mia_jax import registry

FORMS = ("logits", "probs", "predictions")


class Predictor(NamedTuple):
    """Describes a trained model as a function.

    Attributes:
        answer: answer(x rows) -> float array on the host: [B,C], [B] (one number per row) or [B,F].
        form: 'logits', 'probs' or 'predictions'; None if the values have to show it.
        classes: the label of each column, where the framework knows it (`classes_` of
            scikit-learn); None otherwise.
        words: for the report, such as 'scikit-learn RandomForestClassifier (predict_proba)'.
    """

    answer: Callable[[Any], np.ndarray]
    form: str | None
    classes: np.ndarray | None
    words: str


def adapter(model, *, framework: str | None = None, argument: str = "predict") -> ModuleType:
    """Returns the adapter that takes a model.

    Args:
        model: of any framework, or a function.
        framework: the name of an adapter, or the dotted path of one outside the package; None asks
            all adapters.
        argument: the name of the argument that the model was passed as, for messages.

    Raises:
        ValueError: no adapter takes it; the message says what can be passed.

    >>> adapter(len).__name__.rpartition(".")[2]
    'function'
    """
    if framework is not None:
        module = registry.load("frameworks", framework)
        if not module.takes(model):
            raise ValueError(
                f"{argument} is a {kind_of(model)}, which framework={framework!r} does not take."
            )
        return module
    modules = [registry.load("frameworks", name) for name in registry.names("frameworks")]
    for module in sorted(modules, key=lambda module: getattr(module, "ORDER", 0)):
        if module.takes(model):
            return module
    raise ValueError(
        f"{argument} is a {kind_of(model)} and must be a function of rows x, or a model of one of "
        f"{', '.join(name for name in registry.names('frameworks') if name != 'function')}."
    )


def predictor(
    model,
    *,
    framework: str | None = None,
    batch_size: int | None = None,
    device=None,
    argument: str = "predict",
) -> Predictor:
    """Returns a trained model as a function; see `adapter` for the arguments and errors."""
    module = adapter(model, framework=framework, argument=argument)
    asked = module.predictor(model, batch_size=batch_size, device=device)
    return asked._replace(answer=_as_the_user(asked.answer))


def _as_the_user(function: Callable) -> Callable:
    """Returns a function of a user's that runs with JAX's usual promotion of ranks."""

    @functools.wraps(function)
    def asked(*arguments):
        if "jax" not in sys.modules:
            return function(*arguments)
        from mia_jax.runtime import precision

        with precision.as_the_user():
            return function(*arguments)

    return asked


def trainer(model, *, framework: str | None = None) -> Callable:
    """Returns fit(x, y, seed) -> trained model, of a function or of an untrained estimator.

    `framework` names the adapter of the models; a function may train models of any framework.

    Raises:
        ValueError: the framework cannot train a model without a function of the user's.
    """
    if framework is not None and not registry.load("frameworks", framework).takes(model):
        framework = None
    fit = adapter(model, framework=framework, argument="fit").trainer(model)
    if fit is None:
        raise ValueError(
            f"fit is a {kind_of(model)}, which does not say how it is trained; pass a function "
            "fit(x, y, seed) that trains a new model on these rows and returns it."
        )
    return fit


def kind_of(model) -> str:
    """Returns the type of an object for a message: 'list', 'torch Linear'.

    >>> kind_of([])
    'list'
    """
    package, name = type(model).__module__.split(".")[0], type(model).__qualname__
    return name if package in ("builtins", "__main__") else f"{package} {name}"
