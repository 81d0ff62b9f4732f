"""Signals from answers that were brought: losses, predictions, probabilities or logits of every model, view and example."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mia_jax import registry

FROM_LOGITS = ("loss", "confidence", "max_confidence", "rescaled_logit", "entropy", "modified_entropy", "hinge", "correct", "logits")


def make(answers: Mapping[str, np.ndarray], labels: np.ndarray | None, *, name: str) -> dict[str, np.ndarray]:
    """Every signal that the answers [M,A,N..] give, float32: of logits and probabilities all of FROM_LOGITS.

    Squared errors summed over outputs for predictions, binary cross-entropy summed over labels where an example has several (labels [N,C]).
    ValueError unless probabilities are some and labels fit them.
    """
    found = {form: answers[form].astype(np.float32) for form in ("score", "loss") if form in answers}
    if "predictions" in answers:
        error = (answers["predictions"] - labels[None, None]) ** 2
        found["loss"] = error.reshape(*error.shape[:3], -1).sum(-1).astype(np.float32)
        found |= dict(predictions=answers["predictions"]) if labels.ndim == 1 else {}
    logits = answers.get("logits")
    if logits is None and "probs" in answers:
        logits = _log_probabilities(answers["probs"], several=labels.ndim == 2, name=name)
    if logits is None:
        return found
    if labels.ndim == 2:
        if logits.shape[-1] != labels.shape[-1]:
            raise ValueError(f"{name}: labels has {labels.shape[-1]} columns and the answers {logits.shape[-1]}.")
        losses = np.logaddexp(0, logits) - logits * labels[None, None]
        return found | dict(loss=losses.sum(-1).astype(np.float32))
    outside = (labels < 0) | (labels >= logits.shape[-1])
    if outside.any():
        n = int(np.argmax(outside))
        raise ValueError(f"{name}: label {labels[n]} of example {n} lies outside 0..{logits.shape[-1] - 1} ({logits.shape[-1]} columns of answers).")
    measured = {n: registry.make("signals", n).measure for n in FROM_LOGITS}
    return {n: _per_view(measure, logits, labels) for n, measure in measured.items()} | found


def _per_view(measure, logits_MANC: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """measure(out_NC, y_N) for every model and view."""
    return np.stack([np.stack([np.asarray(measure(out_NC.astype(np.float32), labels_N)) for out_NC in out_ANC]) for out_ANC in logits_MANC])


def _log_probabilities(probs: np.ndarray, *, several: bool, name: str) -> np.ndarray:
    """log p (or log odds where labels are independent), zeros at the smallest float32. ValueError unless rows are probabilities."""
    if probs.shape[-1] == 1 and not several:
        raise ValueError(f"{name}: probs has one column; for one probability p of class 1 an example bring np.concatenate([1 - p, p], -1).")
    low, high = float(probs.min()), float(probs.max())
    total = np.ones(1) if several else probs.sum(-1)
    if low < 0 or high > 1:
        raise ValueError(f"{name}: probs lie in [{low:.4g}, {high:.4g}] and must lie in [0, 1]; outputs before the softmax are logits=...")
    if np.abs(total - 1).max() > 1e-3:
        worst = np.unravel_index(int(np.abs(total - 1).argmax()), total.shape)
        raise ValueError(
            f"{name}: probs of an example must sum to 1; those of example {worst[-1]} sum to {total[worst]:.4g}. (Several labels an example: bring "
            "labels [N,C] of 0 and 1.)"
        )
    tiny = np.finfo(np.float32).tiny
    clipped = np.clip(probs, tiny, 1.0)
    return np.log(clipped) - (np.log(np.clip(1 - probs, tiny, 1.0)) if several else 0.0)
