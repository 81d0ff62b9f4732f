"""The privacy loss of many equal releases, in bounded time and memory and at any delta. No jax.

The loss of one release comes from dp_accounting: its probabilities on a grid, rounded so that every
delta read off them is an upper bound ("Connect the Dots", Doroshenko et al. 2022,
arXiv:2207.04380). A grid is as fine as dp_accounting's default where that is affordable, and
coarser where it is not, which makes the bound looser, never wrong.

Their composition is a power of a Fourier transform. Its rounding errors, 1e-16 of the largest
probability, would swamp the tail that a small delta asks about, so the probabilities are first
multiplied by exp(tilt * loss) and normalized, which moves the bulk to the epsilon in question, and
what comes back is divided again; the errors are then relative to delta. What lies beyond the window
of the transform, and a bound on the rounding errors, are added to delta.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from scipy import fft, optimize, special

FINE = 1e-4  # steps of the grid where it is affordable: dp_accounting's default
CELLS = 2**17  # at most so many probabilities of one release: half a CPU second and 100 MB
FEWEST = 2**12  # at least so many
COARSE = 256.0  # steps at most: dp_accounting takes e to this power
WINDOW = (
    2**21
    # at most so many of the composition: one Fourier transform of .2 CPU seconds, between two of
    # which
    # Python hears signals
)
# log of the probability of the tail of one release that counts as an infinite loss: dp_accounting's
# default
FLOOR = -50.0
POOLED = 2**13  # cells on which tilt and window are chosen
NEGLIGIBLE = -23.0  # log 1e-10
EPS = float(np.finfo(np.float64).eps)


class TooFine(Exception):
    """The composition does not fit into WINDOW on this grid; the argument says how many times
    larger it is.
    """


class Release(NamedTuple):
    """Of one release: P(loss = (low + i) * interval) = prob[i], and P(loss = inf) = infinite."""

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
    """An upper bound on epsilon at `delta` after `steps` Poisson-subsampled Gaussian releases; inf
    where delta is below what floats resolve.

    `relation` is the name of a dp_accounting.NeighboringRelation, `multiplier` noise / C. With
    `cap` > 0, at most so many of `units` take part in a release.
    """
    wanted = (
        math.log(delta) - math.log(steps) - 7
    )  # the infinite losses of all steps together are a thousandth of delta at most
    floor = FLOOR if wanted >= FLOOR else max(-740.0, 25.0 * math.floor(wanted / 25))
    common = dict(
        rate=rate, multiplier=multiplier, relation=relation, floor=floor, units=units, cap=cap
    )
    interval, widest = FINE, width(**common)
    while CELLS * interval < widest <= CELLS * COARSE:
        interval *= 2
    while 0 < widest < FEWEST * interval:  # much noise: losses that FINE would not resolve
        interval /= 2
    while True:
        parts = releases(**common, interval=interval) if widest <= CELLS * COARSE else ()
        if (
            not all(one.infinite + one.prob.sum() > 1 - 1e-6 for one in parts) or not parts
        ):  # NaN: where floats do not hold them
            return math.inf
        try:
            return max(composed(one, steps=steps, delta=delta) for one in parts)
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
    """The losses of one release on the grid of `interval`, for a unit that is removed and one that
    is added (once where they are the same).
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
        found = make(**common)
    dense = [
        pmf.to_dense_pmf()
        for pmf in (
            (found._pmf_remove,) if found._symmetric else (found._pmf_remove, found._pmf_add)
        )
    ]
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
    """How far the smallest and the largest finite loss of a release lie apart, nearly; inf where
    floats do not hold them.
    """
    from dp_accounting.pld import privacy_loss_mechanism as mechanisms

    kinds = mechanisms.AdjacencyType
    chosen = [
        (multiplier, kind)
        for kind in ((kinds.REPLACE,) if relation == "REPLACE_ONE" else (kinds.REMOVE, kinds.ADD))
    ]
    chosen += (
        [(multiplier / 2, kinds.REPLACE)] if cap else []
    )  # beyond the cap a unit also displaces another one
    common = dict(sampling_prob=rate, log_mass_truncation_bound=floor)
    try:
        with np.errstate(all="ignore"):
            bounds = [
                mechanisms.GaussianPrivacyLoss(
                    deviation, adjacency_type=kind, **common
                ).connect_dots_bounds()
                for deviation, kind in chosen
            ]
            widest = max(float(one.epsilon_upper - one.epsilon_lower) for one in bounds)
    except (OverflowError, ZeroDivisionError, ValueError):
        return math.inf
    return widest if math.isfinite(widest) else math.inf


