"""Computes lower bounds on mu of Gaussian DP from sums of canary scores over fair coins.

Guess counting (audit.py) keeps one bit of every score. The sums here keep the scores, or their
ranks. Both assume what a Gaussian mechanism gives, and what counting in `audit.one_run` does not
need: that given the coins, canaries answer independently.

- 'sum', the standardized difference of the mean scores of IN and OUT canaries, also assumes that
  scores are normal with one variance, as inner products of gradients with noisy updates are (Let's
  Ask Gauss, arXiv:2606.12733). A bounded transform of such scores can have a standardized
  difference above mu (by 6% at mu = 1.67), so other scores need the next one.
- 'rank_sum' reads the ranks of the scores alone and holds for scores of any distribution. With the
  coins as signs, it sums the normal score of every rank. Under mu-Gaussian DP, the attacker who is
  most often right on the largest weights ranks canaries by |x|, where x ~ N(+-mu/2, 1) is the
  privacy loss of a canary divided by mu: given x, its guess is right with probability
  1/(1 + exp(-mu |x|)), and any other order moves probability to smaller weights. The largest
  distribution of the sum is therefore that of this attacker, whose mean and variance are computed
  from quantiles. Its skewness is negative, so that its normal quantile errs upwards.

Interference, a canary's score containing the other canaries that are in, makes the sum heavier than
independent scores would, but dilutes the leak of a score by as much: the level holds in simulated
Gaussian mechanisms whose canaries share 1, 2, 5 or 20 directions (tests/privacy). A mechanism that
decides at random whether all canaries leak together is not covered: 'one_run' and 'fdp' are.

This file uses NumPy and SciPy only.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from scipy import special

from mia_jax import checks
from mia_jax.privacy.refuted import largest

METHODS = ("sum", "rank_sum")
FEWEST = 30  # The fewest canaries: from here on the normal quantiles hold (tests/privacy).
LARGEST = 1000.0  # Larger values of mu are not told apart.


class Sums(NamedTuple):
    """Holds the statistics of the scores of all canaries.

    Attributes:
        canaries: n, the number of coins that were flipped.
        members: the number of coins that came up IN; of pairs, that picked the first canary.
        difference: (mean score IN - mean score OUT) / pooled standard deviation; inf for scores
            without any spread within the two sides. Of pairs, twice the mean of the signed gaps
            divided by their standard deviation.
        ranked: the signed sum of the normal scores of the ranks, divided by the largest possible
            one; in [-1, 1].
        paired: whether each coin picked one of two canaries.
    """

    canaries: int
    members: int
    difference: float
    ranked: float
    paired: bool = False


def sums(score_N, inside_N) -> Sums:
    """Returns the statistics of canaries, each of which has its own coin.

    The center of the ranks is the median score. Among ties the earlier row ranks higher.

    Args:
        score_N: [N], higher means member. It may depend on the coins only through the trained
            model.
        inside_N: the coins, boolean [N].

    Raises:
        ValueError: if there are fewer than FEWEST canaries, a score is not finite, or fewer than
            two coins are on one side.
    """
    score_N, inside_N = np.asarray(score_N, np.float64), np.asarray(inside_N, bool)
    total = enough(checks.shape("N", score=score_N, inside=inside_N)["N"])
    checks.finite(score=score_N)
    members = int(inside_N.sum())
    if min(members, total - members) < 2:
        raise ValueError(
            f"{members} of {total} coins came up IN; two on each side are needed for a standard "
            "deviation. Fair coins do this with probability below 1e-7: draw them independently, "
            "with probability 1/2 each."
        )
    sign_N = np.where(inside_N, 1.0, -1.0)
    means = score_N[inside_N].mean(), score_N[~inside_N].mean()
    spread = score_N - np.where(inside_N, *means)
    deviation = math.sqrt(float(spread @ spread) / (total - 2))
    order = np.argsort(-score_N, kind="stable")
    grid = special.ndtri(1 - np.arange(1, total + 1) / (total + 1))  # From the highest rank down.
    ranked = float(sign_N[order] @ grid / np.abs(grid).sum())
    return Sums(total, members, _ratio(means[0] - means[1], deviation), ranked)


def sums_of_pairs(score_P2, first_P) -> Sums:
    """Returns the statistics of pairs of canaries, of which a fair coin picked one.

    Args:
        score_P2: the scores of P pairs, [P,2].
        first_P: whether the coin picked the first canary of the pair, [P].

    Raises:
        ValueError: as `sums`.
    """
    score_P2, first_P = np.asarray(score_P2, np.float64), np.asarray(first_P, bool)
    checks.shape("PA", score=score_P2)
    checks.shape("P", score=score_P2[:, 0], first=first_P)
    total = enough(len(first_P))
    checks.finite(score=score_P2)
    gap_P = score_P2[:, 0] - score_P2[:, 1]
    signed_P = np.where(first_P, gap_P, -gap_P)
    order = np.argsort(-np.abs(gap_P), kind="stable")
    right_P = np.where(gap_P == 0, first_P, signed_P > 0)  # Of equal scores the first is called IN.
    weight = weights(total)
    ranked = float(weight @ np.where(right_P[order], 1.0, -1.0) / weight.sum())
    twice = _ratio(2 * float(signed_P.mean()), float(signed_P.std(ddof=1)))
    return Sums(total, int(first_P.sum()), twice, ranked, paired=True)


def enough(canaries: int) -> int:
    """Returns the number of canaries.

    Raises:
        ValueError: if they are fewer than FEWEST.
    """
    if canaries < FEWEST:
        raise ValueError(
            f"{canaries} canaries are too few for the methods {' and '.join(METHODS)}, which need "
            f"{FEWEST}; use more canaries, or the method 'one_run', which counts guesses."
        )
    return canaries


def p_value(observed: Sums, *, mu: float, method: str) -> float:
    """Returns the largest probability of such a sum or a larger one under mu-Gaussian DP.

    'sum': the standardized difference times `scale` has a noncentral t distribution around mu
    scale, of which (t (1 - 1/(4 df)) - mu scale) / sqrt(1 + t^2/(2 df)) is normal (Johnson and
    Welch 1940). 'rank_sum': the largest possible sum is normal with the moments of `moments`.

    Args:
        observed: the statistics.
        mu: the parameter of the claim.
        method: 'sum' or 'rank_sum'.
    """
    checks.one_of(METHODS, method=method)
    checks.at_least(0, mu=mu)
    n = enough(observed.canaries)
    if method == "rank_sum":
        mean, variance = moments(mu, n)
        above = observed.ranked * float(weights(n).sum()) - mean
        return float(special.ndtr(-above / math.sqrt(variance)) if variance > 0 else above <= 0)
    inside = observed.members
    scale = math.sqrt(n) / 2 if observed.paired else math.sqrt(inside * (n - inside) / n)
    freedom = n - 1 if observed.paired else n - 2
    t = min(observed.difference, LARGEST**2) * scale
    z = (t * (1 - 1 / (4 * freedom)) - mu * scale) / math.sqrt(1 + t * t / (2 * freedom))
    return float(special.ndtr(-z))


def mu(observed: Sums, *, alpha: float, method: str) -> float:
    """Returns the largest mu such that mu-Gaussian DP is refuted at level alpha.

    Args:
        observed: the statistics.
        alpha: the level.
        method: 'sum' or 'rank_sum'.
    """
    checks.fraction(closed="neither", alpha=alpha)
    if observed.difference == math.inf and method == "sum":
        return LARGEST
    return largest(lambda mu: p_value(observed, mu=mu, method=method) <= alpha, most=LARGEST)


def typical(mu: float, *, canaries: int) -> Sums:
    """Returns the statistics that an ideal attacker of mu-Gaussian DP expects."""
    ranked = moments(mu, enough(canaries))[0] / weights(canaries).sum()
    return Sums(canaries, canaries // 2, mu, float(ranked))


def perfect(canaries: int) -> Sums:
    """Returns the statistics of scores that separate all IN canaries from all OUT ones."""
    return Sums(enough(canaries), canaries // 2, math.inf, 1.0)


def _ratio(difference: float, deviation: float) -> float:
    """Returns difference / deviation, where 0/0 is 0."""
    if deviation > 0:
        return difference / deviation
    return 0.0 if difference == 0 else math.copysign(math.inf, difference)


@functools.lru_cache(maxsize=16)
def weights(canaries: int) -> np.ndarray:
    """Returns |Phi^-1(rank / (n + 1))| of all ranks, the largest first, [N]."""
    grid = special.ndtri(np.arange(1, canaries + 1) / (canaries + 1))
    return np.sort(np.abs(grid))[::-1]


@functools.lru_cache(maxsize=4096)
def moments(mu: float, canaries: int) -> tuple[float, float]:
    """Returns mean and variance of the largest signed sum of ranks under mu-Gaussian DP.

    With t_j the quantiles of |x| for x ~ N(+-mu/2, 1), w_j the weights and h(t) = tanh(mu t / 2),
    the expected sign of a right guess, the mean is sum_j w_j h(t_j). The variance is that of the
    guesses given the t_j, sum_j w_j^2 (1 - h(t_j)^2), and that of the quantiles, n Var(psi(|x|))
    with psi(t) = int_0^t w dh, the influence function of the mean.
    """
    weight = weights(canaries)
    above = (np.arange(canaries) + 0.5) / canaries  # The share of canaries with a larger |x|.
    t = quantiles(above, mu)
    sign = np.tanh(mu * t / 2)
    rising, h = weight[::-1], sign[::-1]
    steps = np.append(rising[0] * h[0], (rising[1:] + rising[:-1]) / 2 * np.diff(h))
    influence = np.cumsum(steps)
    variance = weight**2 @ (1 - sign**2) + canaries * influence.var()
    return float(weight @ sign), float(variance)


def quantiles(above, mu: float) -> np.ndarray:
    """Returns t with P(|x| > t) = above for x ~ N(+-mu/2, 1), by bisection.

    >>> float(quantiles(0.05, mu=0.0).round(2))
    1.96
    """
    above = np.asarray(above, np.float64)
    low, high = np.zeros_like(above), np.full_like(above, mu / 2 + 40.0)
    for _ in range(60):
        t = (low + high) / 2
        more = special.ndtr(mu / 2 - t) + special.ndtr(-mu / 2 - t) > above
        low, high = np.where(more, t, low), np.where(more, high, t)
    return (low + high) / 2
