"""Lower bounds of the ratio of two proportions from counts, and what they say about TPR/FPR: `eps_from_rates_heuristic`.

The logarithm of TPR/FPR is at most epsilon for an epsilon-DP mechanism if rows are independent trials of it. Rates of the records of one model are
not: the records depend on each other through the model. So nothing here is a bound on differential privacy; it is named a heuristic, always.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special

from mia_jax import checks
from mia_jax.metrics import roc

METHODS = ("katz_log", "adjusted_log", "bailey", "inverse_sinh", "clopper_pearson")
SELECTIONS = ("explicit", "split", "multi_split", "bonferroni", "best_of_all_uncorrected")


def lower(k1, n1, k0, n0, *, method: str = "clopper_pearson", alpha: float = 0.05) -> np.ndarray:
    """Lower 1 - alpha bounds of p1/p0 for k1 of n1 and k0 of n0, one-sided; arrays that broadcast, float64 >= 0.

    With p = k/n, z = Phi^-1(1 - alpha) and v = 1/k1 - 1/n1 + 1/k0 - 1/n0:
    'katz_log': p1/p0 exp(-z sqrt v); 'adjusted_log': the same with 1/2 added to all four counts (Walter 1975);
    'bailey': p1/p0 [(1 - z/3 sqrt(v - z^2 q1 q0 / (9 k1 k0))) / (1 - z^2 q0 / (9 k0))]^3, q = 1 - p (Bailey 1987);
    'inverse_sinh': p1/p0 exp(-2 asinh(z/2 sqrt v)) (Newcombe 2001); 'clopper_pearson': lower limit of p1 over upper limit of p0 at alpha/2 each,
    the only one whose coverage is exact. Zero counts: k1 = 0 gives 0; k0 = 0 counts as 1/2 (inverse_sinh: z^2); k = n on both sides as n - 1/2,
    for bailey on either. Where Bailey's denominator or root has no meaning the bound is 0. ValueError unless 0 <= k <= n, n > 0, 0 < alpha < 1/2.
    Source of the conventions: Aho and Bowyer 2015 (doi:10.1111/2041-210X.12304).
    """
    checks.one_of(METHODS, method=method)
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha={alpha} must lie in (0, 1/2).")
    k1, n1, k0, n0 = (a.astype(np.float64) for a in np.broadcast_arrays(k1, n1, k0, n0))
    for name, k, n in (("1", k1, n1), ("0", k0, n0)):
        if not (np.all(n > 0) and np.all((k >= 0) & (k <= n))):
            raise ValueError(f"k{name}={k} of n{name}={n}: need 0 <= k <= n and n > 0.")
    return _BOUNDS[method](k1, n1, k0, n0, -special.ndtri(alpha), alpha)


def _full(k1, n1, k0, n0):
    """Counts with k = n on both sides moved down by 1/2."""
    full = (k1 == n1) & (k0 == n0)
    return np.where(full, n1 - 0.5, k1), np.where(full, n0 - 0.5, k0)


def _katz_log(k1, n1, k0, n0, z, alpha):
    k1, k0 = _full(k1, n1, k0, n0)
    a, b = np.where(k1 > 0, k1, 1), np.where(k0 > 0, k0, 0.5)
    return np.where(k1 > 0, a / n1 / (b / n0) * np.exp(-z * np.sqrt(1 / a - 1 / n1 + 1 / b - 1 / n0)), 0.0)


def _adjusted_log(k1, n1, k0, n0, z, alpha):
    nobody = (k1 == 0) & (k0 == 0)
    k1, k0 = _full(k1, n1, k0, n0)
    a, n, b, m = (x + 0.5 for x in (k1, n1, k0, n0))
    return np.where(nobody, 0.0, a / n / (b / m) * np.exp(-z * np.sqrt(1 / a - 1 / n + 1 / b - 1 / m)))


def _bailey(k1, n1, k0, n0, z, alpha):
    a = np.where(k1 == n1, n1 - 0.5, np.where(k1 > 0, k1, 1))
    b = np.where(k0 == n0, n0 - 0.5, np.where(k0 > 0, k0, 0.5))
    q1, q0 = 1 - a / n1, 1 - b / n0
    inside, below = q1 / a + q0 / b - z**2 * q1 * q0 / (9 * a * b), 1 - z**2 * q0 / (9 * b)
    above = 1 - z / 3 * np.sqrt(np.maximum(inside, 0))
    usable = (k1 > 0) & (inside >= 0) & (below > 0) & (above > 0)
    return np.where(usable, a / n1 / (b / n0) * (above / np.where(below > 0, below, 1)) ** 3, 0.0)


def _inverse_sinh(k1, n1, k0, n0, z, alpha):
    k1, k0 = _full(k1, n1, k0, n0)
    a, b = np.where(k1 > 0, k1, 1), np.where(k0 > 0, k0, z**2)
    spread = np.sqrt(np.maximum(1 / a - 1 / n1 + 1 / b - 1 / n0, 0))
    return np.where(k1 > 0, a / n1 / (b / n0) * np.exp(-2 * np.arcsinh(z / 2 * spread)), 0.0)


def _clopper_pearson(k1, n1, k0, n0, z, alpha):
    low = np.where(k1 > 0, special.betaincinv(np.maximum(k1, 1), n1 - k1 + 1, alpha / 2), 0.0)
    high = np.where(k0 < n0, special.betaincinv(k0 + 1, np.maximum(n0 - k0, 1), 1 - alpha / 2), 1.0)
    return low / high


_BOUNDS: dict[str, Callable] = dict(
    katz_log=_katz_log, adjusted_log=_adjusted_log, bailey=_bailey, inverse_sinh=_inverse_sinh, clopper_pearson=_clopper_pearson
)


class Heuristic(NamedTuple):
    """`value` = max(0, log of the ratio's lower bound); the ratio's name, its threshold and counts (None over several splits), and the method."""

    value: float
    ratio: str
    threshold: float | None
    counts: tuple[int, int, int, int] | None
    method: str


def eps_from_rates_heuristic(
    score_N,
    member_N,
    *,
    method: str = "clopper_pearson",
    alpha: float = 0.05,
    sides: int = 1,
    selection: str = "bonferroni",
    threshold: float | None = None,
    splits: int = 101,
    seed: int = 0,
) -> Heuristic:
    """log of a lower bound of TPR/FPR (sides=1), or of the larger of TPR/FPR and TNR/FNR (sides=2), of scores [N] against membership [N].

    selection: 'explicit': at `threshold`, fixed beforehand (alpha/sides for each ratio). 'split': threshold and ratio chosen on a random half of
    either side, the bound from the other half. 'multi_split': the median over `splits` such bounds at alpha/2 (valid by Markov's inequality).
    'bonferroni': the best of the thresholds that name 0, 1, 2, 4, ... non-members (TNR/FNR: that miss 0, 1, 2, 4, ... members), alpha shared
    among them; these ranks depend on the numbers of rows alone, so Clopper-Pearson holds, with ties too.
    'best_of_all_uncorrected': the best of all thresholds without any correction, not a bound at any level; for comparison with tools that do so.
    Raises ValueError on NaN scores, an empty side, or unknown words.
    """
    checks.one_of(SELECTIONS, selection=selection)
    checks.one_of((1, 2), sides=sides)
    score_N, member_N = roc.two_sides(score_N, member_N)
    shown = f"{method}, {selection}"
    if selection == "explicit":
        if threshold is None:
            raise ValueError("selection='explicit' needs a threshold that was fixed beforehand.")
        best = max((_at(score_N, member_N, s, np.array([threshold]), method, alpha / sides) for s in range(sides)), key=lambda b: b[0])
        return _heuristic(*best, shown)
    if selection in ("split", "multi_split"):
        rng = np.random.default_rng(seed)
        count, level = (1, alpha) if selection == "split" else (splits, alpha / 2)
        checks.at_least(1, splits=splits)
        found = sorted((_split(score_N, member_N, rng, method, level, sides) for _ in range(count)), key=lambda b: b[0])
        best = found[(len(found) - 1) // 2]
        return _heuristic(*best, shown) if count == 1 else Heuristic(_log(best[0]), best[1], None, None, f"{shown} ({splits} halvings)")
    candidates = [_candidates(score_N, member_N, s, fixed=selection == "bonferroni") for s in range(sides)]
    share = alpha / sum(map(len, candidates)) if selection == "bonferroni" else alpha
    best = max((_at(score_N, member_N, s, at, method, share) for s, at in enumerate(candidates)), key=lambda b: b[0])
    return _heuristic(*best, shown + (f" over {sum(map(len, candidates))} ranks" if selection == "bonferroni" else ""))


def _log(bound: float) -> float:
    return math.log(bound) if bound > 1 else 0.0


def _heuristic(bound: float, ratio: str, threshold: float, counts, method: str) -> Heuristic:
    return Heuristic(_log(bound), ratio, threshold, counts, method)


def _at(score_N, member_N, side: int, thresholds, method: str, alpha: float) -> tuple[float, str, float, tuple]:
    """(bound, ratio, threshold, counts) of the best threshold for one ratio: side 0 TPR/FPR, side 1 TNR/FNR; rows with score >= t are named."""
    inside, outside = np.sort(score_N[member_N]), np.sort(score_N[~member_N])
    below1, below0 = np.searchsorted(inside, thresholds), np.searchsorted(outside, thresholds)
    k1, n1, k0, n0 = (
        (len(inside) - below1, len(inside), len(outside) - below0, len(outside)) if side == 0 else (below0, len(outside), below1, len(inside))
    )
    bound = lower(k1, n1, k0, n0, method=method, alpha=alpha)
    best = int(np.argmax(bound))
    return float(bound[best]), ("TPR/FPR", "TNR/FNR")[side], float(thresholds[best]), (int(k1[best]), n1, int(k0[best]), n0)


def _candidates(score_N, member_N, side: int, fixed: bool) -> np.ndarray:
    """Thresholds for one ratio: all distinct scores, or those that name (miss) 0, 1, 2, 4, ... of the side in the denominator."""
    if not fixed:
        return np.unique(score_N)
    sign = 1 if side == 0 else -1
    wrong = np.sort(-sign * score_N[~member_N if side == 0 else member_N])  # rising: the first ones are named (missed) first
    ranks = np.append(0, 2 ** np.arange(int(np.log2(max(len(wrong), 2)))))
    edge = -sign * wrong[ranks[1:] - 1]
    if side == 0:  # rank 0: just above the highest non-member, else from the rank's score on
        return np.append(np.nextafter(-wrong[0], np.inf), edge)
    return np.append(wrong[0], np.nextafter(edge, np.inf))  # rank 0: at the lowest member; else just above the rank's score


def _split(score_N, member_N, rng, method: str, alpha: float, sides: int) -> tuple:
    """Threshold and ratio chosen on one half of either side, (bound, ratio, threshold, counts) from the other."""
    half_N = np.zeros(len(score_N), bool)
    for rows in (np.flatnonzero(member_N), np.flatnonzero(~member_N)):
        if len(rows) < 2:
            raise ValueError(f"selection by splits needs 2 rows a side; one side has {len(rows)}.")
        half_N[rng.permutation(rows)[: len(rows) // 2]] = True
    first, second = (score_N[half_N], member_N[half_N]), (score_N[~half_N], member_N[~half_N])
    chosen = [_at(*first, s, _candidates(*first, s, fixed=False), method, alpha) for s in range(sides)]
    side = int(np.argmax([c[0] for c in chosen]))
    return _at(*second, side, np.array([chosen[side][2]]), method, alpha)
