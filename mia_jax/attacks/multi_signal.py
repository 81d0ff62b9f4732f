"""LiRA on several signals at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mia_jax import checks, registry
from mia_jax.attacks import _signals
from mia_jax.types import Attack


def make(
    *,
    signals: Sequence[str] = ("rescaled_logit", "hinge"),
    joint: str = "sum",
    mode: str = "online",
    offline_score: str = "log_cdf",
    variance: str = "shrunk",
    center: str = "mean",
) -> Attack:
    """Scores LiRA's log likelihood ratios of several signals together.

    Every signal has the sign that it declares.

    Args:
        signals: at least two scalar signals.
        joint: 'sum': the sum of lira's scores over the signals, as if they were independent.
            'multivariate': one Student-t density over all signals and query views, with a
            correlation that all examples share (variance 'shrunk' or 'pooled').
        mode, offline_score, variance, center: as in lira.

    Raises:
        ValueError: Fewer than two signals, or one without a sign.
    """
    checks.one_of(("sum", "multivariate"), joint=joint)
    if isinstance(signals, str) or len(signals) < 2:
        raise ValueError(
            f"signals={signals!r} must name at least 2 signals, such as ('rescaled_logit', "
            "'hinge'); for one there is lira."
        )
    fields = dict(mode=mode, offline_score=offline_score, variance=variance, center=center)
    parts = [registry.make("attacks", "lira", dict(fields, signal=name)) for name in signals]
    shadow_needs = parts[0].needs[1:]
    needs = (*signals, *shadow_needs)
    note = f"{joint} over {', '.join(signals)}; {parts[0].note}"
    if joint == "multivariate":
        checks.one_of(("shrunk", "pooled"), variance=variance)
        signs = [_signals.sign_of(name, None) for name in signals]
        whole = registry.make(
            "attacks", "lira", dict(fields, signal="all", sign=1, views="multivariate")
        )

        def stacked(of) -> np.ndarray:
            """Returns the signals one after the other along the axis of the query views."""
            return np.concatenate(
                [sign * of[name] for name, sign in zip(signals, signs, strict=True)], axis=-2
            )

        def joined(evidence, key):
            return whole.score(
                dataclasses.replace(
                    evidence,
                    target={"all": stacked(evidence.target)},
                    shadow={"all": stacked(evidence.shadow)},
                ),
                key,
            )

        return Attack(joined, needs, knows="shadows", note=note)

    def score(evidence, key):
        return sum(part.score(evidence, key) for part in parts)

    def score_all(fleet, key):
        return sum(part.score_all(fleet, key) for part in parts)

    return Attack(score, needs, knows="shadows", score_all=score_all, note=note)
