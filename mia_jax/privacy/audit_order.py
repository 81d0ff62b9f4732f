"""Computes how often the k surest of n guesses about canaries are right, at most.

If canaries answer independently given the coins, no attacker of a mechanism guesses better than one
who sees, for each canary, the worst outcome that the privacy claim allows, and guesses the k
canaries about which this is most telling: whoever sees less can imitate this attacker, and given
the outcomes a guess is right with its own posterior probability. The number of right guesses then
has a known distribution, by the order statistics of the posteriors:

- mu-Gaussian DP: the outcomes are x ~ N(+-mu/2, 1), the surest have the largest |x|. Given that
  P(|x| > t) = u at the largest |x| that is not guessed about, the right guesses are
  Binomial(k, Phi(mu/2 - t) / u), and u ~ Beta(k + 1, n - k).
- (epsilon, delta)-DP: an outcome reveals the coin with probability delta, and is right with
  probability e^epsilon / (1 + e^epsilon) otherwise.

Tight audits in one run by order statistics: arXiv:2509.08704. The counts of `audit.p_value` and
`audit.fdp_rejected` need no independence, and pay for it.

This file uses NumPy and SciPy only.
"""

from __future__ import annotations

import functools

import numpy as np
from scipy import special, stats

from mia_jax import checks
from mia_jax.privacy import audit_sums

# Of the canaries, guessed IN and as many OUT: the most efficient number for small mu. Choosing the
# best of 10%, 20%, 54% and 100% afterwards, corrected by simulation, shows no more (docs).
SHARE = 0.27
NODES = 64  # Of the quadrature over the order statistic.


def p_value(*, canaries: int, guesses: int, correct: int, mu: float) -> float:
    """Returns the largest probability of `correct` or more right guesses under mu-Gaussian DP.

    Args:
        canaries: n, the number of coins.
        guesses: k.
        correct: the number of right guesses.
        mu: the parameter of the claim.

    >>> round(p_value(canaries=1, guesses=1, correct=1, mu=2.0), 4)  # Phi(1)
    0.8413
    """
    checks.at_least(0, mu=mu)
    if correct == 0:
        return 1.0
    rate_Q, weight_Q = _rates(canaries, guesses, mu)
    return min(1.0, float(weight_Q @ stats.binom.sf(correct - 1, guesses, rate_Q)))


def p_value_dp(
    *, canaries: int, guesses: int, correct: int, epsilon: float, delta: float = 0.0
) -> float:
    """Returns the largest probability of `correct` or more right guesses under (epsilon, delta)-DP.

    Args:
        canaries: n, the number of coins.
        guesses: k.
        correct: the number of right guesses.
        epsilon: the epsilon of the claim.
        delta: the delta of the claim.
    """
    table = tail_dp(canaries=canaries, guesses=guesses, epsilon=epsilon, delta=delta)
    return float(table[correct])


@functools.lru_cache(maxsize=256)
def tail_dp(*, canaries: int, guesses: int, epsilon: float, delta: float) -> np.ndarray:
    """Returns `p_value_dp` of 0, ..., guesses right guesses, [guesses + 1]."""
    checks.at_least(0, epsilon=epsilon)
    checks.fraction(closed="left", delta=delta)
    correct, table = np.arange(guesses + 1), np.zeros(guesses + 1)
    for revealed in range(guesses + 1):
        last = revealed == guesses  # At least as many coins are revealed as there are guesses.
        at_least = stats.binom.sf(revealed - 1, canaries, delta)
        if at_least < 1e-18:  # What is left out of the tail is added to it.
            return np.minimum(1.0, table + at_least)
        chance = at_least if last else stats.binom.pmf(revealed, canaries, delta)
        right = special.expit(epsilon)
        table += chance * stats.binom.sf(correct - revealed - 1, guesses - revealed, right)
    return np.minimum(1.0, table)


def tail(*, canaries: int, guesses: int, mu: float) -> np.ndarray:
    """Returns `p_value` of 0, ..., guesses right guesses, [guesses + 1]."""
    rate_Q, weight_Q = _rates(canaries, guesses, mu)
    correct = np.arange(guesses + 1)[:, None]
    return np.minimum(1.0, stats.binom.sf(correct - 1, guesses, rate_Q) @ weight_Q)


def accuracy(mu: float, *, canaries: int, guesses: int) -> float:
    """Returns the expected share of right guesses of the ideal attacker of mu-Gaussian DP."""
    rate_Q, weight_Q = _rates(canaries, guesses, mu)
    return float(weight_Q @ rate_Q)


@functools.lru_cache(maxsize=4096)
def _rates(canaries: int, guesses: int, mu: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns (rates, weights) of a quadrature over the order statistic, [Q] each.

    The nodes are Gauss-Legendre in the probability of the Beta distribution.

    Raises:
        ValueError: if the guesses are not 1 to `canaries`.
    """
    if not 1 <= guesses <= canaries:
        raise ValueError(f"guesses={guesses} must be 1 to {canaries}, the number of canaries.")
    if guesses == canaries:
        return np.array([special.ndtr(mu / 2)]), np.ones(1)
    above_Q, weight_Q = _nodes(canaries, guesses)
    t_Q = audit_sums.quantiles(above_Q, mu)
    return np.minimum(1.0, special.ndtr(mu / 2 - t_Q) / above_Q), weight_Q


@functools.lru_cache(maxsize=64)
def _nodes(canaries: int, guesses: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (u, weights) of the quadrature over Beta(guesses + 1, canaries - guesses)."""
    node_Q, weight_Q = np.polynomial.legendre.leggauss(NODES)
    return special.betaincinv(guesses + 1, canaries - guesses, (node_Q + 1) / 2), weight_Q / 2
