"""Class thresholds: a threshold per class, learned on shadows.

Source: Song and Mittal 2021 (arXiv:2003.10595).
"""

from __future__ import annotations

import numpy as np

from mia_jax.attacks import _signals
from mia_jax.metrics import thresholds
from mia_jax.types import Attack


def make(
    *, signal: str = "modified_entropy", view: int | None = None, sign: int | None = None
) -> Attack:
    """Scores sign * signal - the threshold of the example's class; a member if the score is >= 0.

    The threshold of a class has the best balanced accuracy on the shadows' own evaluated rows of
    that class, over all shadows together. A class for which no threshold beats guessing takes the
    threshold of all classes together, and 0 if that does not beat guessing either.

    Args:
        signal: in the paper 'modified_entropy', 'entropy', 'confidence' (and 'correct', which needs
            no threshold: attack gap).
        view: the number of the query view that is read; None: the mean over all.
        sign: +1 if a larger signal means member, -1 if a smaller one does; None: as the signal
            declares.

    Raises:
        ValueError: No shadow has evaluated members and non-members of its own.
    """
    sign = _signals.sign_of(signal, sign)

    def chosen(value, axes):
        value = _signals.scalar(value, axes, signal)
        if view is not None and not 0 <= view < value.shape[-2]:
            raise ValueError(
                f"view={view} of signal {signal!r} was not queried; there are {value.shape[-2]} "
                "views, numbered from 0."
            )
        return sign * (
            _signals.mean_over_views(value)
            if view is None
            else value[..., view, :].astype(np.float64)
        )

    def score(evidence, key):
        del key
        shadows, own_MN = len(evidence.shadow_member_MN), evidence.shadow_evaluated_MN
        value_MN, everyone_MM = (
            chosen(evidence.shadow[signal], "MAN"),
            np.ones((shadows, shadows), bool),
        )
        threshold_C = learned(
            value_MN,
            evidence.shadow_member_MN,
            own_MN,
            everyone_MM,
            evidence.y,
            evidence.num_classes,
        )[0]
        return np.where(
            evidence.evaluated_N,
            chosen(evidence.target[signal], "AN") - threshold_C[evidence.y],
            np.nan,
        )

    def score_all(fleet, key):
        del key
        d, targets = fleet.design, list(fleet.design.targets)
        value_MN = chosen(fleet.signal[signal], "MAN")
        shadow_MM = np.where(
            np.isin(np.arange(len(value_MN)), targets)[:, None],
            d.shadow_MM,
            d.shadow_MM[targets[0]],
        )
        threshold_TC = learned(
            value_MN, d.member_MN, d.evaluated_MN, shadow_MM, fleet.y, fleet.num_classes
        )[targets]
        return np.where(
            d.of_targets().evaluated_TN, value_MN[targets] - threshold_TC[:, fleet.y], np.nan
        )

    note = (
        f"{signal}, {'averaged over the query views' if view is None else f'query view {view}'}, "
        "minus its class's threshold; a member iff >= 0"
    )
    return Attack(
        score, (signal, "y", "shadow_own"), knows="shadows", score_all=score_all, note=note
    )


def learned(value_MN, member_MN, own_MN, shadow_MM, y_N: np.ndarray, classes: int) -> np.ndarray:
    """Returns threshold_MC, the thresholds of an attacker with the shadows in row m of `shadow_MM`.

    Each is fitted on the shadows' rows `own_MN`.

    Raises:
        ValueError: Some attacker's shadows have no members or no non-members there.
    """
    pooled_M = thresholds.shadow_thresholds(value_MN, member_MN, own_MN, shadow_MM)
    if np.isnan(pooled_M).any():
        shadows = shadow_MM[int(np.argmax(np.isnan(pooled_M)))]
        inside, outside = (
            int((side_MN & own_MN)[shadows].sum()) for side_MN in (member_MN, ~member_MN)
        )
        raise ValueError(
            f"thresholds are learned on the shadows' own rows: {int(shadows.sum())} shadows have "
            f"{inside} evaluated members and {outside} "
            "non-members; at least 1 of each is needed."
        )
    pooled_M = np.where(np.isfinite(pooled_M), pooled_M, 0.0)
    per_class = [
        thresholds.shadow_thresholds(value_MN, member_MN, own_MN & (y_N == c), shadow_MM)
        for c in range(classes)
    ]
    return np.stack([np.where(np.isfinite(one_M), one_M, pooled_M) for one_M in per_class], 1)
