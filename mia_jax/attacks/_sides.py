"""IN and OUT shadows of every example: the loop that LiRA, offset and similar attacks share.

It scores one target at a time, or all targets at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mia_jax.attacks import _signals
from mia_jax.fitting import moments
from mia_jax.fitting.moments import Moments
from mia_jax.metrics.record_groups import EXACT
from mia_jax.types import Attack, Design

OUT, IN = "out", "in"
TOTAL, COUNT, M2, DOF = range(4)  # columns of `pool`
ROUNDING = 1e-12  # relative error of a float64 sum over many examples


def attack(
    *,
    signal: str,
    sign: int | None,
    kinds: Sequence[str],
    center: str,
    steps: Sequence[Callable],
    finish: Callable,
    note: str,
    enough: float = np.inf,
    **more,
) -> Attack:
    """Makes an attack from the moments of the shadows' signals on the same example.

    The score is the mean over the query views.

    Args:
        signal: the scalar signal that is compared.
        sign: +1, -1, or None: as the signal declares.
        kinds: the sides that are read, ('out', 'in'), ('out',) or ('in',), in that order.
        center: 'mean' or 'median' of a side's shadows.
        steps: functions step(own_N, sides, fitted) that return an array that adds up over examples;
            `fitted` holds the sums of the steps before.
        finish: finish(own_N, sides, fitted) -> score_N.
        note: the attack's note.
        enough: where every example has this many shadows on every side, the steps are left out and
            `fitted` is empty.
        more: further fields of the Attack.
    """
    sign = _signals.sign_of(signal, sign)
    needs = (signal, *(f"shadow_{kind}" for kind in (IN, OUT) if kind in kinds))
    common = dict(
        signal=signal,
        sign=sign,
        kinds=tuple(kinds),
        steps=tuple(steps),
        finish=finish,
        enough=enough,
    )

    def score(evidence, key):
        del key
        return score_evidence(evidence, center=center, **common)

    def score_all(fleet, key):
        design = fleet.design
        uncentered = fleet.signal[signal].dtype != np.float64  # see `origin`
        together = center == "mean" and every_other_unit(design) and uncentered
        if together or design.member_MN.shape[1] > EXACT:
            return score_fleet(fleet, center=center, **common)
        return np.stack([score(fleet.evidence_against(t, needs), key) for t in design.targets])

    return Attack(score, needs, knows="shadows", score_all=score_all, note=note, **more)


def every_other_unit(design) -> bool:
    """Checks that each target's attacker sees exactly the `shadows_M` outside the target's unit.

    That must hold on every evaluated row.
    """
    targets, usable_M = list(design.targets), shadows_M(design)
    shadow_MM, outside_MM = (
        design.shadow_MM[targets],
        design.unit_M[targets, None] != design.unit_M[None],
    )
    without_units = np.array_equal(shadow_MM, outside_MM)
    without_failed = bool(usable_M[targets].any()) and np.array_equal(
        shadow_MM, outside_MM & usable_M
    )
    return not design.balance and (without_units or without_failed)


def shadows_M(design) -> np.ndarray:
    """Returns which models are a shadow of some target.

    These are all but those that failed, and their twins (designs/_failed.py).
    """
    return design.shadow_MM[list(design.targets)].any(0)


def score_evidence(
    evidence,
    *,
    signal: str,
    sign: int,
    kinds: Sequence[str],
    center: str,
    steps,
    finish,
    enough: float,
) -> np.ndarray:
    """Returns score_N of one target.

    Raises:
        ValueError: No shadow is IN (OUT) on any evaluated row.
    """
    # A slice copies nothing.
    every_row = evidence.evaluated_N.all()
    cols = slice(None) if every_row else np.flatnonzero(evidence.evaluated_N)
    own_AN = sign * _signals.scalar(evidence.target[signal], "AN", signal)[:, cols].astype(
        np.float64
    )
    masks = masks_of(evidence, cols, kinds)
    if min(where_MN.sum(0).min() for where_MN in masks) >= enough:
        steps = ()
    total_N = np.zeros(own_AN.shape[1])
    for a, own_N in enumerate(own_AN):
        value_MN = evidence.shadow[signal][:, a, cols]
        value_MN = value_MN if sign == 1 else sign * value_MN
        middle = origin(own_N, value_MN.dtype)
        own_N, value_MN = (own_N - middle, value_MN - middle) if middle else (own_N, value_MN)
        sides = [moments.moments(value_MN, where_MN, center) for where_MN in masks]
        fitted: list[np.ndarray] = []
        for step in steps:
            fitted.append(step(own_N, sides, fitted))
        total_N += finish(own_N, sides, fitted)
    return spread_out(total_N / len(own_AN), evidence.evaluated_N)


def origin(own_N: np.ndarray, dtype: np.dtype) -> float:
    """Returns the median of external float64 signals, 0 for others.

    sds are bounded below by the float32 resolution of a signal's size, which must be the size of
    its differences and not that of an offset. It is the target's own median, so each target has its
    own moments.
    """
    return float(np.median(own_N)) if dtype == np.float64 and own_N.size else 0.0


def masks_of(evidence, cols: np.ndarray | slice, kinds: Sequence[str]) -> list[np.ndarray]:
    """Returns where_MN of every side on the columns `cols`.

    Raises:
        ValueError: A side has no shadow on any of the columns.
    """
    member_MN, visible_MN = evidence.shadow_member_MN[:, cols], evidence.visible_MN[:, cols]
    masks = [visible_MN & (member_MN if kind == IN else ~member_MN) for kind in kinds]
    for kind, where_MN in zip(kinds, masks, strict=True):
        refuse_empty(kind, where_MN.any(), len(member_MN))
    return masks


def refuse_empty(kind: str, exists: bool, shadows: int) -> None:
    """Raises ValueError unless a shadow of this side exists."""
    if not exists:
        raise ValueError(
            f"no usable shadow is {kind.upper()} on any evaluated row (0 of {shadows} shadows; at "
            "least 1 is needed): "
            "train more models or use another attack."
        )


def spread_out(value_K: np.ndarray, chosen_N: np.ndarray) -> np.ndarray:
    """Returns Returns [N] with the values on the chosen rows and NaN elsewhere."""
    score_N = np.full(len(chosen_N), np.nan)
    score_N[chosen_N] = value_K
    return score_N


class Together(NamedTuple):
    """Holds how the moments of the shadows of all targets are computed at once.

    Attributes:
        of: of(value_MN, where_MN) returns the moments [U,N] of U sets of models.
        row_T: the set of each target.
    """

    of: Callable[[np.ndarray, np.ndarray], Moments]
    row_T: np.ndarray


def together(design: Design, center: str) -> Together:
    """Returns how the moments of all targets' shadows are computed at once.

    Where each target's shadows are all models outside its unit, sums before and after a unit are
    shared (`moments.leave_unit_out_moments`). Otherwise targets with equal shadows share moments.
    """
    targets = list(design.targets)
    if center == "mean" and every_other_unit(design):
        usable_M1 = shadows_M(design)[:, None]
        row_T = np.searchsorted(np.unique(design.unit_M), design.unit_M[targets])

        def outside_units(value_MN, where_MN) -> Moments:
            return moments.leave_unit_out_moments(value_MN, where_MN & usable_M1, design.unit_M)

        return Together(outside_units, row_T)
    sets_UM, row_T = np.unique(design.shadow_MM[targets], axis=0, return_inverse=True)

    def of_sets(value_MN, where_MN) -> Moments:
        parts = [moments.moments(value_MN[m], where_MN[m], center) for m in sets_UM]
        return Moments(*(np.stack(field) for field in zip(*parts, strict=True)))

    return Together(of_sets, row_T.ravel())


def score_fleet(
    fleet,
    *,
    signal: str,
    sign: int,
    kinds: Sequence[str],
    center: str,
    steps,
    finish,
    enough: float,
) -> np.ndarray:
    """Returns score_TN of all targets, equal to `score_evidence` but for the order of sums.

    It computes the moments of all targets together, in blocks of examples, once for each step and
    once for the scores. The origin of external signals (`origin`) is subtracted from the moments.
    """
    d = fleet.design
    value_MAN = _signals.scalar(fleet.signal[signal], "MAN", signal)
    if min(fewest(kind, d) for kind in kinds) >= enough:
        steps = ()
    shared = together(d, center)
    total_TN = np.zeros((len(d.targets), value_MAN.shape[2]))
    for a in range(value_MAN.shape[1]):
        fitted_T: list[list[np.ndarray]] = [[] for _ in d.targets]
        origin_T = [0.0] * len(d.targets)
        if value_MAN.dtype == np.float64:
            own_TN = ((sign * value_MAN[t, a], d.evaluated_MN[t]) for t in d.targets)
            origin_T = [origin(own_N[rows_N], own_N.dtype) for own_N, rows_N in own_TN]
        for step in (*steps, None):
            sums_T = [0.0] * len(d.targets)
            exists_TK = np.zeros((len(d.targets), len(kinds)), bool)
            for cols in moments.blocks(value_MAN.shape[2]):
                block_MN = sign * value_MAN[:, a, cols].astype(np.float64)
                sides_UN = [
                    shared.of(block_MN, side_of(d.member_MN[:, cols], kind)) for kind in kinds
                ]
                for i, t in enumerate(d.targets):
                    rows_N = d.evaluated_MN[t, cols]  # a slice copies nothing
                    keep = slice(None) if rows_N.all() else np.flatnonzero(rows_N)
                    sides = [
                        Moments(*(field[shared.row_T[i], keep] for field in side))
                        for side in sides_UN
                    ]
                    own_N = block_MN[t, keep]
                    if origin_T[i]:
                        own_N, sides = own_N - origin_T[i], [shifted(s, origin_T[i]) for s in sides]
                    exists_TK[i] |= [side.count.any() for side in sides]
                    if step is None:
                        total_TN[i, cols][keep] += finish(own_N, sides, fitted_T[i])
                    else:
                        sums_T[i] = sums_T[i] + step(own_N, sides, fitted_T[i])
            for i, t in enumerate(d.targets):
                for kind, exists in zip(kinds, exists_TK[i], strict=True):
                    refuse_empty(kind, exists, int(d.shadow_MM[t].sum()))
                fitted_T[i].append(sums_T[i])
    total_TN /= value_MAN.shape[1]
    total_TN[~d.of_targets().evaluated_TN] = np.nan
    return total_TN


def side_of(member_MN: np.ndarray, kind: str) -> np.ndarray:
    """Returns which models are on a side of each example."""
    return member_MN if kind == IN else ~member_MN


def shifted(side: Moments, origin: float) -> Moments:
    """Returns the moments of the values minus `origin`."""
    return side._replace(center=np.where(side.count > 0, side.center - origin, 0.0))


def fewest(kind: str, design: Design) -> int:
    """Returns the fewest shadows on a side that an evaluated example of a target has."""
    where_MN, counts = side_of(design.member_MN, kind), []
    total_N = where_MN[shadows_M(design)].sum(0)
    usable_M, everywhere = shadows_M(design), every_other_unit(design)
    for t in design.targets:
        if everywhere:
            count_N = total_N - where_MN[(design.unit_M == design.unit_M[t]) & usable_M].sum(0)
        else:
            count_N = where_MN[design.shadow_MM[t]].sum(0)
        counts.append(int(count_N[design.evaluated_MN[t]].min()))
    return min(counts)


def pool(own_N: np.ndarray, sides: Sequence[Moments], fitted: Sequence[np.ndarray]) -> np.ndarray:
    """Returns a step: returns per side (TOTAL, COUNT, M2, DOF), summed over examples.

    These are the sums of the values, their number, the squared residuals and the degrees of
    freedom.
    """
    del own_N, fitted
    return np.array(
        [
            (
                np.sum(s.count * s.center),
                np.sum(s.count),
                np.sum(s.m2),
                np.sum(np.maximum(s.count - 1, 0)),
            )
            for s in sides
        ],
        np.float64,
    )


def centers(sides: Sequence[Moments], pools: np.ndarray | None) -> list[np.ndarray]:
    """Returns the sides' centers.

    An example without shadows on a side takes the other side's center plus the mean difference
    between the sides; with a single side, the mean over all examples. `pools` is what `pool`
    summed; None if every example has shadows on every side.
    """
    if pools is None:
        return [side.center for side in sides]
    mean = [_mean(row, side) for row, side in zip(pools, sides, strict=True)]
    if len(sides) == 1:
        return [np.where(sides[0].count > 0, sides[0].center, mean[0])]
    return [
        np.where(
            side.count > 0,
            side.center,
            np.where(other.count > 0, other.center + (mean[i] - mean[1 - i]), mean[i]),
        )
        for i, (side, other) in enumerate(zip(sides, sides[::-1], strict=True))
    ]


def _mean(pooled: np.ndarray, side: Moments) -> float:
    """Returns a side's mean over all examples.

    Where all centers are equal it is that center, not the sum's rounding of it in the last bit:
    that would separate the examples without shadows on this side from all others.
    """
    mean, known = pooled[TOTAL] / pooled[COUNT], side.center[side.count > 0]
    if (
        len(known)
        and np.all(known == known[0])
        and abs(mean - known[0]) <= ROUNDING * abs(known[0])
    ):
        return float(known[0])
    return mean