def composed(one: Release, *, steps: int, delta: float) -> float:
    """The smallest epsilon >= 0 with E (1 - e^(epsilon - loss))_+ <= delta for the loss of `steps`
    releases together, rounded up.

    inf where infinite losses alone exceed delta. Raises TooFine where the composition does not fit
    into WINDOW and a coarser grid can help.
    """
    left = delta + math.expm1(steps * math.log1p(-one.infinite))
    if left <= 0:
        return math.inf
    loss, log_prob, pooled, log_pooled = _logs(one)
    log_left = math.log(left)

    def exact(t: float) -> float:
        """log E exp(t loss) of one release."""
        return float(special.logsumexp(log_prob + t * loss))

    def moment(t: float) -> float:
        """The same, nearly, in a tenth of the time: enough to choose by."""
        return float(special.logsumexp(log_pooled + t * pooled))

    def exceeded(log_t: float, log_mass: float, moment=moment) -> float:
        """The loss that all releases together exceed with a probability of exp(log_mass) at most,
        by the moment of order exp(log_t) (Chernoff).
        """
        t = math.exp(log_t)
        return (steps * moment(t) - log_mass) / t

    def renyi(log_t: float, moment=moment) -> float:
        """epsilon by that moment, as from Renyi DP.

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
    beyond = log_left + NEGLIGIBLE  # the share of delta that may lie above the window
    high = exceeded(_smallest(lambda log_t: exceeded(log_t, beyond), orders), beyond, exact)
    high = max(
        high, min((steps * (moment(tilt + s) - moment(tilt)) - NEGLIGIBLE) / s for s in away)
    )  # and of what is tilted
    low = min(
        bound, max((NEGLIGIBLE - steps * (moment(tilt - s) - moment(tilt))) / s for s in away)
    )
    first, last = math.floor(low / one.interval) - 1, math.ceil(high / one.interval) + 1
    if last - first + 1 > WINDOW:
        if 2 * one.interval > COARSE:
            return bound  # an upper bound too, by one moment
        raise TooFine(min((last - first + 1) / (WINDOW - 4), COARSE / one.interval))
    size = fft.next_fast_len(last - first + 1, real=True)
    log_moment = exact(tilt)
    tilted = np.exp(log_prob + tilt * loss - log_moment)
    tilted = (
        np.pad(tilted, (0, -len(tilted) % size)).reshape(-1, size).sum(0)
    )  # the transform is periodic
    with np.errstate(all="ignore"):
        spectrum = fft.rfft(tilted)
        power = fft.irfft(spectrum**steps, size)
        # errors of a transform's entries are below u log2(size) sum|p|; of their powers and of what
        # comes back, in the Euclidean norm:
        rounding = (
            4
            * EPS
            * math.log2(size)
            * steps
            * math.sqrt(np.mean(np.abs(spectrum) ** (2 * steps - 2)))
        )
    power = np.maximum(np.roll(power, -((first - steps * one.low) % size)), 0)
    ahead = (first + np.arange(size)) * one.interval - bound
    kept = np.flatnonzero(
        (1 + tilt) * ahead > -600
    )  # e^600 is a float; what lies so far below the bound plays no part
    ahead, power = ahead[kept[0] :], power[kept[0] :]
    with np.errstate(under="ignore"):
        weight = np.exp(-tilt * ahead)
        upper = np.cumsum((power * weight)[::-1])[::-1] * (
            1 + EPS * size
        ) + rounding * weight / math.sqrt(-math.expm1(-2 * tilt * one.interval))
        lower = np.cumsum((power * np.exp(-(1 + tilt) * ahead))[::-1])[::-1] * (1 - EPS * size)
    allowed = math.exp(
        min(700.0, math.log(left) - 2e-10 - steps * log_moment + tilt * bound)
    )  # delta in the units of `upper`
    fits = np.flatnonzero(upper - np.exp(np.minimum(ahead, 600)) * lower <= allowed)
    if not len(fits):
        return max(0.0, bound)
    at = fits[0]
    between = (
        at > 0 and lower[at] > 0 and upper[at] > allowed
    )  # else the whole window will do, or floats end: the loss of the cell is above epsilon
    return float(
        max(
            0.0,
            min(
                bound,
                bound + (math.log((upper[at] - allowed) / lower[at]) if between else ahead[at]),
            ),
        )
    )


def _logs(one: Release) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(losses, log probabilities) of the cells, and the same of at most POOLED pools of neighbors,
    with the mean loss of each.
    """
    with np.errstate(divide="ignore"):
        loss, log_prob = (one.low + np.arange(len(one.prob))) * one.interval, np.log(one.prob)
        each = -(-len(one.prob) // POOLED)
        pools = lambda a: np.pad(a, (0, -len(a) % each)).reshape(-1, each).sum(1)  # noqa: E731
        pooled = pools(one.prob)
        return (
            loss,
            log_prob,
            pools(one.prob * loss) / np.where(pooled > 0, pooled, 1),
            np.log(pooled),
        )


def _smallest(function, orders: np.ndarray) -> float:
    """Where `function` is smallest, nearly: on a grid, then between the neighbors of the best
    point.
    """
    values = np.array([function(order) for order in orders])
    at = int(np.argmin(np.where(np.isnan(values), np.inf, values)))
    between = (orders[max(0, at - 1)], orders[min(len(orders) - 1, at + 1)])
    found = optimize.minimize_scalar(
        function, bounds=between, method="bounded", options=dict(xatol=1e-2)
    )
    return float(found.x) if found.fun <= values[at] else float(orders[at])
