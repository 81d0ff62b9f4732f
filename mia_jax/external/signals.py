"""Computes signals from supplied losses, predictions, probabilities or logits.

The answers have the axes [M,A,N,..]: M models, A views and N examples. The formulas are written in
NumPy in float64, which keeps the digits that were supplied; the signals of the same names in
mia_jax/signals are computed in float32 from the output of a net.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import expit, logsumexp


def make(
    answers: Mapping[str, np.ndarray], labels: np.ndarray | None, *, name: str
) -> dict[str, np.ndarray]:
    """Returns every signal that the answers give, {name: [M,A,N..]} in float64.

    Supplied losses and scores keep their dtype.

    Logits and probabilities give all of MEASURES and the logits. Predictions give squared errors,
    summed over outputs. If an example has several labels (labels [N,C]), the loss is the binary
    cross-entropy, summed over labels. A supplied loss replaces the one that follows from the
    answers, which is then returned as `from_answers`.

    Args:
        answers: {form: [M,A,N..]}; a form is score, loss, probs, logits or predictions.
        labels: [N], [N,F] or [N,C] as in `arrays.labels_and_task`; None if none were supplied.
        name: what the arrays are called in messages.

    Raises:
        ValueError: if probabilities are not probabilities, labels do not fit the answers, or a
            signal is beyond float64.
    """
    supplied = {form: answers[form] for form in ("score", "loss") if form in answers}
    computed = {}
    if "predictions" in answers:
        computed = of_predictions(answers["predictions"], labels, name=name)
    logits = answers.get("logits")
    if logits is None and "probs" in answers:
        logits = _log_probabilities(answers["probs"], several=labels.ndim == 2, name=name)
    if logits is not None:
        computed = of_logits(logits, labels, name=name)
    if "loss" in supplied and "loss" in computed:
        computed["from_answers"] = computed["loss"]
    for signal, value in computed.items():
        if not np.isfinite(value).all():
            raise ValueError(
                f"{name}: numbers as large as {_largest(answers):.3g} give a {signal} beyond the "
                "largest float64, 1.8e308; scale them."
            )
    return computed | supplied


def _largest(answers: Mapping[str, np.ndarray]) -> float:
    return max(float(np.abs(value).max(initial=0.0)) for value in answers.values())


def of_predictions(outputs: np.ndarray, labels: np.ndarray, *, name: str) -> dict[str, np.ndarray]:
    """Returns the squared errors of real outputs, summed over the outputs of an example.

    Args:
        outputs: [M,A,N] or [M,A,N,F].
        labels: [N] or [N,F].
        name: what the arrays are called in messages.

    Returns:
        {'loss': [M,A,N]}, and 'predictions' (the outputs) if there is one per example.
    """
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
    """Returns the signals of logits [M,A,N,C] as {name: [M,A,N]}, and the logits themselves.

    For one label per example (labels [N]) these are all of MEASURES. For several (labels [N,C] of
    0 and 1) it is only their loss.

    Raises:
        ValueError: if the labels do not fit the columns of the logits.
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
    parts = [
        [measured(out_NC.astype(np.float64), labels) for out_NC in out_ANC] for out_ANC in logits
    ]
    return {
        signal: np.stack([np.stack([part[signal] for part in row]) for row in parts])
        for signal in MEASURES
    } | dict(logits=_small(logits))


def _small(value: np.ndarray) -> np.ndarray:
    """Returns the array as float32 if no number changes by it, else the array itself."""
    if value.dtype == np.float32:
        return value
    with np.errstate(over="ignore"):
        half = value.astype(np.float32)
    return half if np.array_equal(half, value) else value


