"""Features that an attack learns from: signals, probabilities, labels, examples and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from scipy.special import softmax

from mia_jax import checks
from mia_jax.threat_model import OTHER_NEEDS, SHADOW_NEEDS, Evidence

VIEWS = ("each", "mean")


class Features(NamedTuple):
    """Says which features an attack reads."""

    names: tuple[str, ...]
    columns: tuple[str, ...]
    views: str

    @property
    def needs(self) -> tuple[str, ...]:
        """Returns what the evidence must hold."""
        read = {"probabilities": "logits", "label": "y"}
        return tuple(
            dict.fromkeys(
                [*(read.get(n, n) for n in self.names), *(["columns"] if self.columns else [])]
            )
        )


def make(names: Sequence[str], columns: Sequence[str] = (), views: str = "each") -> Features:
    """Checks a choice of features and returns it.

    Raises:
        ValueError: There are no features, one is named twice, or a name is another kind of evidence
            ('shadow_in', 'member', ...).
    """
    names, columns = (tuple([v] if isinstance(v, str) else v) for v in (names, columns))
    checks.one_of(VIEWS, views=views)
    if not names + columns:
        raise ValueError(
            "features=() and columns=() leave nothing to learn from; name a signal, "
            "'probabilities', 'label', 'x' or a column."
        )
    for name in names:
        if name in SHADOW_NEEDS + OTHER_NEEDS and name != "x":
            raise ValueError(
                f"features: {name!r} is no feature; name a signal, 'probabilities', 'label' or 'x' "
                "(columns go in `columns`)."
            )
        if names.count(name) > 1:
            raise ValueError(f"features: {name!r} is named twice.")
    return Features(names, columns, views)


def matrix(
    features: Features, signal: Mapping[str, np.ndarray], evidence: Evidence, rows_K: np.ndarray
) -> np.ndarray:
    """Returns the features [K,F] float64 of the rows `rows_K` of one model.

    Args:
        features: which features.
        signal: {name: [A,N..]} of the model.
        evidence: where labels, examples and columns are read.
        rows_K: numbers of the rows.

    Raises:
        ValueError: A value is NaN or infinite, a column is missing or not numeric, or labels are
            not classes; the message names the feature.
    """
    parts = {
        name: _feature(name, signal, evidence, rows_K, features.views) for name in features.names
    }
    parts |= {f"column {name}": _column(name, evidence, rows_K) for name in features.columns}
    for name, part in parts.items():
        if not np.isfinite(part).all():
            checks.finite(**{f"feature {name!r}": part})
    return np.concatenate([part.reshape(len(rows_K), -1) for part in parts.values()], 1)


def salt(key) -> int:
    """Returns a number from a JAX key, for NumPy's generators."""
    return int(
        np.random.SeedSequence(
            np.asarray(jax.random.key_data(key)).ravel().tolist()
        ).generate_state(1, np.uint64)[0]
    )


def labels(evidence: Evidence, rows_K: np.ndarray) -> np.ndarray:
    """Returns the class numbers [K] int of rows.

    Raises:
        ValueError: y is not one class number per example.
    """
    y = np.asarray(evidence.y)
    if y.ndim != 1 or y.dtype.kind not in "iub" or evidence.num_classes < 1:
        raise ValueError(
            f"labels of dtype {y.dtype} and shape {y.shape} with {evidence.num_classes} classes "
            "are not one class number per example."
        )
    y_K = y[rows_K].astype(int)
    if len(y_K) and not 0 <= y_K.min() <= y_K.max() < evidence.num_classes:
        raise ValueError(
            f"labels lie in {y_K.min()}..{y_K.max()}; expected 0..{evidence.num_classes - 1}."
        )
    return y_K


def _feature(
    name: str, signal: Mapping, evidence: Evidence, rows_K: np.ndarray, views: str
) -> np.ndarray:
    if name == "label":
        return np.eye(evidence.num_classes)[labels(evidence, rows_K)]
    if name == "x":
        return np.asarray(evidence.x[rows_K], np.float64)  # of a pool on disk only these are read
    value_AK = signal["logits" if name == "probabilities" else name][:, rows_K].astype(np.float64)
    if name == "probabilities":
        checks.finite(**{"feature 'logits'": value_AK})
        value_AK = softmax(value_AK, -1)
    return value_AK.mean(0) if views == "mean" else np.moveaxis(value_AK, 0, 1)


def _column(name: str, evidence: Evidence, rows_K: np.ndarray) -> np.ndarray:
    if name not in evidence.columns:
        raise ValueError(checks.lacks("the data", "column", name, evidence.columns))
    column = np.asarray(evidence.columns[name])
    if column.dtype.kind not in "biuf":
        raise ValueError(f"column {name!r} has dtype {column.dtype}; a feature must be a number.")
    return column[rows_K].astype(np.float64)
