"""Chooses thresholds on the models that an attacker trained itself, never on the target."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mia_jax import checks
from mia_jax.metrics import roc

MANY = 1 << 18  # scored pairs from which scores are searched by bins: equal thresholds, sooner
BINS = 1 << 14


class Chosen(NamedTuple):
    """Holds the thresholds of `shadow_thresholds` and those of `shadow_thresholds_at`."""

    best_M: np.ndarray
    at_FM: np.ndarray


def chosen_on_shadows(
    score_MN, member_MN, evaluated_MN, shadow_MM, fprs: Sequence[float]
) -> Chosen:
    """Returns both kinds of thresholds; the scores of many pairs are sorted once for them.

    Args:
        score_MN, member_MN, evaluated_MN, shadow_MM: as in `shadow_thresholds`.
        fprs: the false-positive rates.
    """
    arrays = (np.asarray(score_MN), np.asarray(member_MN, bool), np.asarray(evaluated_MN, bool))
    shadow_MM = np.asarray(shadow_MM, bool)
    if np.size(score_MN) <= MANY:
        best_M = shadow_thresholds(*arrays, shadow_MM)
        return Chosen(best_M, shadow_thresholds_at(*arrays, shadow_MM, fprs))
    _check(*arrays, shadow_MM)
    sides = Sides.of(*arrays)
    return Chosen(_of_distinct(shadow_MM, sides.best), _at(sides, shadow_MM, fprs))


def _check(score_MN, member_MN, evaluated_MN, shadow_MM) -> int:
    """Returns M; raises ValueError if shapes differ."""
    M = checks.shape("MN", score=score_MN, member=member_MN, evaluated=evaluated_MN)["M"]
    if shadow_MM.shape != (M, M):
        raise ValueError(f"shadow_MM has shape {shadow_MM.shape}; expected ({M}, {M}).")
    return M


def _at(sides: Sides, shadow_MM: np.ndarray, fprs: Sequence[float]) -> np.ndarray:
    of_FM = _of_distinct(shadow_MM, lambda shadow_M: sides.below(shadow_M, fprs)).T
    return of_FM.reshape(len(fprs), len(shadow_MM))


def shadow_thresholds(score_MN, member_MN, evaluated_MN, shadow_MM) -> np.ndarray:
    """Returns for each model the threshold with the best balanced accuracy on its shadows.

    The scored pairs of all shadows of a model are pooled. The rule is score >= threshold.
    Candidates are midpoints of distinct scores and +-inf; among equally good ones the highest is
    chosen.

    Args:
        score_MN: the scores of each model as if it were the target; NaN where it was not scored.
        member_MN, evaluated_MN: the members and the scored rows of each model.
        shadow_MM: shadow_MM[t, m] says whether model m is a shadow of model t.

    Returns:
        float64 [M]; NaN where the shadows of a model have no scored members or no scored
            non-members.
    """
    score_MN, member_MN = np.asarray(score_MN), np.asarray(member_MN, bool)
    evaluated_MN, shadow_MM = np.asarray(evaluated_MN, bool), np.asarray(shadow_MM, bool)
    M = _check(score_MN, member_MN, evaluated_MN, shadow_MM)
    if score_MN.size > MANY:
        return _of_distinct(shadow_MM, Sides.of(score_MN, member_MN, evaluated_MN).best)
    score_MN = score_MN.astype(np.float64)
    at_M, at_N = np.nonzero(evaluated_MN & ~np.isnan(score_MN))
    order = np.argsort(-score_MN[at_M, at_N], kind="stable")
    at_M, at_N = at_M[order], at_N[order]
    score_K, member_K = score_MN[at_M, at_N], member_MN[at_M, at_N]
    inside_M, outside_M = (
        np.bincount(at_M[member_K], minlength=M),
        np.bincount(at_M[~member_K], minlength=M),
    )
    last_V = np.flatnonzero(np.append(score_K[1:] != score_K[:-1], True))
    known: dict[bytes, float] = {}  # models with equal shadows share a threshold
    for shadow_M in shadow_MM:
        if shadow_M.tobytes() not in known:
            inside, outside = int(inside_M @ shadow_M), int(outside_M @ shadow_M)
            known[shadow_M.tobytes()] = (
                _best(score_K, member_K, shadow_M[at_M], last_V, inside, outside)
                if inside and outside
                else np.nan
            )
    return np.array([known[shadow_M.tobytes()] for shadow_M in shadow_MM])


def _best(score_K, member_K, keep_K, last_V, inside: int, outside: int) -> float:
    """Returns `roc.best_threshold` of the kept ones among sorted pairs.

    It reads a cumulative sum of whole numbers where a group of tied scores ends.
    """
    # inside * outside * (TPR - FPR), exact
    gain_K = np.cumsum(np.where(member_K, outside, -inside) * keep_K)
    best = last_V[np.argmax(gain_K[last_V])]
    if gain_K[best] <= 0:
        return np.inf
    return roc.between(score_K[best + 1 + np.argmax(keep_K[best + 1 :])], score_K[best])


def shadow_thresholds_at(
    score_MN, member_MN, evaluated_MN, shadow_MM, fprs: Sequence[float]
) -> np.ndarray:
    """Returns for each FPR and model the lowest threshold with that FPR on shadows, float64 [F,M].

    It flags at most that share of the scored non-members of the model's shadows, whose pairs are
    pooled. The rule is score >= threshold, and thresholds are between two scores.

    Args:
        score_MN, member_MN, evaluated_MN, shadow_MM: as in `shadow_thresholds`.
        fprs: the false-positive rates.

    Returns:
        float64 [F,M]; NaN where no shadow of a model was scored, or where a single false positive
            is more than the FPR allows.
    """
    score_MN, member_MN = np.asarray(score_MN), np.asarray(member_MN, bool)
    evaluated_MN, shadow_MM = np.asarray(evaluated_MN, bool), np.asarray(shadow_MM, bool)
    M = _check(score_MN, member_MN, evaluated_MN, shadow_MM)
    if score_MN.size > MANY:
        return _at(Sides.of(score_MN, member_MN, evaluated_MN), shadow_MM, fprs)
    score_MN = score_MN.astype(np.float64)
    usable_MN = evaluated_MN & ~member_MN & ~np.isnan(score_MN)
    at_M, at_N = np.nonzero(usable_MN)
    order = np.argsort(-score_MN[at_M, at_N], kind="stable")
    at_M, score_K = at_M[order], score_MN[at_M[order], at_N[order]]
    last_V = np.flatnonzero(np.append(score_K[1:] != score_K[:-1], True))[: len(score_K)]
    known: dict[bytes, list[float]] = {}  # models with equal shadows share thresholds
    for shadow_M in shadow_MM:
        if shadow_M.tobytes() not in known:
            named_V = np.cumsum(shadow_M[at_M])[last_V] if len(score_K) else np.zeros(0, int)
            known[shadow_M.tobytes()] = [_below(score_K[last_V], named_V, fpr) for fpr in fprs]
    return np.array([known[shadow_M.tobytes()] for shadow_M in shadow_MM]).T.reshape(len(fprs), M)


def _below(score_V, named_V, fpr: float) -> float:
    """Returns the lowest threshold that flags at most the share `fpr` of the kept non-members.

    `named_V` counts those with a score of at least `score_V`, which is falling.
    """
    if not len(named_V) or not roc.resolvable(fpr, named_V[-1]):
        return np.nan
    # the number of distinct scores that may be flagged
    count = int(np.searchsorted(named_V, fpr * named_V[-1] * (1 + roc.TINY), side="right"))
    if count == len(named_V):
        return -np.inf
    if count == 0 or named_V[count - 1] == 0:
        return float(np.nextafter(score_V[count], np.inf))
    return roc.between(score_V[count], score_V[np.searchsorted(named_V, named_V[count - 1])])


def _of_distinct(shadow_MM: np.ndarray, of_shadows: Callable) -> np.ndarray:
    """Returns of_shadows(shadow_M) for every row; rows with equal shadows are computed once."""
    distinct_UM, row_M = np.unique(shadow_MM, axis=0, return_inverse=True)
    return np.array([of_shadows(shadow_M) for shadow_M in distinct_UM])[row_M.ravel()]


class Sides(NamedTuple):
    """Holds the sorted scores of every model, counted in bins, to pool those of any models.

    Attributes:
        inside, outside: the rising scores of the members and of the non-members of each model.
        edges: rising scores that part the bins.
        inside_ME, outside_ME: how many of them are at least as high as each edge.
    """

    inside: list[np.ndarray]
    outside: list[np.ndarray]
    edges: np.ndarray
    inside_ME: np.ndarray
    outside_ME: np.ndarray

    @classmethod
    def of(cls, score_MN, member_MN, evaluated_MN) -> Sides:
        """Sorts the scored pairs of every model, those that are evaluated and not NaN."""
        sides: list[list[np.ndarray]] = [[], []]
        for score_N, member_N, evaluated_N in zip(score_MN, member_MN, evaluated_MN, strict=True):
            scored_N = evaluated_N & ~np.isnan(score_N)
            sides[0].append(np.sort(score_N[scored_N & member_N]))
            sides[1].append(np.sort(score_N[scored_N & ~member_N]))
        some = np.sort(np.concatenate([s[:: max(1, len(s) // 4096)] for m in sides for s in m]))
        edges = np.unique(some[:: max(1, len(some) // BINS)])
        inside_ME, outside_ME = (
            np.array([len(s) - np.searchsorted(s, edges) for s in side]).reshape(len(side), -1)
            for side in sides
        )
        return cls(sides[0], sides[1], edges, inside_ME, outside_ME)

    def best(self, shadow_M: np.ndarray) -> float:
        """Returns the threshold with the best balanced accuracy on the pairs of some models."""
        shadows = np.flatnonzero(shadow_M)
        inside, outside = (
            sum(len(side[m]) for m in shadows) for side in (self.inside, self.outside)
        )
        if not inside or not outside:
            return np.nan
        flagged_E = shadow_M.astype(np.int64) @ self.inside_ME
        gain_E = outside * flagged_E - inside * (shadow_M.astype(np.int64) @ self.outside_ME)
        # within a bin, which starts at its lower edge, gains are at most those of its upper edge
        # plus what its members add; above the last edge there is one more bin
        upper_E, more_E = np.append(gain_E[1:], 0), flagged_E - np.append(flagged_E[1:], 0)
        known = max(int(gain_E.max(initial=0)), 0)
        possible_E = upper_E + outside * more_E >= known
        best, threshold = 0, np.inf
        for low, high in reversed(_runs(possible_E)):
            before = int(gain_E[high]) if high < len(self.edges) else 0
            gain, score = self._best_within(shadows, (low, high), before, inside, outside)
            if gain > best:
                best, threshold = gain, score
        # scores below the first edge
        if int(gain_E[0]) + outside * (inside - int(flagged_E[0])) > best:
            gain, score = self._best_within(shadows, (-1, 0), int(gain_E[0]), inside, outside)
            if gain > best:
                best, threshold = gain, score
        if best <= 0:
            return np.inf
        return roc.between(self._next_lower(shadows, threshold), threshold)

    def _best_within(self, shadows, ends, before: int, inside: int, outside: int):
        """Returns (gain, score) of the best vertex between two edges; the highest one."""
        values = [self._within(member, shadows, *ends) for member in (True, False)]
        value_K = np.concatenate(values)
        if not len(value_K):
            return -1, np.inf
        step_K = np.repeat([outside, -inside], [len(v) for v in values])
        order_K = np.argsort(-value_K, kind="stable")
        value_K, gain_K = value_K[order_K], before + np.cumsum(step_K[order_K])
        last_V = np.flatnonzero(np.append(value_K[1:] != value_K[:-1], True))
        best = last_V[np.argmax(gain_K[last_V])]
        return int(gain_K[best]), float(value_K[best])

    def _within(self, member: bool, shadows: np.ndarray, low: int, high: int) -> np.ndarray:
        """Returns the scores of some models from edge `low` on and below edge `high`.

        Edge -1 is minus infinity, and the one after the last is no limit.
        """
        side, count_ME = (
            (self.inside, self.inside_ME) if member else (self.outside, self.outside_ME)
        )
        size_S = np.array([len(side[m]) for m in shadows])
        first_S = size_S - count_ME[shadows, low] if low >= 0 else 0 * size_S
        last_S = size_S - count_ME[shadows, high] if high < len(self.edges) else size_S
        ends = zip(shadows.tolist(), first_S.tolist(), last_S.tolist(), strict=True)
        return np.concatenate([side[m][first:last] for m, first, last in ends])

    def _next_lower(self, shadows, score: float) -> float:
        """Returns the highest score of some models below `score`."""
        lower = [-np.inf]
        for side in (self.inside, self.outside):
            for m in shadows:
                place = np.searchsorted(side[m], score)
                lower += [float(side[m][place - 1])] if place else []
        return max(lower)

    def below(self, shadow_M: np.ndarray, fprs: Sequence[float]) -> list[float]:
        """Returns the lowest thresholds that flag at most a share of the non-members."""
        shadows = np.flatnonzero(shadow_M)
        outside = sum(len(self.outside[m]) for m in shadows)
        flagged_E = shadow_M.astype(np.int64) @ self.outside_ME
        thresholds = []
        for fpr in fprs:
            if not outside or not roc.resolvable(fpr, outside):
                thresholds.append(np.nan)
                continue
            most = math.floor(fpr * outside * (1 + roc.TINY))
            if most >= outside:
                thresholds.append(-np.inf)
                continue
            # the lowest edge that too few reach, and the bin below it
            high = int(np.searchsorted(-flagged_E, -most, side="left"))
            above = int(flagged_E[high]) if high < len(self.edges) else 0
            falling_K = np.sort(self._within(False, shadows, high - 1, high))[::-1]
            left_out = float(falling_K[most - above])
            higher = [
                float(self.outside[m][place])
                for m in shadows
                if (place := np.searchsorted(self.outside[m], left_out, side="right"))
                < len(self.outside[m])
            ]
            thresholds.append(
                roc.between(left_out, min(higher))
                if higher
                else float(np.nextafter(left_out, np.inf))
            )
        return thresholds


def _runs(chosen_E: np.ndarray) -> list[tuple[int, int]]:
    """Returns the runs of consecutive chosen places as (first, one after the last).

    >>> _runs(np.array([True, False, True, True]))
    [(0, 1), (2, 4)]
    """
    edge = np.flatnonzero(np.diff(np.concatenate([[0], chosen_E.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edge[::2], edge[1::2], strict=True)]
