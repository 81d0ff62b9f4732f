"""scikit-learn's estimators and what has the same methods: pipelines, searches, XGBoost, LightGBM.

A model is known by its methods, so that nothing is imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from mia_jax.external import rows
from mia_jax.external.frameworks import Predictor

BATCH_SIZE = 16_384
NAMES = dict(sklearn="scikit-learn", xgboost="XGBoost", lightgbm="LightGBM")


def takes(model) -> bool:
    """Returns whether a model has the methods of an estimator."""
    if isinstance(model, type):
        return False
    return all(callable(getattr(model, name, None)) for name in ("get_params", "fit")) and any(
        hasattr(model, name) for name in ("predict", "predict_proba", "decision_function")
    )


def predictor(model, *, batch_size: int | None, device=None) -> Predictor:
    """Returns predict_proba, else decision_function of a classifier, predict of a regressor.

    Raises:
        ValueError: it is not fitted, or returns labels alone.
    """
    if device is not None:
        raise ValueError(f"device={device!r} has no meaning for {described(model)}; leave it out.")
    _check_fitted(model)
    method, form = _method(model)
    size = BATCH_SIZE if batch_size is None else batch_size
    ask = getattr(model, method)
    classes = getattr(model, "classes_", None) if form != "predictions" else None
    if isinstance(classes, list):  # several labels per row, each with its own classes
        _check_labels_of_two(model, classes)
        classes = None
    return Predictor(
        answer=lambda x: rows.in_batches(lambda part: _array(ask(part)), x, size),
        form=form,
        classes=None if classes is None else np.asarray(classes),
        words=f"{described(model)} ({method})",
    )


def trainer(model) -> Callable:
    """Returns fit(x, y, seed): a clone in which every `random_state` is the seed, fitted."""

    def fit(x, y, seed):
        from sklearn.base import clone

        copy = clone(model)
        seeds = {
            name: seed
            for name in copy.get_params()
            if name == "random_state" or name.endswith("__random_state")
        }
        return copy.set_params(**seeds).fit(x, y)

    return fit


def described(model) -> str:
    """Returns 'scikit-learn Pipeline of StandardScaler, SVC'."""
    package = type(model).__module__.split(".")[0]
    steps = ", ".join(type(step).__name__ for _, step in getattr(model, "steps", ()))
    name = type(model).__name__ + f" of {steps}" * bool(steps)
    return f"{NAMES[package]} {name}" if package in NAMES else name


def _check_fitted(model) -> None:
    validation = sys.modules.get("sklearn.utils.validation")
    if validation is None:  # an estimator without scikit-learn: its own error says it
        return
    try:
        validation.check_is_fitted(model)
    except TypeError:  # only looks like an estimator
        return
    except ValueError as error:  # NotFittedError
        raise ValueError(
            f"predict is {described(model)}, which is not fitted; fit it first, or pass it as fit= "
            "to audit the models that are fitted from it."
        ) from error


def _method(model) -> tuple[str, str]:
    """Returns the method that is asked, and the form of its answers."""
    classifies = hasattr(model, "classes_") or getattr(model, "_estimator_type", "") == "classifier"
    if hasattr(model, "predict_proba") and classifies:
        return "predict_proba", "probs"
    if hasattr(model, "decision_function") and classifies:
        last = model.steps[-1][1] if hasattr(model, "steps") else model
        if getattr(last, "decision_function_shape", "ovr") == "ovo" and len(model.classes_) > 2:
            raise ValueError(
                f"predict is {described(model)} with decision_function_shape='ovo', one number "
                "per pair of classes; an audit needs one per class: use 'ovr'."
            )
        return "decision_function", "logits"
    if classifies:
        raise ValueError(
            f"predict is {described(model)}, which returns labels alone; wrap it, such as in "
            "sklearn.calibration.CalibratedClassifierCV, for probabilities."
        )
    base = sys.modules.get("sklearn.base")
    if hasattr(model, "predict") and (base is None or base.is_regressor(model)):
        return "predict", "predictions"
    raise ValueError(
        f"predict is {described(model)}, which is no classifier and no regressor; pass a function "
        "of rows that returns probabilities, logits or predictions."
    )


def _check_labels_of_two(model, classes: list) -> None:
    most = max(map(len, classes))
    if most > 2:
        raise ValueError(
            f"predict is {described(model)} with {len(classes)} labels per row, one of which has "
            f"{most} classes; several labels per row must be 0 or 1 each."
        )


def _array(answers) -> np.ndarray:
    """Returns the answers as one array; of several labels per row the probability of class 1."""
    if isinstance(answers, list):
        return np.stack([label[:, -1] for label in answers], -1)
    return np.asarray(answers)
