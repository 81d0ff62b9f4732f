"""ROC curves and the numbers that are read off them: AUC, TPR at an FPR, thresholds, precision.

Higher scores mean more likely a member. A row is flagged as a member if its score is at least the
threshold, so rows with tied scores are flagged together and share one vertex of the curve.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from mia_jax import checks

CONVENTIONS = ("step", "strict", "linear", "hull")
# relative slack of 'FPR <= fpr', so that 29 false positives of 100 count as an FPR of 0.29
TINY = 1e-9
FIRST, RATIO = 1000, 1 / 2000  # of the vertices that `of_sides` keeps
CHUNK = 1 << 20


class Roc(NamedTuple):
    """Holds the V vertices of a ROC curve from (0, 0) to (1, 1).

    Attributes:
        fpr_V, tpr_V: the rates of each vertex, in [0, 1].
        threshold_V: the score from which rows are flagged, falling from +inf.
        false_V, true_V: the (weighted) number of non-members and of members that are flagged.
        n_member, n_nonmember: the (weighted) size of the two sides.
        area: the AUC where vertices are left out (`of_sides`); None: that of the vertices.
        tied: the sum of t^3 - t over groups of t tied rows, likewise.
    """

    fpr_V: np.ndarray
    tpr_V: np.ndarray
    threshold_V: np.ndarray
    false_V: np.ndarray
    true_V: np.ndarray
    n_member: float
    n_nonmember: float
    area: float | None = None
    tied: float | None = None


class Operating(NamedTuple):
    """Holds one point of a ROC curve.

    Attributes:
        tpr, fpr: the rates that are realized, in [0, 1].
        true_positives, false_positives: the (weighted) counts behind the rates.
        threshold: the score from which a row is flagged as a member.
    """

    tpr: float
    fpr: float
    true_positives: float
    false_positives: float
    threshold: float


class Rates(NamedTuple):
    """Holds the rates of the rule 'score >= threshold', in [0, 1], with the counts behind them.

    `precision` is 0 if no row is flagged.
    """

    tpr: float
    fpr: float
    balanced_accuracy: float
    precision: float
    true_positives: int
    false_positives: int
    n_member: int
    n_nonmember: int


def two_sides(score_N, member_N) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores [N] in float64 and membership [N] as booleans.

    Infinite scores are ordered values.

    Raises:
        ValueError: a score is NaN, or there are no members or no non-members.
    """
    score_N, member_N = np.asarray(score_N, np.float64), np.asarray(member_N)
    checks.shape("N", score=score_N, member=member_N)
    checks.finite(score=np.nan_to_num(score_N, nan=np.nan, posinf=0.0, neginf=0.0), member=member_N)
    member_N = member_N.astype(bool)
    if not 0 < member_N.sum() < len(member_N):
        raise ValueError(
            f"a ROC needs members and non-members; there are {int(member_N.sum())} members among "
            f"{len(member_N)} rows."
        )
    return score_N, member_N


def roc(score_N, member_N, weight_N=None) -> Roc:
    """Computes the ROC curve of scores [N] against membership [N].

    Vertex v flags the rows with score >= threshold_V[v]; rows with tied scores share a vertex.

    Args:
        score_N: higher means more likely a member.
        member_N: whether each row is a member.
        weight_N: how many times each row counts, >= 0; None: once.

    Raises:
        ValueError: a score is NaN, or a side has no rows or no weight.
    """
    score_N, member_N = two_sides(score_N, member_N)
    if weight_N is None:  # a tie is one vertex, and counts do not depend on their order
        order_N, weight_N = np.argsort(-score_N), 1
    else:
        weight_N = np.asarray(weight_N, np.float64)
        checks.shape("N", score=score_N, weight=weight_N)
        checks.finite(weight=weight_N)
        checks.at_least(0, smallest_weight=weight_N.min())
        order_N = np.argsort(-score_N, kind="stable")
        weight_N = weight_N[order_N]
    sorted_N, inside_N = score_N[order_N], member_N[order_N]
    last_V = np.flatnonzero(np.append(sorted_N[1:] != sorted_N[:-1], True))
    true_V = np.append(0.0, np.cumsum(weight_N * inside_N)[last_V])
    false_V = np.append(0.0, np.cumsum(weight_N * ~inside_N)[last_V])
    checks.positive(weight_of_members=true_V[-1], weight_of_nonmembers=false_V[-1])
    return Roc(
        fpr_V=false_V / false_V[-1],
        tpr_V=true_V / true_V[-1],
        threshold_V=np.append(np.inf, sorted_N[last_V]),
        false_V=false_V,
        true_V=true_V,
        n_member=float(true_V[-1]),
        n_nonmember=float(false_V[-1]),
    )


