"""Says what a mechanism proves about attacks: TPR at every FPR, advantage, and posterior.

The trade-off curve of a mechanism says more than one (epsilon, delta): it is the envelope over all
of them. For the privacy loss distribution of the accountant, with delta(epsilon) for epsilons of
either sign, every attack that decides whether a unit was in the training set has

    TPR <= min over epsilon of (e^epsilon FPR + delta(epsilon)),

and the same with the roles of members and non-members exchanged (Kairouz, Oh and Viswanath 2015,
arXiv:1311.0776; Dong, Roth and Su 2022, arXiv:1905.02383; Kulynych et al. 2024, arXiv:2407.02191).
It holds for attackers who know everything but one unit and see every step of the training.

This file does not use jax.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats

from mia_jax import checks
from mia_jax.privacy import accounting, losses
from mia_jax.privacy.mechanism import Mechanism

EPSILONS = 4000  # The number of epsilons of the envelope.
LARGEST = 1000.0  # From this mu on, nothing is proven that a float could hold.


class Proven(NamedTuple):
    """Holds (epsilon, delta) pairs of one mechanism.

    Attributes:
        epsilon: the epsilons, rising and of either sign.
        remove: delta(epsilon) of P(with the unit) against P(without it).
        add: the same of P(without) against P(with).
    """

    epsilon: np.ndarray
    remove: np.ndarray
    add: np.ndarray

    def tpr(self, fpr) -> np.ndarray:
        """Returns the largest true-positive rate at each false-positive rate, rounded up."""
        fpr = np.asarray(fpr, np.float64)
        rows = np.atleast_1d(fpr)[:, None]
        # An infinite factor times 0 is 0 here.
        with np.errstate(over="ignore", invalid="ignore"):
            scale = np.exp(self.epsilon)
            members = np.where(rows > 0, scale * rows, 0.0) + self.remove
            rest = 1 - rows - self.add
            others = 1 - np.where(rest != 0, np.exp(-self.epsilon) * rest, 0.0)
        best = np.minimum(members.min(1), others.min(1))
        return np.clip(best, np.atleast_1d(fpr), 1.0).reshape(fpr.shape)

    @property
    def advantage(self) -> float:
        """Returns the largest TPR - FPR, which is delta(0)."""
        return float(
            min(np.interp(0.0, self.epsilon, self.remove), np.interp(0.0, self.epsilon, self.add))
        )

    def posterior(self, *, prior: float, fpr: float) -> float:
        """Returns the largest share of members among the units that an attack identifies.

        It is prior TPR / (prior TPR + (1 - prior) FPR), the precision of the best attack at this
        FPR. It depends on the prior: the share of members among the units that it decides about.
        """
        checks.fraction(closed="neither", prior=prior, fpr=fpr)
        true = prior * float(self.tpr(fpr))
        return true / (true + (1 - prior) * fpr)


def proven(mechanism: Mechanism) -> Proven:
    """Returns what is proven about a mechanism after all its steps.

    Poisson and other samplings that 'pld' supports have their privacy loss distribution; without
    sampling it is that of one Gaussian in closed form. No steps prove that nothing is learned, and
    no noise proves nothing.

    Raises:
        ValueError: for a pair of sampling and adjacency that privacy loss distributions do not
            support.
    """
    accounting.checks_pair(mechanism)
    if mechanism.sampling == "without_replacement":
        raise ValueError(
            "sampling='without_replacement' is accounted by 'rdp' alone, which has no trade-off "
            "curve; use sampling='poisson'."
        )
    if mechanism.steps and not mechanism.noise_multiplier:
        return nothing()
    if not mechanism.steps:
        return Proven(np.zeros(1), np.zeros(1), np.zeros(1))
    return _proven(mechanism)


def nothing() -> Proven:
    """Returns what a mechanism without noise proves."""
    return Proven(np.zeros(1), np.ones(1), np.ones(1))


@functools.lru_cache(maxsize=256)
def _proven(mechanism: Mechanism) -> Proven:
    """Returns `proven` of a mechanism with noise and steps."""
    replaced = mechanism.adjacency == "replace_one"
    if mechanism.release_rate == 1:  # no amplification
        return gaussian(math.sqrt(mechanism.releases) / mechanism.noise_multiplier)
    capped = mechanism.cap is not None and mechanism.cap < mechanism.num_units
    parts = losses.totals(
        rate=mechanism.release_rate,
        multiplier=mechanism.noise_multiplier * (2 if replaced else 1),
        relation=accounting.RELATIONS[mechanism.adjacency],
        steps=mechanism.releases,
        units=mechanism.num_units if capped else 0,
        cap=mechanism.cap if capped else 0,
    )
    low, high = min(part.loss[0] for part in parts), max(part.loss[-1] for part in parts)
    epsilon = np.unique(np.append(np.linspace(low, high, EPSILONS), 0.0))
    deltas = [part.delta(epsilon) for part in parts]
    return Proven(epsilon, deltas[0], deltas[-1])


def gaussian(mu: float) -> Proven:
    """Returns what mu-Gaussian DP proves; of one mechanism, removing and adding are the same."""
    if mu > LARGEST:
        return nothing()
    width = mu * mu / 2 + 9 * mu
    epsilon = np.unique(np.append(np.linspace(-width, width, EPSILONS), 0.0))
    with np.errstate(over="ignore"):
        delta = special.ndtr(-epsilon / mu + mu / 2) - np.exp(
            epsilon + special.log_ndtr(-epsilon / mu - mu / 2)
        )
    delta = np.clip(delta, 0.0, 1.0)
    return Proven(epsilon, delta, delta)


def noise_for(
    mechanism: Mechanism,
    *,
    max_tpr: float | None = None,
    at_fpr: float | None = None,
    max_advantage: float | None = None,
    tolerance: float = 1e-3,
) -> float:
    """Returns the smallest noise multiplier with which no attack exceeds the wanted risk.

    It is accurate to `tolerance` of itself, and never gives a larger risk.

    Args:
        mechanism: the mechanism; its noise is ignored.
        max_tpr: the largest true-positive rate at `at_fpr`.
        at_fpr: the false-positive rate, below `max_tpr`.
        max_advantage: the largest TPR - FPR over all attacks, instead of the two.
        tolerance: the relative accuracy.

    Raises:
        ValueError: if not exactly one risk is given, or no noise up to 1e6 is enough.
    """
    check_risk(max_tpr=max_tpr, at_fpr=at_fpr, max_advantage=max_advantage)

    def fits(multiplier: float) -> bool:
        result = proven(dataclasses.replace(mechanism, noise_multiplier=multiplier))
        if max_advantage is not None:
            return result.advantage <= max_advantage
        return float(result.tpr(at_fpr)) <= max_tpr

    low, high = 0.25, 0.5
    while not fits(high):
        low, high = high, 2 * high
        if high > 1e6:
            raise ValueError(
                f"no noise multiplier up to 1e6 proves {wanted(max_tpr, at_fpr, max_advantage)} "
                f"after {mechanism.steps} steps; allow more risk, or take fewer steps."
            )
    while low > 1e-2 and fits(low):
        low, high = low / 2, low
    while high - low > tolerance * high:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def check_risk(*, max_tpr: float | None, at_fpr: float | None, max_advantage: float | None) -> None:
    """Raises ValueError unless exactly one risk is given, and is one that noise can prove."""
    if (max_tpr is None) != (at_fpr is None) or (max_tpr is None) == (max_advantage is None):
        raise ValueError(
            f"privacy.max_tpr={max_tpr}, at_fpr={at_fpr} and max_advantage={max_advantage}: give "
            "max_tpr together with at_fpr, or max_advantage alone."
        )
    if max_advantage is not None:
        checks.fraction(closed="neither", **{"privacy.max_advantage": max_advantage})
        return
    checks.fraction(closed="neither", **{"privacy.max_tpr": max_tpr, "privacy.at_fpr": at_fpr})
    if max_tpr <= at_fpr:
        raise ValueError(
            f"privacy.max_tpr={max_tpr} must be above at_fpr={at_fpr}: guessing at random has a "
            "TPR of at_fpr, and no noise gives less."
        )


def wanted(max_tpr: float | None, at_fpr: float | None, max_advantage: float | None) -> str:
    """Writes a wanted risk.

    >>> wanted(0.05, 0.01, None), wanted(None, None, 0.1)
    ('TPR <= 0.05 at FPR 0.01', 'advantage <= 0.1')
    """
    if max_advantage is not None:
        return f"advantage <= {max_advantage:g}"
    return f"TPR <= {max_tpr:g} at FPR {at_fpr:g}"


HEURISTIC = "a heuristic, not a guarantee"


def last_iterate_epsilon(mechanism: Mechanism, *, delta: float) -> float | None:
    """Returns the epsilon that the final model alone would have if losses were linear.

    Then the order of the steps does not matter, and the final model is the sum of all releases: a
    unit adds its Binomial(steps, rate) participations to Gaussian noise of variance steps. It is
    what an audit that sees the final model alone can hope to show, by heuristic: curved losses can
    leak more (Steinke et al. 2024, arXiv:2410.06186).

    Args:
        mechanism: a mechanism with Poisson sampling.
        delta: the delta of the claim.

    Returns:
        The larger epsilon of a unit that is removed and one that is added; None for other
        samplings, whose sums are those of every release.
    """
    checks.fraction(closed="neither", delta=delta)
    if mechanism.sampling != "poisson" or mechanism.adjacency == "replace_one":
        return None
    if not mechanism.steps:
        return 0.0
    if not mechanism.noise_multiplier:
        return math.inf
    participations = stats.binom(mechanism.steps, mechanism.rate)
    count = np.arange(participations.ppf(1e-16), participations.isf(1e-16) + 1)
    log_weight = participations.logpmf(count)
    # In units of the standard deviation of the noise.
    deviation = mechanism.noise_multiplier * math.sqrt(mechanism.steps)
    if count[-1] > LARGEST * deviation:
        return math.inf
    shift = count / deviation

    def log_ratio(x: float) -> float:
        """Returns the privacy loss at x, which rises with x."""
        return float(special.logsumexp(log_weight + shift * x - shift * shift / 2))

    def at(loss: float) -> float:
        """Returns the x whose privacy loss is `loss`; -inf or inf if there is none."""
        low, high = -60.0, 60.0 + float(shift[-1])
        if log_ratio(low) >= loss:
            return -math.inf
        if log_ratio(high) <= loss:
            return math.inf
        return float(optimize.brentq(lambda x: log_ratio(x) - loss, low, high, xtol=1e-12))

    def spent(epsilon: float) -> float:
        """Returns the larger delta(epsilon) of the two."""
        x, y = at(epsilon), at(-epsilon)
        with np.errstate(over="ignore"):
            factor = math.exp(min(epsilon, 700.0))
            weight = np.exp(log_weight)
            removed = weight @ special.ndtr(shift - x) - factor * special.ndtr(-x)
            added = special.ndtr(y) - factor * float(weight @ special.ndtr(y - shift))
        return max(float(removed), float(added))

    if spent(0.0) <= delta:
        return 0.0
    high = 1.0
    while spent(high) > delta:
        high *= 2
        if high > 700:
            return math.inf
    return float(optimize.brentq(lambda e: spent(e) - delta, 0.0, high, xtol=1e-9))


def to_json(result: Proven, *, pairs: int = 200) -> dict[str, list[float]]:
    """Returns some of the (epsilon, delta) pairs as plain values, from which bounds stay bounds.

    Those are kept whose envelope the rates from 1e-5 on need most: evenly many per tangent.
    """
    rates = np.geomspace(1e-6, 1.0, 4 * pairs)
    with np.errstate(over="ignore"):
        members = np.exp(result.epsilon) * rates[:, None] + result.remove
        others = 1 - np.exp(-result.epsilon) * (1 - rates[:, None] - result.add)
    touched = np.unique(np.append(members.argmin(1), others.argmin(1)))
    zero = int(np.searchsorted(result.epsilon, 0.0))
    step = -(-len(touched) // pairs)
    kept = np.unique(np.append(touched[::step], min(zero, len(result.epsilon) - 1)))
    return {name: [float(v) for v in value[kept]] for name, value in result._asdict().items()}


def from_json(pairs: Mapping) -> Proven:
    """Returns what `to_json` kept."""
    return Proven(*(np.asarray(pairs[name], np.float64) for name in Proven._fields))
