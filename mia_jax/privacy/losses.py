"""Computes the privacy loss of many equal releases, in bounded time and memory and at any delta.

The privacy loss of one release comes from dp_accounting. It is a distribution on a grid, rounded so
that every delta computed from it is an upper bound ("Connect the Dots", Doroshenko et al. 2022,
arXiv:2207.04380). The grid is as fine as dp_accounting's default where that is affordable.
Otherwise it is coarser, which makes the bound looser but never wrong.

The loss of many releases together is a sum of independent losses. Its distribution is computed as a
power of a Fourier transform. The rounding errors of the transform are about 1e-16 of the largest
probability, which would hide the tail that determines a small delta. Therefore the probabilities
are first multiplied by exp(tilt * loss) and normalized, which moves the bulk of the distribution to
the epsilon of interest. The result is divided by the same factors. The errors are then relative to
delta. The probability outside the window of the transform, and a bound on the rounding errors, are
added to delta.

This file does not use jax.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from scipy import fft, optimize, special

FINE = 1e-4  # The step of the grid where it is affordable: dp_accounting's default.
CELLS = 2**17  # The most probabilities of one release: half a CPU second and 100 MB.
FEWEST = 2**12  # The fewest probabilities of one release.
COARSE = 256.0  # The largest step of the grid: dp_accounting computes e to this power.
# The most probabilities of the composition. One Fourier transform takes 0.2 CPU seconds, and Python
# can handle signals between two of them.
WINDOW = 2**21
# The log probability of the tail of one release that counts as an infinite loss: dp_accounting's
# default.
FLOOR = -50.0
POOLED = 2**13  # The number of cells on which tilt and window are chosen.
NEGLIGIBLE = -23.0  # log 1e-10
EPS = float(np.finfo(np.float64).eps)


class TooFine(Exception):
    """Says that the composition does not fit into WINDOW on this grid.

    Its argument is the factor by which it is too large.
    """


class Release(NamedTuple):
    """Holds the distribution of the privacy loss of one release.

    P(loss = (low + i) * interval) = prob[i], and P(loss = inf) = infinite.
    """

    low: int
    prob: np.ndarray
    infinite: float
    interval: float


def epsilon(
    *,
    rate: float,
    multiplier: float,
    relation: str,
    steps: int,
    delta: float,
    units: int = 0,
    cap: int = 0,
) -> float:
    """Returns an upper bound on epsilon after `steps` Poisson-subsampled Gaussian releases.

    It is inf if delta is smaller than what floats resolve.

    Args:
        rate: the probability that a unit takes part in a release.
        multiplier: noise / C.
        relation: the name of a dp_accounting.NeighboringRelation.
        steps: the number of releases.
        delta: the delta of the claim.
        units: the number of units, if there is a cap.
        cap: the largest number of units that take part in a release; 0 for no limit.
    """
    # With this floor, the infinite losses of all steps together are at most a thousandth of delta.
    needed = math.log(delta) - math.log(steps) - 7
    floor = FLOOR if needed >= FLOOR else max(-740.0, 25.0 * math.floor(needed / 25))
    common = dict(
        rate=rate, multiplier=multiplier, relation=relation, floor=floor, units=units, cap=cap
    )
    interval, widest = FINE, width(**common)
    while CELLS * interval < widest <= CELLS * COARSE:
        interval *= 2
    while 0 < widest < FEWEST * interval:  # With much noise FINE does not resolve the losses.
        interval /= 2
    while True:
        parts = releases(**common, interval=interval) if widest <= CELLS * COARSE else ()
        # The probabilities are NaN if floats cannot represent them.
        if not all(part.infinite + part.prob.sum() > 1 - 1e-6 for part in parts) or not parts:
            return math.inf
        try:
            return max(composed(part, steps=steps, delta=delta) for part in parts)
        except TooFine as error:
            interval *= 2 ** math.ceil(math.log2(error.args[0]))


@functools.lru_cache(maxsize=16)
def releases(
    *,
    rate: float,
    multiplier: float,
    relation: str,
    floor: float,
    units: int,
    cap: int,
    interval: float,
) -> tuple[Release, ...]:
    """Returns the losses of one release on the grid of `interval`.

    There is one for a unit that is removed and one for a unit that is added, or only one if they
    are the same.
    """
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import privacy_loss_distribution as losses

    common = dict(
        value_discretization_interval=interval,
        neighboring_relation=NeighboringRelation[relation],
        log_mass_truncation_bound=floor,
    )
    if cap:
        sizes = dict(dataset_size=units, truncated_batch_size=cap)
        make = functools.partial(
            losses.from_truncated_subsampled_gaussian_mechanism,
            sampling_probability=rate,
            noise_multiplier=multiplier,
            **sizes,
        )
    else:
        make = functools.partial(
            losses.from_gaussian_mechanism, standard_deviation=multiplier, sampling_prob=rate
        )
    with np.errstate(all="ignore"):
        distribution = make(**common)
    directions = [distribution._pmf_remove]
    if not distribution._symmetric:
        directions.append(distribution._pmf_add)
    dense = [pmf.to_dense_pmf() for pmf in directions]
    return tuple(
        Release(
            int(pmf._lower_loss),
            np.asarray(pmf._probs, np.float64),
            float(pmf._infinity_mass),
            interval,
        )
        for pmf in dense
    )


@functools.lru_cache(maxsize=64)
def width(
    *, rate: float, multiplier: float, relation: str, floor: float, units: int, cap: int
) -> float:
    """Returns about the distance between the smallest and the largest finite loss of a release.

    It is inf if floats cannot represent the losses.
    """
    from dp_accounting.pld import privacy_loss_mechanism as mechanisms

    kinds = mechanisms.AdjacencyType
    chosen = [
        (multiplier, kind)
        for kind in ((kinds.REPLACE,) if relation == "REPLACE_ONE" else (kinds.REMOVE, kinds.ADD))
    ]
    if cap:  # Beyond the cap a unit also displaces another one.
        chosen += [(multiplier / 2, kinds.REPLACE)]
    common = dict(sampling_prob=rate, log_mass_truncation_bound=floor)
    try:
        with np.errstate(all="ignore"):
            bounds = [
                mechanisms.GaussianPrivacyLoss(
                    deviation, adjacency_type=kind, **common
                ).connect_dots_bounds()
                for deviation, kind in chosen
            ]
            widest = max(float(bound.epsilon_upper - bound.epsilon_lower) for bound in bounds)
    except (OverflowError, ZeroDivisionError, ValueError):
        return math.inf
    return widest if math.isfinite(widest) else math.inf


def composed(release: Release, *, steps: int, delta: float) -> float:
    """Returns the epsilon of `steps` releases together, rounded up.

    It is the smallest epsilon >= 0 with E (1 - e^(epsilon - loss))_+ <= delta for the sum of the
    losses, and inf if the infinite losses alone exceed delta.

    Raises:
        TooFine: if the composition does not fit into WINDOW and a coarser grid can help.
    """
    left = delta + math.expm1(steps * math.log1p(-release.infinite))
    if left <= 0:
        return math.inf
    loss, log_prob, pooled, log_pooled = _logs(release)
    log_left = math.log(left)

    def exact(t: float) -> float:
        """Returns log E exp(t loss) of one release."""
        return float(special.logsumexp(log_prob + t * loss))

    def moment(t: float) -> float:
        """Returns about the same in a tenth of the time, which is accurate enough for choices."""
        return float(special.logsumexp(log_pooled + t * pooled))

    def exceeded(log_t: float, log_mass: float, moment=moment) -> float:
        """Returns a loss that the sum exceeds with a probability of at most exp(log_mass).

        It is Chernoff's bound from the moment of order exp(log_t).
        """
        t = math.exp(log_t)
        return (steps * moment(t) - log_mass) / t

    def renyi(log_t: float, moment=moment) -> float:
        """Returns the epsilon from that moment, as Renyi DP computes it.

        (Canonne et al. 2020, arXiv:2004.00010, proposition 12.)
        """
        t = math.exp(log_t)
        return exceeded(log_t, log_left, moment) + math.log(t / (1 + t)) - math.log1p(t) / t

    spread = math.log(max(float(pooled[-1] - pooled[0]), 1e-300))
    orders = np.linspace(-math.log(steps) - 6 - spread, 9 + max(0.0, -spread), 48)
    log_t = _smallest(renyi, orders)
    tilt, bound = math.exp(log_t), renyi(log_t, exact)
    if bound <= 0:
        return 0.0
    away = np.exp(log_t + np.linspace(-12, 6, 37))
    beyond = log_left + NEGLIGIBLE  # The log probability that may be above the window.
    high = exceeded(_smallest(lambda log_t: exceeded(log_t, beyond), orders), beyond, exact)
    # The window must also contain the tilted distribution.
    high = max(
        high, min((steps * (moment(tilt + s) - moment(tilt)) - NEGLIGIBLE) / s for s in away)
    )
    low = min(
        bound, max((NEGLIGIBLE - steps * (moment(tilt - s) - moment(tilt))) / s for s in away)
    )
    first, last = math.floor(low / release.interval) - 1, math.ceil(high / release.interval) + 1
    if last - first + 1 > WINDOW:
        if 2 * release.interval > COARSE:
            return bound  # This is an upper bound as well, from a single moment.
        raise TooFine(min((last - first + 1) / (WINDOW - 4), COARSE / release.interval))
    size = fft.next_fast_len(last - first + 1, real=True)
    log_moment = exact(tilt)
    tilted = np.exp(log_prob + tilt * loss - log_moment)
    # The transform is periodic, so probabilities one period apart are added.
    tilted = np.pad(tilted, (0, -len(tilted) % size)).reshape(-1, size).sum(0)
    with np.errstate(all="ignore"):
        spectrum = fft.rfft(tilted)
        power = fft.irfft(spectrum**steps, size)
        # The errors of the entries of a transform are below u log2(size) sum|p|. This bounds the
        # errors of their powers and of the inverse transform in the Euclidean norm.
        rounding = (
            4
            * EPS
            * math.log2(size)
            * steps
            * math.sqrt(np.mean(np.abs(spectrum) ** (2 * steps - 2)))
        )
    power = np.maximum(np.roll(power, -((first - steps * release.low) % size)), 0)
    ahead = (first + np.arange(size)) * release.interval - bound
    # e^600 is still a float, and losses further below the bound do not matter.
    kept = np.flatnonzero((1 + tilt) * ahead > -600)
    ahead, power = ahead[kept[0] :], power[kept[0] :]
    with np.errstate(under="ignore"):
        weight = np.exp(-tilt * ahead)
        upper = np.cumsum((power * weight)[::-1])[::-1] * (
            1 + EPS * size
        ) + rounding * weight / math.sqrt(-math.expm1(-2 * tilt * release.interval))
        lower = np.cumsum((power * np.exp(-(1 + tilt) * ahead))[::-1])[::-1] * (1 - EPS * size)
    # delta in the units of `upper`.
    allowed = math.exp(min(700.0, math.log(left) - 2e-10 - steps * log_moment + tilt * bound))
    fits = np.flatnonzero(upper - np.exp(np.minimum(ahead, 600)) * lower <= allowed)
    if not len(fits):
        return max(0.0, bound)
    at = fits[0]
    # Epsilon is between two cells, unless the whole window satisfies delta or floats underflow. In
    # those cases the loss of the cell is an upper bound.
    between = at > 0 and lower[at] > 0 and upper[at] > allowed
    offset = math.log((upper[at] - allowed) / lower[at]) if between else ahead[at]
    return float(max(0.0, min(bound, bound + offset)))


def _logs(release: Release) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns (losses, log probabilities, pooled losses, log pooled probabilities) of a release.

    The pools are at most POOLED groups of neighboring cells; the loss of a pool is its mean loss.
    """
    with np.errstate(divide="ignore"):
        loss, log_prob = (
            (release.low + np.arange(len(release.prob))) * release.interval,
            np.log(release.prob),
        )
        each = -(-len(release.prob) // POOLED)
        pools = lambda a: np.pad(a, (0, -len(a) % each)).reshape(-1, each).sum(1)  # noqa: E731
        pooled = pools(release.prob)
        return (
            loss,
            log_prob,
            pools(release.prob * loss) / np.where(pooled > 0, pooled, 1),
            np.log(pooled),
        )


def _smallest(function, orders: np.ndarray) -> float:
    """Returns about where `function` is smallest.

    It is searched on a grid, then between the neighbors of the best point.
    """
    values = np.array([function(order) for order in orders])
    at = int(np.argmin(np.where(np.isnan(values), np.inf, values)))
    between = (orders[max(0, at - 1)], orders[min(len(orders) - 1, at + 1)])
    refined = optimize.minimize_scalar(
        function, bounds=between, method="bounded", options=dict(xatol=1e-2)
    )
    return float(refined.x) if refined.fun <= values[at] else float(orders[at])


class Total(NamedTuple):
    """Holds the distribution of the privacy loss of all releases together, rounded up.

    Attributes:
        loss: the losses, rising.
        prob: their probabilities.
        infinite: the probability of an infinite loss, to which everything is added that is outside
            of `loss` or may be a rounding error.
    """

    loss: np.ndarray
    prob: np.ndarray
    infinite: float

    def delta(self, epsilon: np.ndarray) -> np.ndarray:
        """Returns E (1 - e^(epsilon - loss))_+ for epsilons of either sign."""
        epsilon = np.asarray(epsilon, np.float64)
        above = np.append(np.cumsum(self.prob[::-1])[::-1], 0.0)
        # e^-loss in units of e^-(largest loss below 0), so that no term overflows.
        least = self.loss[0]
        scaled = self.prob * np.exp(np.maximum(least - self.loss, -700.0))
        weighted = np.append(np.cumsum(scaled[::-1])[::-1], 0.0)
        at = np.searchsorted(self.loss, epsilon, side="right")
        with np.errstate(over="ignore"):
            lower = np.exp(np.minimum(epsilon - least, 700.0)) * weighted[at]
        return np.minimum(np.maximum(above[at] - lower, 0.0) + self.infinite, 1.0)


def totals(
    *, rate: float, multiplier: float, relation: str, steps: int, units: int = 0, cap: int = 0
) -> tuple[Total, ...]:
    """Returns the loss of all releases, for a unit that is removed and for one that is added.

    There is one if both are the same. In contrast to `composed`, which computes one epsilon however
    small its delta is, the whole distribution is returned, up to probabilities of 1e-13.

    Args:
        rate: the probability that a unit takes part in a release.
        multiplier: noise / C.
        relation: the name of a dp_accounting.NeighboringRelation.
        steps: the number of releases.
        units: the number of units, if there is a cap.
        cap: the largest number of units that take part in a release; 0 for no limit.
    """
    common = dict(
        rate=rate, multiplier=multiplier, relation=relation, floor=FLOOR, units=units, cap=cap
    )
    interval, widest = FINE, width(**common)
    while CELLS * interval < widest <= CELLS * COARSE:
        interval *= 2
    while 0 < widest < FEWEST * interval:
        interval /= 2
    if not widest <= CELLS * COARSE:
        return (Total(np.zeros(1), np.zeros(1), 1.0),)
    while True:
        try:
            parts = releases(**common, interval=interval)
            return tuple(_total(part, steps=steps) for part in parts)
        except TooFine as error:
            interval *= 2 ** math.ceil(math.log2(error.args[0]))


def _total(release: Release, *, steps: int) -> Total:
    """Returns the sum of the losses of `steps` equal releases.

    Raises:
        TooFine: if it does not fit into WINDOW and a coarser grid can help.
    """
    if not release.infinite + release.prob.sum() > 1 - 1e-6:
        return Total(np.zeros(1), np.zeros(1), 1.0)
    _, _, pooled, log_pooled = _logs(release)
    beyond = math.log(1e-13)

    def end(sign: float) -> float:
        """Returns a loss that the sum passes in this direction with a probability of 1e-13."""

        def exceeded(log_t: float) -> float:
            t = math.exp(log_t)
            moment = float(special.logsumexp(log_pooled + sign * t * pooled))
            return (steps * moment - beyond) / t

        spread = math.log(max(float(pooled[-1] - pooled[0]), 1e-300))
        orders = np.linspace(-math.log(steps) - 6 - spread, 9 + max(0.0, -spread), 48)
        return sign * exceeded(_smallest(exceeded, orders))

    last = math.ceil(end(1.0) / release.interval) + 1
    first = math.floor(end(-1.0) / release.interval) - 1
    if last - first + 1 > WINDOW:
        if 2 * release.interval > COARSE:
            return Total(np.zeros(1), np.zeros(1), 1.0)
        raise TooFine(min((last - first + 1) / (WINDOW - 4), COARSE / release.interval))
    size = fft.next_fast_len(last - first + 1, real=True)
    prob = np.pad(release.prob, (0, -len(release.prob) % size)).reshape(-1, size).sum(0)
    spectrum = fft.rfft(prob)
    power = fft.irfft(spectrum**steps, size)
    rounding = (
        4 * EPS * math.log2(size) * steps * math.sqrt(np.mean(np.abs(spectrum) ** (2 * steps - 2)))
    )
    power = np.maximum(np.roll(power, -((first - steps * release.low) % size)), 0)
    infinite = -math.expm1(steps * math.log1p(-release.infinite)) + 2e-13
    # The Euclidean norm of the errors bounds their sum by sqrt(size) times as much.
    infinite = min(1.0, infinite + rounding * math.sqrt(size))
    return Total((first + np.arange(size)) * release.interval, power, infinite)
