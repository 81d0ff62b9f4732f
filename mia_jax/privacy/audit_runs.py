"""Computes lower bounds on epsilon from many runs: audits that grow, and trials of one canary.

`running` adds up runs and may be looked at after every run: with probability >= 1 - alpha all its
bounds hold together, so runs can be added until the bound is convincing (`--extend`). It multiplies
e-values, nonnegative statistics whose expectation is at most 1 if the claim holds, and refutes a
claim as soon as the product reaches 1/alpha (Ville's inequality). The e-value of a run is
exp(tilt * statistic), divided by its largest expectation under the claim; the product is averaged
over a few tilts that are fixed beforehand. Sequential audits: arXiv:2602.06518.

Runs must be independent given the past: each has its own coins, and its scores are computed from
that run, or earlier ones, alone. Attacks with shadow models read later runs as well.

`independent_trials` is for runs that each show one canary, in or out: Clopper-Pearson. Such runs
are also what the methods of audit.py call canaries, independent given the coins by construction:
`audit_sums.sums(score_R, inside_R)` and the others bound epsilon from one score per run.

This file uses NumPy and SciPy only.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from mia_jax import checks
from mia_jax.metrics import intervals
from mia_jax.privacy import audit, audit_order, audit_sums
from mia_jax.privacy.audit import Guesses
from mia_jax.privacy.audit_sums import Sums
from mia_jax.privacy.refuted import largest

METHODS = ("one_run", "order_dp", "order", "rank_sum")
CURVES = ("any", "gaussian")  # trade-off curves for which bounds of independent trials hold
# Tilts of the log odds of a right guess, and of a standardized sum.
ODDS = tuple(np.geomspace(0.05, 3.0, 10))
STANDARD = tuple(np.geomspace(0.2, 4.0, 8))


def running(
    counts_R: Sequence[Guesses | Sums],
    *,
    delta: float,
    alpha: float = 0.05,
    method: str = "order",
) -> list[float]:
    """Returns the lower bound on epsilon after each of R runs.

    With probability >= 1 - alpha, none of the bounds exceeds the epsilon of the mechanism, however
    many runs there are and whenever they end. They never fall.

    Args:
        counts_R: the guesses (for 'rank_sum' the sums) of each run, in the order of the runs.
        delta: the delta of the claim.
        alpha: the level of all bounds together.
        method: one of METHODS, with the assumptions of `audit.one_run`.

    Raises:
        ValueError: for an unknown method, or no run.
    """
    checks.one_of(METHODS, method=method)
    checks.fraction(closed="neither", alpha=alpha, delta=delta)
    if not counts_R:
        raise ValueError("counts_R is empty: an audit needs at least one run.")
    bounds: list[float] = []
    for end in range(1, len(counts_R) + 1):
        start = bounds[-1] if bounds else 0.0
        first = tuple(counts_R[:end])

        def refuted(more: float, first=first, start=start) -> bool:
            evidence = log_e_value(first, parameter=start + more, delta=delta, method=method)
            return evidence >= -math.log(alpha)

        bounds.append(start + largest(refuted, tolerance=1e-4))
    if method in ("order", "rank_sum"):  # The parameter is mu.
        return [audit.gdp_epsilon(mu, delta) if mu else 0.0 for mu in bounds]
    return bounds


def log_e_value(
    counts_R: Sequence[Guesses | Sums], *, parameter: float, delta: float, method: str
) -> float:
    """Returns the logarithm of the e-value of all runs against a claim.

    Args:
        counts_R: the guesses or sums of each run.
        parameter: the claim's mu for 'order' and 'rank_sum', its epsilon for the others.
        delta: the delta of the claim.
        method: one of METHODS.
    """
    if method == "rank_sum":
        tilt_L = np.array(STANDARD)
        z = -sum(
            special.ndtri(np.clip(audit_sums.p_value(sums, mu=parameter, method=method), 1e-300, 1))
            for sums in counts_R
        )
        log_L = tilt_L * z - len(counts_R) * tilt_L**2 / 2
    else:
        tilt_L = np.array(ODDS)
        right = sum(counts.correct for counts in counts_R)
        log_L = tilt_L * right - sum(
            np.array(_log_largest(counts.canaries, counts.guesses, parameter, delta, method))
            for counts in counts_R
        )
    return float(special.logsumexp(log_L) - math.log(len(tilt_L)))


@functools.lru_cache(maxsize=4096)
def _log_largest(
    canaries: int, guesses: int, parameter: float, delta: float, method: str
) -> tuple[float, ...]:
    """Returns the largest log E exp(tilt * right guesses) under the claim, for each of ODDS.

    If P(V >= v) <= tail_v for all v, then E exp(t V) <= 1 + sum_v (e^(t v) - e^(t (v - 1))) tail_v.
    """
    if method == "order":
        tail = audit_order.tail(canaries=canaries, guesses=guesses, mu=parameter)
    elif method == "order_dp":
        common = dict(canaries=canaries, guesses=guesses)
        tail = audit_order.tail_dp(**common, epsilon=parameter, delta=delta)
    else:
        tail = audit.tail(canaries=canaries, guesses=guesses, epsilon=parameter, delta=delta)
    # The probability of each count in the law that attains every tail.
    with np.errstate(divide="ignore"):
        log_prob = np.log(
            np.maximum(-np.diff(np.append(np.maximum.accumulate(tail[::-1])[::-1], 0)), 0)
        )
    count = np.arange(guesses + 1)
    return tuple(float(special.logsumexp(t * count + log_prob)) for t in ODDS)


def independent_trials(
    *,
    true: int,
    inside: int,
    false: int,
    outside: int,
    delta: float,
    alpha: float = 0.05,
    curve: str = "any",
) -> float:
    """Returns the largest epsilon that rates of independent runs refute at level alpha.

    Under (epsilon, delta)-DP, TPR <= e^epsilon FPR + delta; under mu-Gaussian DP, Phi^-1(TPR) <=
    Phi^-1(FPR) + mu. The limits of both rates are those of Clopper and Pearson, each at level
    alpha / 2.

    Args:
        true: the runs with the canary that were called IN.
        inside: the runs with the canary.
        false: the runs without the canary that were called IN.
        outside: the runs without the canary.
        delta: the delta of the claim.
        alpha: the level.
        curve: 'any' for any mechanism; 'gaussian' for a larger bound that holds for mechanisms
            whose trade-off curve is a Gaussian's alone (full batches).

    >>> round(independent_trials(true=32, inside=32, false=0, outside=32, delta=0.0), 2)
    2.1
    """
    checks.one_of(CURVES, curve=curve)
    return _epsilon(float(_trials(true, inside, false, outside, delta, alpha, curve)), delta, curve)


def _trials(
    true, inside: int, false, outside: int, delta: float, alpha: float, curve: str
) -> np.ndarray:
    """Returns the refuted epsilon, or mu for a Gaussian's curve, of arrays of counts."""
    checks.fraction(closed="left", delta=delta)
    low = np.asarray(intervals.clopper_pearson(true, inside, 1 - alpha)[0])
    high = np.asarray(intervals.clopper_pearson(false, outside, 1 - alpha)[1])
    if curve == "gaussian":
        above = low > high  # So that high < 1, and the difference of the quantiles is finite.
        safe = np.where(above, high, 0.5)
        return special.ndtri(np.where(above, low, 0.5)) - special.ndtri(safe)
    return np.log(np.maximum(low - delta, high) / high)


