"""Signals from supplied answers: losses, predictions, probabilities or logits of every
model, view and example.

NumPy in float64, so that the supplied digits stay: the signals of the same names in this
folder are measured in float32 inside a net.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import expit, logsumexp


def make(
    answers: Mapping[str, np.ndarray], labels: np.ndarray | None, *, name: str
) -> dict[str, np.ndarray]:
    """Returns every signal that the answers [M,A,N..] give, float64: of logits and probabilities
    all of MEASURES, and the logits.

    Squared errors summed over outputs for predictions, binary cross-entropy summed over labels
    where an example has several (labels [N,C]). A supplied loss replaces the one that follows from
    the answers; the latter is then returned as `from_answers`. ValueError unless probabilities are
    some and labels fit them, and for values beyond float64.
    """
    supplied = {form: answers[form] for form in ("score", "loss") if form in answers}
    found = (
        of_predictions(answers["predictions"], labels, name=name)
        if "predictions" in answers
        else {}
    )
    logits = answers.get("logits")
    if logits is None and "probs" in answers:
        logits = _log_probabilities(answers["probs"], several=labels.ndim == 2, name=name)
    if logits is not None:
        found = of_logits(logits, labels, name=name)
    if "loss" in supplied and "loss" in found:
        found["from_answers"] = found["loss"]
    for signal, value in found.items():
        if not np.isfinite(value).all():
            raise ValueError(
                f"{name}: numbers as large as {_largest(answers):.3g} give a {signal} beyond the "
                "largest float64, 1.8e308; scale them."
            )
    return found | supplied


def _largest(answers: Mapping[str, np.ndarray]) -> float:
    return max(float(np.abs(value).max(initial=0.0)) for value in answers.values())


def of_predictions(outputs: np.ndarray, labels: np.ndarray, *, name: str) -> dict[str, np.ndarray]:
    """Squared errors of real outputs, and the outputs themselves where there is one an example."""
    if outputs.shape[2:] != labels.shape:
        raise ValueError(
            f"{name}: predictions have outputs of shape {outputs.shape[3:]} and labels of shape "
            f"{labels.shape[1:]}; they must agree."
        )
    with np.errstate(over="ignore"):
        error = (outputs - labels[None, None]) ** 2
        loss = error.reshape(*error.shape[:3], -1).sum(-1)
    return dict(loss=loss) | (dict(predictions=outputs) if labels.ndim == 1 else {})


def of_logits(logits: np.ndarray, labels: np.ndarray, *, name: str) -> dict[str, np.ndarray]:
    """Returns all signals of logits [M,A,N,C]: of one label per example all of MEASURES, of several
    labels their loss.
    """
    if labels.ndim == 2:
        if logits.shape[-1] != labels.shape[-1]:
            raise ValueError(
                f"{name}: labels has {labels.shape[-1]} columns and the answers {logits.shape[-1]}."
            )
        return dict(loss=(np.logaddexp(0, logits) - logits * labels[None, None]).sum(-1))
    outside = (labels < 0) | (labels >= logits.shape[-1])
    if outside.any():
        n = int(np.argmax(outside))
        raise ValueError(
            f"{name}: label {labels[n]} of example {n} lies outside 0..{logits.shape[-1] - 1} "
            f"({logits.shape[-1]} columns of answers)."
        )
    if logits.shape[-1] < 2:
        raise ValueError(
            f"{name}: the answers have one column and need one per class, of which there must be "
            "at least 2."
        )
    parts = [[measured(out_NC, labels) for out_NC in out_ANC] for out_ANC in logits]
    return {
        signal: np.stack([np.stack([part[signal] for part in row]) for row in parts])
        for signal in MEASURES
    } | dict(logits=_small(logits))


def _small(value: np.ndarray) -> np.ndarray:
    """Returns the array as float32 if that is the same numbers."""
    with np.errstate(over="ignore"):
        half = value.astype(np.float32)
    return half if np.array_equal(half, value) else value


def measured(out_NC: np.ndarray, y_N: np.ndarray) -> dict[str, np.ndarray]:
    """Returns {signal: value_N} of one model's logits.

    >>> one = measured(np.array([[0.0, 40.0]]), np.array([1]))
    >>> bool(one['confidence'] == 1.0), float(one['rescaled_logit'][0])
    (True, 40.0)
    >>> bool(0 < one['loss'] < 1e-17)
    True
    """
    rows = np.arange(len(y_N))
    own_N, top_N = out_NC[rows, y_N], out_NC.argmax(-1)
    label_NC, top_NC = (np.arange(out_NC.shape[-1]) == index_N[:, None] for index_N in (y_N, top_N))
    with np.errstate(over="ignore"):  # what is beyond float64 is refused by `make`
        odds_N = -logsumexp(np.where(label_NC, -np.inf, out_NC - own_N[:, None]), axis=-1)
        gap_NC = out_NC - out_NC[rows, top_N][:, None]
    mass_NC = np.exp(gap_NC)
    rest_N = np.where(top_NC, 0, mass_NC).sum(-1)
    others_NC = np.maximum(
        mass_NC.sum(-1, keepdims=True) - mass_NC, 1
    )  # holds the largest term, 1, unless the class is the largest itself
    top_odds_N = -logsumexp(np.where(top_NC, -np.inf, gap_NC), axis=-1)
    all_odds_NC = np.where(top_NC, top_odds_N[:, None], gap_NC - np.log(others_NC))
    own = dict(
        out_NC=out_NC,
        y_N=y_N,
        odds_N=odds_N,
        own_N=own_N,
        top_N=top_N,
        label_NC=label_NC,
        gap_NC=gap_NC,
        mass_NC=mass_NC,
        rest_N=rest_N,
    )
    return {signal: measure(**own, all_odds_NC=all_odds_NC) for signal, measure in MEASURES.items()}


def _entropy(*, mass_NC, gap_NC, rest_N, **_):
    return np.log1p(rest_N) - (mass_NC * np.maximum(gap_NC, -1e300)).sum(-1) / (1 + rest_N)


def _modified_entropy(*, label_NC, all_odds_NC, **_):
    signed_NC = np.where(label_NC, -1, 1) * all_odds_NC
    return (expit(signed_NC) * np.logaddexp(0, signed_NC)).sum(-1)


MEASURES: dict[str, Callable[..., np.ndarray]] = dict(
    loss=lambda *, odds_N, **_: np.logaddexp(0, -odds_N),
    confidence=lambda *, odds_N, **_: expit(odds_N),
    max_confidence=lambda *, rest_N, **_: 1 / (1 + rest_N),
    rescaled_logit=lambda *, odds_N, **_: odds_N,
    entropy=_entropy,
    modified_entropy=_modified_entropy,
    hinge=lambda *, own_N, label_NC, out_NC, **_: (
        own_N - np.where(label_NC, -np.inf, out_NC).max(-1)
    ),
    correct=lambda *, top_N, y_N, **_: (top_N == y_N).astype(np.float64),
)  # the formulas of the signals of these names


def _log_probabilities(probs: np.ndarray, *, several: bool, name: str) -> np.ndarray:
    """log p (or log odds where labels are independent), zeros at the smallest float32 or below the
    smallest probability. ValueError unless rows are probabilities.
    """
    if probs.shape[-1] == 1 and not several:
        raise ValueError(
            f"{name}: probs has one column; for one probability p of class 1 an example pass "
            "np.concatenate([1 - p, p], -1)."
        )
    low, high = float(probs.min()), float(probs.max())
    total = np.ones(1) if several else probs.sum(-1)
    if low < 0 or high > 1:
        raise ValueError(
            f"{name}: probs lie in [{low:.4g}, {high:.4g}] and must lie in [0, 1]; outputs before "
            "the softmax are logits=..."
        )
    if np.abs(total - 1).max() > 1e-3:
        worst = np.unravel_index(int(np.abs(total - 1).argmax()), total.shape)
        raise ValueError(
            f"{name}: probs of an example must sum to 1; those of example {worst[-1]} sum to "
            f"{total[worst]:.4g}. (Several labels an example: pass "
            "labels [N,C] of 0 and 1.)"
        )
    floor = min(
        float(np.finfo(np.float32).tiny), float(probs.min(initial=1.0, where=probs > 0)) / 2
    )
    clipped = np.maximum(probs, max(floor, 5e-324))
    return np.log(clipped) - (
        np.log(np.maximum(1 - probs, np.finfo(np.float32).tiny)) if several else 0.0
    )
