"""Ensemble: several attacks combined into one, with weights learned on shadows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mia_jax import checks, registry
from mia_jax.attacks import _inner, _sides
from mia_jax.fitting import logistic
from mia_jax.types import Attack

CUT = 10.0  # standardized scores are limited to +-CUT
DEFAULT = dict(
    threshold=dict(name="threshold", signal="loss"),
    lira=dict(name="lira", variance="shrunk"),
    offset=dict(name="offset"),
)


def make(
    *, attacks: Mapping[str, Mapping] = DEFAULT, shadows: int = 4, ridge: float = 1e-3
) -> Attack:
    """Scores the log-odds of a logistic regression on the standardized scores of several attacks.

    Scores are standardized over the target's evaluated rows. The regression is fitted on shadows
    as targets, each with the other shadows except its twin; the target takes no part. Members and
    non-members have equal total weight. Where no shadow has shadows of its own, the standardized
    scores are averaged.

    Args:
        attacks: {any name: {name: attack, field: value}}, as in a config.
        shadows: how many shadows the regression is fitted on: the first that can be targets.
        ridge: the penalty that keeps the weights finite.

    Raises:
        ValueError: Fewer than 2 attacks, or an attack that knows more than shadows do.
    """
    checks.at_least(1, shadows=shadows)
    checks.positive(ridge=ridge)
    if len(attacks) < 2:
        raise ValueError(f"attacks={dict(attacks)} must hold at least 2 attacks.")
    parts = [
        registry.make("attacks", section["name"], {k: v for k, v in section.items() if k != "name"})
        for section in attacks.values()
    ]
    for name, part in zip(attacks, parts, strict=True):
        if part.knows not in ("nothing", "shadows"):
            raise ValueError(
                f"attack {name!r} knows {part.knows!r}; an ensemble fitted on shadows takes "
                "'nothing' or 'shadows'."
            )
    read = tuple(dict.fromkeys(need for part in parts for need in part.needs))

    def features(evidence, key) -> np.ndarray:
        """Returns the standardized scores [K,F] of the evidence's evaluated rows."""
        return np.stack(
            [standardized(part.score(evidence, key)[evidence.evaluated_N]) for part in parts], 1
        )

    def score(evidence, key):
        inner = _inner.evidence_of_shadows(evidence, read, limit=shadows)
        x_KF = features(evidence, key)
        if inner:
            pairs = [(features(v, key), member_N[v.evaluated_N]) for v, member_N in inner]
            weight_F, intercept = logistic.balanced(
                np.concatenate([x for x, _ in pairs]),
                np.concatenate([m for _, m in pairs]),
                ridge=ridge,
            )
            return _sides.spread_out(x_KF @ weight_F + intercept, evidence.evaluated_N)
        return _sides.spread_out(x_KF.mean(1), evidence.evaluated_N)

    needs = (*read, *(n for n in ("shadow_own",) if n not in read))
    note = f"logistic over {', '.join(attacks)}, fitted on up to {shadows} shadows"
    return Attack(score, needs, knows="shadows", note=note)


def standardized(score_K: np.ndarray) -> np.ndarray:
    """Returns (score - median) / (interquartile range / 1.349), limited to +-10.

    The quartiles are used because heavy tails must not set the scale. Where half of the scores tie,
    the standard deviation replaces the interquartile range. All 0 where all scores are equal.
    """
    away_K = score_K - np.median(score_K)
    low, high = np.quantile(away_K, [0.25, 0.75])
    scale = (high - low) / 1.349 if high > low else away_K.std()
    return (
        np.clip(away_K / scale, -CUT, CUT)
        if scale > 1e-12 * np.abs(score_K).max()
        else np.zeros_like(score_K)
    )