def measured(out_NC: np.ndarray, y_N: np.ndarray) -> dict[str, np.ndarray]:
    """Returns {signal: value_N} of the logits of one model in one view.

    >>> signals = measured(np.array([[0.0, 40.0]]), np.array([1]))
    >>> bool(signals['confidence'] == 1.0), float(signals['rescaled_logit'][0])
    (True, 40.0)
    >>> bool(0 < signals['loss'] < 1e-17)
    True
    """
    rows = np.arange(len(y_N))
    label_out_N, top_N = out_NC[rows, y_N], out_NC.argmax(-1)
    label_NC, top_NC = (np.arange(out_NC.shape[-1]) == index_N[:, None] for index_N in (y_N, top_N))
    with np.errstate(over="ignore"):  # `make` refuses what is beyond float64
        odds_N = -logsumexp(np.where(label_NC, -np.inf, out_NC - label_out_N[:, None]), axis=-1)
        gap_NC = out_NC - out_NC[rows, top_N][:, None]
    mass_NC = np.exp(gap_NC)
    rest_N = np.where(top_NC, 0, mass_NC).sum(-1)
    # The mass of the other classes is at least 1, the mass of the top class, except in the column
    # of the top class itself, which the last line replaces.
    others_NC = np.maximum(mass_NC.sum(-1, keepdims=True) - mass_NC, 1)
    top_odds_N = -logsumexp(np.where(top_NC, -np.inf, gap_NC), axis=-1)
    all_odds_NC = np.where(top_NC, top_odds_N[:, None], gap_NC - np.log(others_NC))
    quantities = dict(
        out_NC=out_NC,
        y_N=y_N,
        odds_N=odds_N,
        label_out_N=label_out_N,
        top_N=top_N,
        label_NC=label_NC,
        gap_NC=gap_NC,
        mass_NC=mass_NC,
        rest_N=rest_N,
    )
    return {
        signal: measure(**quantities, all_odds_NC=all_odds_NC)
        for signal, measure in MEASURES.items()
    }


def _entropy(*, mass_NC, gap_NC, rest_N, **_):
    return np.log1p(rest_N) - (mass_NC * np.maximum(gap_NC, -1e300)).sum(-1) / (1 + rest_N)


def _modified_entropy(*, label_NC, all_odds_NC, **_):
    signed_NC = np.where(label_NC, -1, 1) * all_odds_NC
    return (expit(signed_NC) * np.logaddexp(0, signed_NC)).sum(-1)


# The formulas of the signals of these names, over the quantities that `measured` computes.
MEASURES: dict[str, Callable[..., np.ndarray]] = dict(
    loss=lambda *, odds_N, **_: np.logaddexp(0, -odds_N),
    confidence=lambda *, odds_N, **_: expit(odds_N),
    max_confidence=lambda *, rest_N, **_: 1 / (1 + rest_N),
    rescaled_logit=lambda *, odds_N, **_: odds_N,
    entropy=_entropy,
    modified_entropy=_modified_entropy,
    hinge=lambda *, label_out_N, label_NC, out_NC, **_: (
        label_out_N - np.where(label_NC, -np.inf, out_NC).max(-1)
    ),
    correct=lambda *, top_N, y_N, **_: (top_N == y_N).astype(np.float64),
)


def _log_probabilities(probs: np.ndarray, *, several: bool, name: str) -> np.ndarray:
    """Returns log p, or the log odds if an example has several labels (which are independent).

    Zeros become the smallest normal float32, or half of the smallest positive probability if that
    is less. Raises ValueError unless the rows are probabilities.
    """
    if probs.shape[-1] == 1 and not several:
        raise ValueError(
            f"{name}: probs has one column; for one probability p of class 1 per example pass "
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
            f"{total[worst]:.4g}. (Several labels per example: pass labels [N,C] of 0 and 1.)"
        )
    floor = min(
        float(np.finfo(np.float32).tiny), float(probs.min(initial=1.0, where=probs > 0)) / 2
    )
    clipped = np.maximum(probs, max(floor, 5e-324))
    return np.log(clipped) - (
        np.log(np.maximum(1 - probs, np.finfo(np.float32).tiny)) if several else 0.0
    )
