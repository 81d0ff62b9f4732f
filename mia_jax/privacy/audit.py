"""Computes lower bounds on epsilon from one training run with many canaries.

An independent fair coin decides for every canary whether it is in the training set; all other
examples are always in. An attacker scores the canaries without knowing the coins, calls the k+
highest scores IN and the k- lowest OUT, and abstains on the rest. Under (epsilon, delta)-DP few of
these guesses can be right, so many right guesses prove a larger epsilon. k+ and k- are fixed before
the scores are seen. Several settings, models or attacks share alpha (Bonferroni).

`one_run` computes the bound by every method; audit_order.py and audit_sums.py have those that
assume more and show more, audit_shift.py corrects for coins that are not quite fair, audit_runs.py
adds up runs, audit_shuffle.py audits shuffled batches.

This file uses NumPy and SciPy only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from mia_jax import checks
from mia_jax.privacy import accounting, audit_order, audit_shift, audit_sums
from mia_jax.privacy.audit_shift import FAIR, Shift
from mia_jax.privacy.audit_sums import Sums
from mia_jax.privacy.refuted import largest

# What counts guesses, and what adds scores up. 'one_run' and 'fdp' assume nothing about the
# mechanism; 'gdp', 'order', 'sum' and 'rank_sum' assume that its trade-off curve is that of a
# Gaussian; 'order_dp', 'order', 'sum' and 'rank_sum' that canaries answer independently.
COUNTING = ("one_run", "fdp", "gdp", "order_dp", "order")
METHODS = (*COUNTING, *audit_sums.METHODS)
GAUSSIAN = ("gdp", "order", *audit_sums.METHODS)


class Guesses(NamedTuple):
    """Counts the guesses of an attacker.

    Attributes:
        canaries: the number of coins that were flipped (abstentions included).
        guesses: the number of guesses.
        correct: the number of right guesses.
    """

    canaries: int
    guesses: int
    correct: int


def guess(score_N, inside_N, *, high: int, low: int) -> Guesses:
    """Calls the `high` largest scores IN and the `low` smallest OUT, and counts the right calls.

    Among ties the earlier row comes first.

    Args:
        score_N: [N], higher means member. It may depend on the coins only through the trained
            model.
        inside_N: the coins, boolean [N].
        high: the number of IN calls.
        low: the number of OUT calls.

    Raises:
        ValueError: if a score is not finite or high + low is not in 1..N.
    """
    score_N, inside_N = np.asarray(score_N, np.float64), np.asarray(inside_N)
    total = checks.shape("N", score=score_N, inside=inside_N)["N"]
    checks.finite(score=score_N)
    if min(high, low) < 0 or not 1 <= high + low <= total:
        raise ValueError(
            f"high={high} and low={low} are {high + low} guesses; they must be >= 0 and together 1 "
            f"to {total}, the number of canaries."
        )
    order = np.argsort(-score_N, kind="stable")
    correct = int(inside_N[order[:high]].sum()) + int((~inside_N[order[total - low :]]).sum())
    return Guesses(total, high + low, correct)


def guess_pairs(score_P2, first_P, *, guesses: int) -> Guesses:
    """Counts the right guesses about pairs of canaries, of which a fair coin picked one.

    This is the game for replace-one adjacency. It guesses the `guesses` pairs whose scores differ
    most and calls the canary with the higher score IN; for equal scores it calls the first.

    Args:
        score_P2: the scores of P pairs, [P,2].
        first_P: whether the coin picked the first canary of the pair, [P].
        guesses: the number of guesses.
    """
    score_P2 = np.asarray(score_P2, np.float64)
    checks.shape("PA", score=score_P2)
    checks.finite(score=score_P2)
    first_P = np.asarray(first_P, bool)
    if not 1 <= guesses <= len(first_P):
        raise ValueError(f"guesses={guesses} must be 1 to {len(first_P)}, the number of pairs.")
    gap_P = score_P2[:, 0] - score_P2[:, 1]
    chosen = np.argsort(-np.abs(gap_P), kind="stable")[:guesses]
    return Guesses(len(first_P), guesses, int(((gap_P >= 0) == first_P)[chosen].sum()))


def p_value(
    *, canaries: int, guesses: int, correct: int, epsilon: float, delta: float = 0.0
) -> float:
    """Returns the largest probability of `correct` or more right guesses under (epsilon, delta)-DP.

    With v = correct, m = canaries and W ~ Binomial(guesses, e^epsilon / (1 + e^epsilon)) it is P(W
    >= v) + 2 m delta max_{1 <= i <= v} P(v > W >= v - i) / i, at most 1. m counts *all* canaries,
    including abstentions. Source: Steinke, Nasr and Jagielski 2023 (arXiv:2305.08846), Theorem 5.2
    and Appendix D.
    """
    _check(canaries, guesses, correct, delta)
    checks.at_least(0, epsilon=epsilon)
    rate = special.expit(epsilon)
    tail = stats.binom.sf(correct - 1, guesses, rate)
    if delta == 0 or correct == 0:
        return float(min(tail, 1.0))
    i = np.arange(1, correct + 1)
    between = np.cumsum(stats.binom.pmf(correct - i, guesses, rate))
    return float(min(tail + 2 * canaries * delta * np.max(between / i), 1.0))


def tail(*, canaries: int, guesses: int, epsilon: float, delta: float) -> np.ndarray:
    """Returns `p_value` of 0, ..., guesses right guesses, [guesses + 1]."""
    _check(canaries, guesses, guesses, delta)
    checks.at_least(0, epsilon=epsilon)
    above = stats.binom.sf(np.arange(guesses + 1) - 1, guesses, special.expit(epsilon))
    if delta == 0:
        return above
    # between[v, i - 1] = P(v > W >= v - i) / i for 1 <= i <= v.
    v, i = np.arange(guesses + 1)[:, None], np.arange(1, guesses + 1)
    between = np.where(i <= v, (above[np.maximum(v - i, 0)] - above[v]) / i, 0.0)
    return np.minimum(1.0, above + 2 * canaries * delta * between.max(1))


def fdp_rejected(
    blow_up_inverse: Callable[[float], float],
    *,
    canaries: int,
    guesses: int,
    correct: int,
    alpha: float,
) -> bool:
    """Returns whether a trade-off curve f is rejected by `correct` right guesses.

    It is rejected if every mechanism with this curve makes so many right guesses with probability
    <= alpha. The recursion, with c = correct, k = guesses and m = canaries: r_c = alpha c/m, h_c =
    alpha (k - c)/m; for i = c - 1, ..., 0: h_i = max(h_{i+1}, blow_up_inverse(r_{i+1})), r_i =
    r_{i+1} + i/(k - i) (h_i - h_{i+1}); rejected if r_0 + h_0 > k/m. Source: Mahloujifar, Melis and
    Chaudhuri 2024 (arXiv:2410.22235), Algorithm 3 with two options per canary.

    Args:
        blow_up_inverse: blow_up_inverse(r) is the smallest t with 1 - f(t) >= r: an event of
            probability r under one data set has at least probability t under its neighbor.
        canaries: the number of coins.
        guesses: the number of guesses.
        correct: the number of right guesses.
        alpha: the level of the test.
    """
    _check(canaries, guesses, correct, 0.0)
    r, h = alpha * correct / canaries, alpha * (guesses - correct) / canaries
    for i in range(correct - 1, -1, -1):
        higher = max(h, blow_up_inverse(r))
        if higher == h:  # Neither r nor h can change any more.
            break
        r, h = min(r + i / (guesses - i) * (higher - h), 1.0), higher
    return r + h > guesses / canaries


def approximate(epsilon: float, delta: float) -> Callable[[float], float]:
    """Returns blow_up_inverse of (epsilon, delta)-DP.

    It is max(0, (r - delta) e^-epsilon, 1 - delta - (1 - r) e^epsilon).
    """
    up = math.exp(min(epsilon, 700.0))
    return lambda r: max(0.0, (r - delta) / up, 1 - delta - (1 - r) * up)


def gaussian(mu: float) -> Callable[[float], float]:
    """Returns blow_up_inverse of mu-Gaussian DP: Phi(Phi^-1(r) - mu)."""
    return lambda r: float(special.ndtr(special.ndtri(r) - mu))


def gdp_epsilon(mu: float, delta: float) -> float:
    """Returns the epsilon of mu-Gaussian DP at delta.

    It is the root of Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu) = delta, or 0 if no
    root is positive. Source: Dong, Roth and Su 2019 (arXiv:1905.02383), Corollary 2.13.
    """
    checks.at_least(0, mu=mu)
    checks.fraction(closed="neither", delta=delta)
    return accounting.gaussian_epsilon(mu, delta)


def one_run(
    counts: Guesses | Sums,
    *,
    delta: float,
    alpha: float = 0.05,
    method: str = "one_run",
    shift: Shift = FAIR,
) -> float:
    """Returns the largest epsilon that is refuted at level alpha.

    With probability >= 1 - alpha, the mechanism is not (epsilon', delta)-DP for any smaller
    epsilon'.

    Args:
        counts: the counts of the guesses; for 'sum' and 'rank_sum', what `audit_sums.sums` returns.
        delta: the delta of the claim.
        alpha: the level.
        method: 'one_run' uses `p_value`; 'fdp' uses `fdp_rejected` with the trade-off curve of
            (epsilon, delta)-DP; 'gdp' uses it with a Gaussian's curve and converts the result to an
            epsilon at delta. The last one is larger, and a bound only for mechanisms that are
            Gaussian (full batches); composed subsampled mechanisms are Gaussian only approximately.
            If canaries answer independently given the coins, these are bounds as well: 'order_dp'
            and, for Gaussian mechanisms, 'order' (audit_order.py), 'sum' and 'rank_sum'
            (audit_sums.py).
        shift: how far the coins are from fair (audit_shift.py).

    Raises:
        ValueError: for an unknown method, counts of another kind, or a shift under which the method
            has no bound.
    """
    checks.one_of(METHODS, method=method)
    checks.fraction(closed="neither", alpha=alpha)
    sums = method in audit_sums.METHODS
    if isinstance(counts, Sums) != sums:
        raise ValueError(
            f"method={method!r} reads {'sums of scores' if sums else 'counts of guesses'}, and "
            f"counts is {type(counts).__name__}: make it with "
            f"{'audit_sums.sums' if sums else 'audit.guess'}."
        )
    why = audit_shift.usable(audit_shift.checked(shift), method, gaussian=method in GAUSSIAN)
    if why:
        raise ValueError(f"method={method!r}: {why}.")
    if method in GAUSSIAN:
        refuted = refuted_mu(counts, alpha=alpha, method=method)
        return gdp_epsilon(audit_shift.left_of_mu(refuted, shift), delta)
    assert isinstance(counts, Guesses)  # sums have a Gaussian's methods alone
    fields, slack = counts._asdict(), delta + shift.slack
    if method == "one_run":
        refuted = largest(lambda epsilon: p_value(**fields, epsilon=epsilon, delta=slack) <= alpha)
    elif method == "order_dp":
        refuted = largest(
            lambda epsilon: audit_order.p_value_dp(**fields, epsilon=epsilon, delta=slack) <= alpha
        )
    else:
        refuted = largest(
            lambda epsilon: fdp_rejected(approximate(epsilon, slack), **fields, alpha=alpha)
        )
    return audit_shift.left_of_epsilon(refuted, shift)


def refuted_mu(counts: Guesses | Sums, *, alpha: float, method: str) -> float:
    """Returns the largest mu such that mu-Gaussian DP is refuted, by one of GAUSSIAN."""
    if isinstance(counts, Sums):
        return audit_sums.mu(counts, alpha=alpha, method=method)
    if method == "order":
        fields = counts._asdict()
        return largest(lambda mu: audit_order.p_value(**fields, mu=mu) <= alpha)
    return gdp_mu(counts, alpha=alpha)


def gdp_mu(counts: Guesses, *, alpha: float = 0.05) -> float:
    """Returns the largest mu such that mu-Gaussian DP is refuted at level alpha."""
    return largest(lambda mu: fdp_rejected(gaussian(mu), **counts._asdict(), alpha=alpha))


def ceiling(
    *,
    canaries: int,
    guesses: int | None = None,
    delta: float = 0.0,
    alpha: float = 0.05,
    method: str = "one_run",
    shift: Shift = FAIR,
) -> float:
    """Returns the result of `one_run` if all `guesses` (None: all canaries) are right.

    No attack can show a larger epsilon. That of 'sum' is beyond 100,000: scores without noise
    refute every mu up to audit_sums.LARGEST.

    >>> round(ceiling(canaries=100), 2), round(ceiling(canaries=1000), 2)
    (3.49, 5.81)
    """
    guesses = canaries if guesses is None else guesses
    perfect: Guesses | Sums = Guesses(canaries, guesses, guesses)
    if method in audit_sums.METHODS:
        perfect = audit_sums.perfect(canaries)
    return one_run(perfect, delta=delta, alpha=alpha, method=method, shift=shift)


def ideal(
    mu: float,
    *,
    canaries: int,
    guesses: int | None = None,
    delta: float,
    alpha: float = 0.05,
    method: str = "one_run",
    shift: Shift = FAIR,
) -> float:
    """Returns the result of `one_run` that an ideal attacker of mu-Gaussian DP expects.

    The scores are N(mu coin, 1), and the counts and sums are those that this attacker expects: no
    attack on a correct mechanism typically shows a larger epsilon.

    Args:
        mu: that of the mechanism; `gaussian_mu` is that of a claimed epsilon.
        canaries: the number of coins.
        guesses: the number of guesses; None for all canaries.
        delta: the delta of the claim.
        alpha: the level.
        method: one of METHODS.
        shift: how far the coins are from fair; the attacker does not make use of it.
    """
    if method in audit_sums.METHODS:
        expected: Guesses | Sums = audit_sums.typical(mu, canaries=canaries)
    else:
        guesses = canaries if guesses is None else guesses
        right = guesses * audit_order.accuracy(mu, canaries=canaries, guesses=guesses)
        expected = Guesses(canaries, guesses, round(right))
    return one_run(expected, delta=delta, alpha=alpha, method=method, shift=shift)


def gaussian_mu(epsilon: float, delta: float) -> float:
    """Returns mu of the Gaussian mechanism that is (epsilon, delta)-DP and no more private.

    >>> round(gaussian_mu(3.0, 1e-5), 3)
    0.719
    """
    checks.at_least(0, epsilon=epsilon)
    checks.fraction(closed="neither", delta=delta)
    return largest(lambda mu: gdp_epsilon(mu, delta) < epsilon)


class Bound(NamedTuple):
    """Holds a lower bound on epsilon at `delta` and how it was computed.

    Attributes:
        epsilon: the bound, Bonferroni-corrected over `tests` tries.
        ceiling: the largest bound that the same tries could have given.
        delta: the delta of the claim.
        level: the probability with which the bound holds.
        method: one of METHODS.
        tests: the number of tries that share alpha.
        model: the model of the try that gave the bound.
        counts: the guesses, or the sums, of that try.
    """

    epsilon: float
    ceiling: float
    delta: float
    level: float
    method: str
    tests: int
    model: int
    counts: Guesses | Sums


def best(
    tries: Sequence[tuple[int, Guesses | Sums]],
    *,
    delta: float,
    alpha: float = 0.05,
    method: str = "one_run",
    tests: int | None = None,
    shift: Shift = FAIR,
) -> Bound:
    """Returns the best bound over `tries`, each at level alpha / tests.

    Counts of several models are never added: the guesses about one canary in several models are not
    independent.

    Args:
        tries: (model, Guesses or Sums) of each try.
        delta: the delta of the claim.
        alpha: the level of all tries together.
        method: one of METHODS.
        tests: the number of tries that share alpha; None for the number of `tries`.
        shift: how far the coins are from fair.
    """
    tests = len(tries) if tests is None else tests
    if not 1 <= len(tries) <= tests:
        raise ValueError(
            f"{len(tries)} tries with tests={tests}: need at least one, and no more than were "
            "counted for the correction."
        )
    share = alpha / tests
    sizes = {size(counts) for _, counts in tries}
    # Among equal numbers of canaries and guesses, the strongest try has the largest bound.
    strongest = [
        max(
            (i for i, (_, c) in enumerate(tries) if size(c) == s),
            key=lambda i: strength(tries[i][1], method),
        )
        for s in sorted(sizes)
    ]
    how = dict(delta=delta, alpha=share, method=method, shift=shift)
    values = {i: one_run(tries[i][1], **how) for i in strongest}
    at = max(strongest, key=lambda i: (values[i], strength(tries[i][1], method)))
    top = max(
        ceiling(canaries=m, guesses=k, **how)
        for m, k in ({(m, 0) for m, _ in sizes} if method in audit_sums.METHODS else sizes)
    )
    return Bound(values[at], top, delta, 1 - alpha, method, tests, *tries[at])


def size(counts: Guesses | Sums) -> tuple[int, int]:
    """Returns (canaries, guesses) of counts, or (canaries, members) of sums."""
    return counts.canaries, counts.members if isinstance(counts, Sums) else counts.guesses


def strength(counts: Guesses | Sums, method: str) -> float:
    """Returns that in which the bound rises, among tries of the same size."""
    if isinstance(counts, Sums):
        return counts.difference if method == "sum" else counts.ranked
    return counts.correct / counts.guesses


def _check(canaries: int, guesses: int, correct: int, delta: float) -> None:
    """Raises ValueError unless the counts and delta are possible."""
    if not 0 <= correct <= guesses <= canaries or guesses < 1:
        raise ValueError(
            f"correct={correct}, guesses={guesses}, canaries={canaries}: need 0 <= correct <= "
            "guesses <= canaries and guesses >= 1."
        )
    checks.fraction(closed="left", delta=delta)