class Reach(NamedTuple):
    """Holds how the non-members of one ROC, by rising score, are placed among its members.

    Attributes:
        above_J: how many members score higher.
        upto_J: how many members score at least as high.
        tied: the sum of t^3 - t over groups of t equal scores of both sides.
    """

    above_J: np.ndarray
    upto_J: np.ndarray
    tied: float


class Thin(NamedTuple):
    """Says which vertices `of_sides` keeps besides those that are read.

    Attributes:
        first: all about this many first false positives.
        ratio: then one per this share of them.
    """

    first: int = FIRST
    ratio: float = RATIO


WHOLE = Thin()
FEWER = Thin(ratio=1 / 500)  # of single targets, of which there are many
READ = Thin(first=0)  # only those that are read


def of_sides(
    inside_I: np.ndarray,
    outside_J: np.ndarray,
    fprs: Sequence[float] = (),
    *,
    reach: Reach | None = None,
    thin: Thin = WHOLE,
) -> Roc:
    """Computes the ROC curve of many rows, of which it keeps a few thousand vertices.

    The vertices are some of those of `roc`: all about the first `FIRST` false positives, then one
    per `RATIO` of them, the ones that are read at `fprs`, and those with the best balanced
    accuracy, the best accuracy and the largest |TPR - FPR|. Area and ties are those of all rows.
    Lines and the hull between vertices are within 1e-4 of those of all vertices.

    Args:
        inside_I, outside_J: the rising scores of the members and of the non-members.
        fprs: false-positive rates at which the curve is read.
        reach: how the sides are placed; None computes it.
        thin: which vertices are kept.
    """
    n, m = len(inside_I), len(outside_J)
    twice, tied = 0, False
    gains = {"balanced": (m, n), "accuracy": (1, 1), "worst": (-m, -n)}
    best: dict[str, tuple[float, float]] = {}
    for start in range(0, m, CHUNK):
        part_K = outside_J[start : start + CHUNK]
        if reach is None:
            above_K = n - np.searchsorted(inside_I, part_K, side="right")
            upto_K = n - np.searchsorted(inside_I, part_K, side="left")
        else:
            above_K, upto_K = (a[start : start + CHUNK] for a in (reach.above_J, reach.upto_J))
        twice += int(above_K.sum() + upto_K.sum())
        tied = tied or bool((above_K != upto_K).any())
        false_K = m - np.arange(start, start + len(part_K))  # as high as this one, or higher
        for name, (plus, minus) in gains.items():
            # the curve is best just before a non-member, and worst just after it
            gain_K = plus * (upto_K if plus < 0 else above_K) - minus * (false_K - (plus > 0))
            at = len(gain_K) - 1 - int(np.argmax(gain_K[::-1]))
            if name not in best or gain_K[at] >= best[name][0]:
                best[name] = (int(gain_K[at]), float(part_K[at]))
    more = [value for _, value in best.values()]
    value_C = _cut_values(inside_I, outside_J, fprs, more, thin)
    true_V, false_V, threshold_V = _vertices_at(inside_I, outside_J, value_C)
    return Roc(
        fpr_V=false_V / m,
        tpr_V=true_V / n,
        threshold_V=threshold_V,
        false_V=false_V,
        true_V=true_V,
        n_member=float(n),
        n_nonmember=float(m),
        area=twice / 2 / n / m,
        tied=_tied(inside_I, outside_J, tied) if reach is None else reach.tied,
    )