def _epsilon(refuted: float, delta: float, curve: str) -> float:
    """Returns the epsilon at delta of what `_trials` returns."""
    if curve == "any":
        return refuted
    return audit.gdp_epsilon(refuted, delta) if refuted > 0 else 0.0


def best_threshold(
    score_R, inside_R, *, delta: float, alpha: float = 0.05, seed: int = 0, curve: str = "any"
) -> tuple[float, float]:
    """Returns (epsilon, threshold), the threshold chosen on half of the runs, tested on the rest.

    Args:
        score_R: one score per run, higher means that the canary was in.
        inside_R: whether the canary was in, an independent fair coin per run.
        delta: the delta of the claim.
        alpha: the level.
        seed: of the halves.
        curve: see `independent_trials`.

    Raises:
        ValueError: if a half has no run on one side, or a score is NaN.
    """
    checks.one_of(CURVES, curve=curve)
    score_R, inside_R = np.asarray(score_R, np.float64), np.asarray(inside_R, bool)
    total = checks.shape("R", score=score_R, inside=inside_R)["R"]
    if np.isnan(score_R).any():
        raise ValueError(f"score has {int(np.isnan(score_R).sum())} NaN values of {total}.")
    chosen = np.zeros(total, bool)
    chosen[np.random.default_rng(seed).permutation(total)[: total // 2]] = True
    sides = [
        np.sort(score_R[half & side])
        for half in (chosen, ~chosen)
        for side in (inside_R, ~inside_R)
    ]
    if not all(map(len, sides)):
        raise ValueError(
            f"{int(inside_R.sum())} of {total} runs hold the canary: both halves need runs "
            "with and without it. Draw an independent fair coin per run, and use more runs."
        )
    first_in, first_out, second_in, second_out = sides
    ranks = np.unique(np.geomspace(1, len(first_out), 60).astype(int)) - 1
    threshold_K = np.append(np.nextafter(first_out[-1], np.inf), first_out[::-1][ranks])

    def value(t, inside_S, outside_S):
        true, false = (len(side) - np.searchsorted(side, t) for side in (inside_S, outside_S))
        return _trials(true, len(inside_S), false, len(outside_S), delta, alpha, curve)

    best = threshold_K[int(np.argmax(value(threshold_K, first_in, first_out)))]
    return _epsilon(float(value(best, second_in, second_out)), delta, curve), float(best)


def ceiling_of_trials(runs: int, *, delta: float, alpha: float = 0.05, curve: str = "any") -> float:
    """Returns the bound of `best_threshold` with so many runs if no score errs.

    Half of the coins are IN in both halves; other coins give a bound that differs a little.

    >>> round(ceiling_of_trials(128, delta=0.0), 2)
    2.1
    """
    side = runs // 4
    return independent_trials(
        true=side, inside=side, false=0, outside=side, delta=delta, alpha=alpha, curve=curve
    )