def _cut_values(
    inside_I, outside_J, fprs: Sequence[float], more: Sequence[float], thin: Thin
) -> np.ndarray:
    """Returns the scores [C] of non-members and members about which vertices are kept."""
    values = [np.asarray(more, np.float64)]
    for side_K in (inside_I, outside_J):
        size = len(side_K)
        if not thin.first:
            values.append(side_K[[0, -1]])
            continue
        first = min(thin.first, size)
        steps = int(math.log(max(size / thin.first, 1)) / thin.ratio) + 1
        ranks = [np.arange(1, first + 1), np.geomspace(first, size, steps)]
        ranks.append(np.linspace(1, size, min(int(1 / thin.ratio), size)))
        values.append(side_K[size - np.concatenate(ranks).astype(np.int64)])
    m = len(outside_J)
    for fpr in fprs:
        allowed = int(fpr * m * (1 + TINY))
        near = [allowed, math.floor(fpr * (m + 1)), allowed // 2, allowed // 2 + max(allowed, 3)]
        rank_K = np.unique([rank + d for rank in near for d in range(-3, 4)])
        rank_K = np.append(rank_K, np.arange(allowed // 2, min(near[-1], allowed // 2 + 8)))
        values.append(outside_J[m - np.clip(rank_K, 1, m)])
    return np.unique(np.concatenate(values))[::-1]


def _vertices_at(inside_I, outside_J, value_C) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (true, false, threshold) of the vertices at falling scores and just before them."""
    sides = (inside_I, outside_J)
    vertices = [(np.zeros(1), np.zeros(1), np.full(1, np.inf))]
    higher_C = np.full(len(value_C), np.inf)
    for side_K in sides:
        next_C = np.searchsorted(side_K, value_C, side="right")
        there_C = next_C < len(side_K)
        higher_C[there_C] = np.minimum(higher_C[there_C], side_K[next_C[there_C]])
    for threshold_C in (higher_C[np.isfinite(higher_C)], value_C):
        true_C, false_C = (
            (len(side) - np.searchsorted(side, threshold_C, side="left")).astype(np.float64)
            for side in sides
        )
        vertices.append((true_C, false_C, threshold_C))
    true_V, false_V, threshold_V = (np.concatenate(part) for part in zip(*vertices, strict=True))
    _, first_V = np.unique(true_V + false_V, return_index=True)
    return true_V[first_V], false_V[first_V], threshold_V[first_V]


def _tied(inside_I, outside_J, across: bool) -> float:
    """Returns the sum of t^3 - t over groups of t equal scores of both sides."""
    sides = (inside_I, outside_J)
    repeated = [side[1:][side[1:] == side[:-1]] for side in sides]
    if across:
        place_J = np.searchsorted(inside_I, outside_J)
        inside_J = inside_I[np.minimum(place_J, len(inside_I) - 1)]
        repeated.append(outside_J[inside_J == outside_J])
    value_K = np.unique(np.concatenate(repeated))
    size_K = sum(
        (np.searchsorted(s, value_K, "right") - np.searchsorted(s, value_K, "left")).astype(float)
        for s in sides
    )
    return float(np.sum(size_K**3 - size_K)) if len(value_K) else 0.0


def auc(curve: Roc) -> float:
    """Returns the area under the ROC curve (by trapezoids), in [0, 1].

    It is P(score of a member > score of a non-member) + P(equal)/2 over all pairs of the two.

    >>> auc(roc([3.0, 2.0, 2.0, 1.0], [True, True, False, False]))
    0.875
    """
    if curve.area is not None:
        return curve.area
    twice = np.sum(np.diff(curve.false_V) * (curve.true_V[1:] + curve.true_V[:-1]))
    return float(twice / (2 * curve.n_member * curve.n_nonmember))


def resolvable(fpr: float, n_nonmember: float) -> bool:
    """Checks that one false positive among `n_nonmember` non-members is at most `fpr`."""
    return fpr * n_nonmember * (1 + TINY) >= 1


def tpr_at_fpr(curve: Roc, fpr: float, convention: str = "step") -> Operating | None:
    """Returns the point at a false-positive rate of at most `fpr`, in [0, 1].

    Args:
        curve: the ROC curve.
        fpr: the largest false-positive rate that is allowed.
        convention: one of CONVENTIONS. 'step' (default): the vertex with the largest TPR among
            those with FPR <= fpr. 'strict': among those with FPR < fpr (the code of LiRA).
            'linear': on the line between neighboring vertices. 'hull': on the upper convex hull,
            which an attacker attains who randomizes between two thresholds. For the last two,
            counts are fractions and `threshold` is that of the vertex before.

    Returns:
        None where fpr < 1/n_nonmember: then even one false positive is too many.
    """
    checks.one_of(CONVENTIONS, convention=convention)
    checks.fraction(fpr=fpr)
    return operating_point(curve, fpr, convention) if resolvable(fpr, curve.n_nonmember) else None


def operating_point(curve: Roc, fpr: float, convention: str = "step") -> Operating:
    """Returns what `tpr_at_fpr` returns where `fpr` is known to be resolvable."""
    if convention in ("linear", "hull"):
        return _interpolated(hull(curve) if convention == "hull" else curve, fpr)
    n = curve.n_nonmember
    if convention == "step":
        after = np.searchsorted(curve.false_V, fpr * (1 + TINY) * n, side="right")
    else:
        after = np.searchsorted(curve.false_V, fpr * (1 - TINY) * n, side="left")
    return _vertex(curve, int(after) - 1)


def tpr_between(curve: Roc, fpr: float) -> float:
    """Estimates the TPR at a true (expected) false-positive rate of `fpr`.

    The members above the j-th highest of n non-members have an expected FPR of j/(n + 1). The step
    rule allows fpr n false positives and so extends to the next non-member, whose expected FPR is
    1/(n + 1) higher. Between whole numbers of allowed false positives the TPR is interpolated.
    Where less than one is allowed, it is the TPR of the members above all non-members.
    """
    allowed = max(fpr * (curve.n_nonmember + 1) - 1, 0.0)
    few = math.floor(allowed)
    low, high = (
        float(curve.tpr_V[np.searchsorted(curve.false_V, k, side="right") - 1])
        for k in (few, few + 1)
    )
    return low + (allowed - few) * (high - low)


def between_true(mean: float, fpr: float, n_nonmember: float, bend: float) -> float:
    """Corrects a mean of `tpr_between` over targets for the curvature of the ROC.

    The j-th highest of n non-members has a random FPR, whose mean is j/(n + 1). On a ROC that bends
    like FPR^b the mean TPR there is (1/(n + 1))^b Gamma(j + b)/Gamma(j), less than that at the mean
    FPR: by 11% for j = 1 and b = 1/2, and by 1% for j = 12.

    Args:
        mean: the mean over targets of `tpr_between`.
        fpr: the false-positive rate at which it was read.
        n_nonmember: the number of non-members of a target.
        bend: b near `fpr` (`bend_at`).
    """
    if not mean > 0:
        return mean
    place = max(fpr * (n_nonmember + 1), 1.0)
    j = math.floor(place)
    at = [math.exp(math.lgamma(i + bend) - math.lgamma(i)) for i in (j, j + 1)]
    return min(mean * place**bend / (at[0] + (place - j) * (at[1] - at[0])), 1.0)


def bend_at(curves: Sequence[Roc], fpr: float) -> float:
    """Returns the exponent b of the mean ROC near `fpr`, where the TPR rises like FPR^b.

    With T_j as the TPR of the members above the j-th highest non-member, the mean of T_(j+1) - T_j
    is b times that of T_j / j, at whichever FPRs the non-members lie. Both are added up from about
    half to one and a half times as many non-members as `fpr` allows, over three steps at least. A
    concave ROC has b <= 1; b is limited to 1.5 and not to 1, since then chance could only lower it,
    and the TPR of random guessing would come out too high on average.
    """
    rise = level = 0.0
    for curve in curves:
        allowed = max(int(fpr * curve.n_nonmember * (1 + TINY)), 1)
        few = allowed // 2
        many = min(few + max(allowed, 3), math.ceil(curve.n_nonmember))
        k = np.arange(few, many + 1)
        tpr_K = curve.tpr_V[np.searchsorted(curve.false_V, k, side="right") - 1]
        rise += float(tpr_K[-1] - tpr_K[0])
        level += float(np.sum(tpr_K[:-1] / k[1:]))
    return min(rise / level, 1.5) if level > 0 else 1.0


def slope_at(curve: Roc, allowed: int) -> float:
    """Returns the slope of a ROC near `allowed` false positives.

    It is the rise of the TPR between half and one and a half times as many false positives.
    """
    few, many = allowed // 2, min(allowed // 2 + max(allowed, 1), int(curve.n_nonmember))
    low, high = (
        curve.tpr_V[np.searchsorted(curve.false_V, k, side="right") - 1] for k in (few, many)
    )
    return float((high - low) / (many - few) * curve.n_nonmember)


def tpr_at_zero(curve: Roc) -> Operating:
    """Returns the last vertex with FPR 0: the members that score above every non-member.

    The true FPR at this point is only known to be below about 3/n.
    """
    return _vertex(curve, int(np.searchsorted(curve.false_V, 0.0, side="right")) - 1)


def _vertex(curve: Roc, v: int) -> Operating:
    return Operating(
        *(
            float(a[v])
            for a in (curve.tpr_V, curve.fpr_V, curve.true_V, curve.false_V, curve.threshold_V)
        )
    )


def _interpolated(curve: Roc, fpr: float) -> Operating:
    false = min(fpr * curve.n_nonmember, curve.n_nonmember)
    v = int(np.searchsorted(curve.false_V, false * (1 + TINY), side="right")) - 1
    if v == len(curve.false_V) - 1:
        return _vertex(curve, v)
    share = max(0.0, false - curve.false_V[v]) / (curve.false_V[v + 1] - curve.false_V[v])
    true = float(curve.true_V[v] + share * (curve.true_V[v + 1] - curve.true_V[v]))
    return Operating(
        true / curve.n_member, false / curve.n_nonmember, true, false, float(curve.threshold_V[v])
    )


def hull(curve: Roc) -> Roc:
    """Returns the vertices on the upper convex hull of a ROC (in linear time).

    It pools adjacent violators over the share of members in each step. Source: Fawcett and
    Niculescu-Mizil, Machine Learning 68 (2007): the hull and isotonic regression are the same.
    """
    true, both = np.diff(curve.true_V), np.diff(curve.true_V + curve.false_V)
    step = np.flatnonzero(both > 0)
    blocks = optimize.isotonic_regression(
        true[step] / both[step], weights=both[step], increasing=False
    ).blocks
    vertex = np.append(0, step + 1)[blocks]
    return Roc(
        fpr_V=curve.fpr_V[vertex],
        tpr_V=curve.tpr_V[vertex],
        threshold_V=curve.threshold_V[vertex],
        false_V=curve.false_V[vertex],
        true_V=curve.true_V[vertex],
        n_member=curve.n_member,
        n_nonmember=curve.n_nonmember,
    )


def partial_auc(curve: Roc, fpr: float) -> float:
    """Returns the mean TPR over false-positive rates in [0, fpr], in [0, 1].

    Vertices are joined by lines; random guessing gives fpr/2.

    Raises:
        ValueError: unless 0 < fpr <= 1.
    """
    checks.fraction(fpr=fpr)
    checks.positive(fpr=fpr)
    last = int(np.searchsorted(curve.fpr_V, fpr, side="right"))
    x, y = curve.fpr_V[:last], curve.tpr_V[:last]
    if last < len(curve.fpr_V):
        x, y = np.append(x, fpr), np.append(y, _interpolated(curve, fpr).tpr)
    return float(np.trapezoid(y, x) / fpr)


def mann_whitney(curve: Roc) -> float:
    """Returns the one-sided p-value of 'members score no higher than non-members'.

    Normal approximation, corrected for ties and continuity: z = (U - nm/2 - 1/2)/sd, U = AUC nm,
    sd^2 = nm/12 (N + 1 - sum(t^3 - t)/(N (N - 1))) over groups of t tied rows, N = n + m. It is
    valid for independent records of one target.
    """
    n, m = curve.n_member, curve.n_nonmember
    sizes, total = np.diff(curve.true_V + curve.false_V), n + m
    tied = np.sum(sizes**3 - sizes) if curve.tied is None else curve.tied
    variance = n * m / 12 * (total + 1 - tied / (total * (total - 1)))
    excess = (auc(curve) - 0.5) * n * m - 0.5
    return float(special.ndtr(-excess / math.sqrt(variance))) if variance > 1e-9 * n * m else 1.0


def advantage(curve: Roc) -> float:
    """Returns max |TPR - FPR| over all thresholds, in [0, 1].

    It is optimistic, because the threshold is chosen with the true membership (`null_advantage`).
    """
    return float(np.max(np.abs(curve.tpr_V - curve.fpr_V)))


def null_advantage(n_member: float, n_nonmember: float, two_sided: bool = True) -> float:
    """Returns the mean of max |TPR - FPR| for random scores without ties (Kolmogorov's limit law).

    It is c sqrt(1/n + 1/m) with c = sqrt(pi/2) ln 2 = 0.869, or, for max (TPR - FPR) without the
    absolute value (`two_sided=False`), c = sqrt(pi/8) = 0.627.
    """
    c = math.sqrt(math.pi / 2) * math.log(2) if two_sided else math.sqrt(math.pi / 8)
    return c * math.sqrt(1 / n_member + 1 / n_nonmember)


def between(low: float, high: float) -> float:
    """Returns a threshold that flags `high` and not `low` < `high`.

    It is their midpoint, or `high` where floating-point numbers have none between them.
    """
    middle = low / 2 + high / 2
    return middle if low < middle <= high else high


def best_threshold(curve: Roc) -> tuple[float, float]:
    """Returns (threshold, balanced accuracy) of the rule with the largest balanced accuracy.

    The rule is 'score >= threshold', the balanced accuracy (TPR + 1 - FPR)/2 in [0.5, 1].
    Candidates are the midpoints of neighboring distinct scores, +inf and -inf; among equally good
    ones the highest threshold is chosen. Counts are compared, not rounded rates, so that the choice
    is the same on every machine.
    """
    gain_V = curve.true_V * curve.n_nonmember - curve.false_V * curve.n_member
    v = int(np.argmax(gain_V))
    return _threshold(curve, v), 0.5 + 0.5 * float(gain_V[v] / (curve.n_member * curve.n_nonmember))


def best_accuracy(curve: Roc) -> tuple[float, float]:
    """Returns (threshold, accuracy) of the rule that classifies the most rows correctly.

    The accuracy is (flagged members + other non-members)/rows; ties as in `best_threshold`.
    """
    gain_V = curve.true_V - curve.false_V
    v = int(np.argmax(gain_V))
    return _threshold(curve, v), float(
        (gain_V[v] + curve.n_nonmember) / (curve.n_member + curve.n_nonmember)
    )


def _threshold(curve: Roc, v: int) -> float:
    if v == 0:
        return math.inf
    return (
        -math.inf
        if v == len(curve.true_V) - 1
        else between(curve.threshold_V[v + 1], curve.threshold_V[v])
    )


def rates_at(score_N, member_N, threshold: float) -> Rates:
    """Computes the rates of flagging the rows with score [N] >= threshold.

    The balanced accuracy is (TPR + 1 - FPR)/2.

    Args:
        score_N: the scores, higher = more likely a member.
        member_N: whether each row is a member.
        threshold: the threshold; +inf flags no finite score.

    Raises:
        ValueError: a score or the threshold is NaN, or a side has no rows.
    """
    score_N, member_N = two_sides(score_N, member_N)
    checks.finite(threshold=np.nan_to_num(threshold, nan=np.nan, posinf=0.0, neginf=0.0))
    named_N = score_N >= threshold
    inside, tp, fp = (
        int(member_N.sum()),
        int((named_N & member_N).sum()),
        int((named_N & ~member_N).sum()),
    )
    outside = len(member_N) - inside
    tpr, fpr = tp / inside, fp / outside
    return Rates(tpr, fpr, (tpr + 1 - fpr) / 2, tp / max(tp + fp, 1), tp, fp, inside, outside)


def ppv(tpr, fpr, ratio: float):
    """Returns the precision TPR/(TPR + ratio FPR) at `ratio` > 0 non-members per member.

    Where no row is flagged it is 1/(1 + ratio), the share of members. Source: Jayaraman et al.,
    arXiv:2005.10881.

    Args:
        tpr, fpr: numbers or arrays of equal shapes, in [0, 1].
        ratio: non-members per member.
    """
    checks.positive(ratio=ratio)
    tpr, fpr = np.asarray(tpr, np.float64), np.asarray(fpr, np.float64)
    named = tpr + ratio * fpr
    value = np.where(named > 0, tpr / np.where(named > 0, named, 1.0), 1 / (1 + ratio))
    return float(value) if value.ndim == 0 else value
