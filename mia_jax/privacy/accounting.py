"""From a mechanism to epsilon, and back to a noise multiplier or a number of steps: dp_accounting
underneath, no jax.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import optimize, special, stats

from mia_jax import checks
from mia_jax.privacy import losses
from mia_jax.privacy.mechanism import Mechanism

if TYPE_CHECKING:
    # below, inside the functions that need it: a quarter of a CPU second of every start that
    # private runs alone should pay
    import dp_accounting

ACCOUNTANTS = ("pld", "rdp", "gdp")
RELATIONS = dict(
    add_remove="ADD_OR_REMOVE_ONE", zero_out="REPLACE_SPECIAL", replace_one="REPLACE_ONE"
)  # dp_accounting.NeighboringRelation
ROUNDED = 1e-13  # more than the rounding errors of one release's Renyi divergence
APPROXIMATION = "approximation, not a guarantee"


def event(mechanism: Mechanism, *, accountant: str = "pld") -> dp_accounting.DpEvent:
    """The dp_accounting event of all steps; ValueError for a sampling and adjacency that no bound
    is known for.

    Poisson: subsampled Gaussian (truncated with a cap). Without replacement: likewise. Shuffled
    batches and balls in bins: a unit takes part once an epoch, so E epochs are E Gaussian releases
    without amplification (shuffled batches of fixed size have no add_remove neighbor; in balls in
    bins nobody else moves when a unit is added). The multiplier is noise / sensitivity;
    dp_accounting's PLD wants noise / C under replace_one.
    """
    import dp_accounting

    checks.one_of(ACCOUNTANTS, accountant=accountant)
    checks_pair(mechanism)
    if not mechanism.steps:
        return dp_accounting.NoOpDpEvent()
    multiplier = mechanism.noise_multiplier * (
        2 if accountant == "pld" and mechanism.adjacency == "replace_one" else 1
    )
    gaussian = dp_accounting.GaussianDpEvent(multiplier)
    n, q = mechanism.num_units, mechanism.rate
    if mechanism.sampling == "poisson":
        one = dp_accounting.PoissonSampledDpEvent(q, gaussian)
        if mechanism.cap is not None and mechanism.cap < n:
            one = dp_accounting.TruncatedSubsampledGaussianDpEvent(n, q, mechanism.cap, multiplier)
        return dp_accounting.SelfComposedDpEvent(one, mechanism.steps)
    if mechanism.sampling == "without_replacement":
        return dp_accounting.SelfComposedDpEvent(
            dp_accounting.SampledWithoutReplacementDpEvent(
                n, round(mechanism.expected_batch), gaussian
            ),
            mechanism.steps,
        )
    return dp_accounting.SelfComposedDpEvent(gaussian, mechanism.epochs)


def checks_pair(mechanism: Mechanism) -> None:
    """ValueError for a sampling and adjacency whose guarantee is not known, with the pairs that
    are.
    """
    sampling, adjacency = mechanism.sampling, mechanism.adjacency
    if sampling == "shuffle" and adjacency == "add_remove":
        raise ValueError(
            "sampling='shuffle' has no guarantee under adjacency='add_remove': batches have a "
            "fixed size, and one more unit moves all others. "
            "Use adjacency='zero_out' or 'replace_one', or sampling='poisson'."
        )
    if sampling == "without_replacement" and adjacency != "replace_one":
        raise ValueError(
            "sampling='without_replacement' is accounted under adjacency='replace_one' alone, not "
            f"{adjacency!r}."
        )
    if mechanism.microbatch > 1 and sampling == "poisson" and adjacency == "replace_one":
        raise ValueError(
            "microbatch > 1 with Poisson sampling is accounted under adjacency='add_remove' or "
            "'zero_out', not 'replace_one'."
        )


class Bound(NamedTuple):
    """Epsilon, and the accountant whose number it is: the wanted one, or 'rdp' where that had no
    finite answer.
    """

    epsilon: float
    accountant: str


def epsilon(mechanism: Mechanism, *, delta: float, accountant: str = "pld") -> float:
    """The epsilon of (epsilon, delta)-DP after all steps: 0 after none, inf without noise.

    'pld': privacy loss distributions (upper bound, tight to 1e-4 a step; exact where no unit is
    sampled); 'rdp': Renyi orders (looser upper bound); 'gdp': the central limit theorem for
    Gaussian DP, which can lie BELOW the truth: an approximation, not a guarantee. Each takes about
    a CPU second at most, whatever the noise, the steps and delta (losses.py). ValueError for an
    unsupported pair of sampling and adjacency (dp_accounting 0.6.0: RDP has no replace_one for
    Poisson and no truncated Poisson; PLD has no sampling without replacement).
    """
    return bound(mechanism, delta=delta, accountant=accountant).epsilon


def bound(mechanism: Mechanism, *, delta: float, accountant: str = "pld") -> Bound:
    """`epsilon` with the accountant it is from: where 'pld' has no finite one (noise or delta at
    the end of what floats hold), RDP's, which is an upper bound too.
    """
    checks.fraction(closed="neither", delta=delta)
    composed = event(mechanism, accountant=accountant)
    if not mechanism.steps:
        return Bound(0.0, accountant)
    if mechanism.noise_multiplier == 0:
        return Bound(math.inf, accountant)
    if accountant == "gdp":
        return Bound(gaussian_epsilon(gdp_mu(mechanism), delta), accountant)
    found = _composed_epsilon(composed, mechanism.adjacency, delta, accountant)
    if accountant == "pld" and not math.isfinite(found):
        try:
            other = _composed_epsilon(
                event(mechanism, accountant="rdp"), mechanism.adjacency, delta, "rdp"
            )
        except ValueError:  # RDP does not support this pair
            return Bound(found, accountant)
        return Bound(other, "rdp") if math.isfinite(other) else Bound(found, accountant)
    return Bound(found, accountant)


@functools.lru_cache(maxsize=4096)
def _composed_epsilon(composed, adjacency: str, delta: float, accountant: str) -> float:
    from dp_accounting import NeighboringRelation, pld, rdp

    make = pld.PLDAccountant if accountant == "pld" else rdp.RdpAccountant
    one = make(neighboring_relation=NeighboringRelation[RELATIONS[adjacency]])
    if not one.supports(composed):
        raise ValueError(
            f"accountant={accountant!r} does not support {_kind(composed)} under "
            f"adjacency={adjacency!r} (dp_accounting {dp_accounting_version()}). "
            f"Use accountant={'rdp' if accountant == 'pld' else 'pld'!r} or another sampling."
        )
    if accountant == "rdp":
        return float(
            rdp.compute_epsilon(
                one.orders, composed.count * _renyi(composed.event, adjacency), delta
            )[0]
        )
    release, kind = composed.event, _kind(composed)
    if kind == "TruncatedSubsampledGaussian":
        rate, multiplier, sizes = (
            release.sampling_probability,
            release.noise_multiplier,
            (release.dataset_size, release.truncated_batch_size),
        )
    else:
        gaussian = release.event if kind == "PoissonSampled" else release
        rate, multiplier, sizes = (
            getattr(release, "sampling_probability", 1.0),
            gaussian.noise_multiplier,
            (0, 0),
        )
        if (
            rate == 1
        ):  # nobody is sampled: composed Gaussian releases are one, whose epsilon has a closed form
            return gaussian_epsilon(
                math.sqrt(composed.count) * (2 if adjacency == "replace_one" else 1) / multiplier,
                delta,
            )
    sizes = dict(units=sizes[0], cap=sizes[1])
    return losses.epsilon(
        rate=rate,
        multiplier=multiplier,
        relation=RELATIONS[adjacency],
        steps=composed.count,
        delta=delta,
        **sizes,
    )


@functools.lru_cache(maxsize=64)
def _renyi(release, adjacency: str) -> np.ndarray:
    """The Renyi divergences of one release at the accountant's orders: most of the time that an
    epsilon takes, and the same after every step.

    Infinite where floats do not hold them, and never below what rounding errors could hide.
    """
    from dp_accounting import NeighboringRelation, rdp

    one = rdp.RdpAccountant(neighboring_relation=NeighboringRelation[RELATIONS[adjacency]])
    try:
        with _quiet(), np.errstate(all="ignore"):
            found = np.array(one.compose(release).rdp)
    except (OverflowError, ZeroDivisionError):
        found = np.full(len(one.orders), math.nan)
    return np.where(
        np.isnan(found), math.inf, np.maximum(found, ROUNDED)
    )  # dp_accounting takes NaN and negative ones for an epsilon of 0


def _kind(composed) -> str:
    return type(getattr(composed, "event", composed)).__name__.removesuffix("DpEvent")


def dp_accounting_version() -> str:
    """The installed version, for messages and reports."""
    return metadata.version("dp-accounting")


@contextlib.contextmanager
def _quiet():
    """RDP says in the log which orders did not converge; leaving them out is merely looser."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def gdp_mu(mechanism: Mechanism) -> float:
    """mu of Gaussian DP.

    Poisson (central limit): q sqrt(T (exp(s^-2) - 1)); without replacement: sqrt(2 T) q
    sqrt(exp(s^-2) Phi(1.5/s) + 3 Phi(-.5/s) - 2); shuffle and balls in bins (exact): sqrt(E) / s.
    (Bu et al. 2020, arXiv:1911.11607; Dong et al. 2022, arXiv:1905.02383.)
    """
    s, q, steps = mechanism.noise_multiplier, mechanism.rate, mechanism.steps
    if mechanism.sampling == "poisson":
        return q * math.sqrt(steps) * math.sqrt(math.expm1(min(1 / s / s, 700.0)))
    if mechanism.sampling == "without_replacement":
        inner = (
            math.exp(min(1 / s / s, 700.0)) * stats.norm.cdf(1.5 / s)
            + 3 * stats.norm.cdf(-0.5 / s)
            - 2
        )
        return q * math.sqrt(2 * steps * inner)
    return math.sqrt(mechanism.epochs) / s


def gaussian_delta(epsilon: float, mu: float) -> float:
    """delta(epsilon) of mu-GDP: Phi(-eps/mu + mu/2) - exp(eps) Phi(-eps/mu - mu/2), in log space.

    (Dong et al. 2022, corollary 2.13.)
    """
    high, low = (
        special.log_ndtr(-epsilon / mu + mu / 2),
        epsilon + special.log_ndtr(-epsilon / mu - mu / 2),
    )
    return float(np.exp(high) * -np.expm1(min(low - high, 0.0)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The epsilon of mu-GDP at `delta`; 0 where delta alone is enough, inf where no float is large
    enough.
    """
    if mu == 0 or gaussian_delta(0.0, mu) <= delta:
        return 0.0
    high = 1.0
    while gaussian_delta(high, mu) > delta:
        high *= 2
        if high > 1e12:
            return math.inf
    return float(
        optimize.brentq(lambda e: gaussian_delta(e, mu) - delta, 0.0, high, xtol=1e-12, rtol=1e-12)
    )


def noise_for(
    epsilon_wanted: float,
    mechanism: Mechanism,
    *,
    delta: float,
    accountant: str = "pld",
    tolerance: float = 1e-3,
) -> float:
    """The smallest noise multiplier (to `tolerance` of itself) whose epsilon after mechanism.steps
    is at most `epsilon_wanted`; never above it.

    Between .0078 and 1e6, chosen by 12 to 32 epsilons. ValueError, with the epsilon of 1e6, if that
    is not enough noise.
    """
    checks.positive(epsilon=epsilon_wanted)

    def fits(multiplier: float) -> bool:
        return (
            epsilon(
                dataclasses.replace(mechanism, noise_multiplier=multiplier),
                delta=delta,
                accountant=accountant,
            )
            <= epsilon_wanted
        )

    low, high = 0.25, 0.5
    while not fits(high):
        low, high = high, 2 * high
        if high > 1e6:
            least = epsilon(
                dataclasses.replace(mechanism, noise_multiplier=1e6),
                delta=delta,
                accountant=accountant,
            )
            raise ValueError(
                f"no noise multiplier up to 1e6 gives epsilon <= {epsilon_wanted} at delta={delta} "
                f"after {mechanism.steps} steps: 1e6 gives "
                f"{least:.3g}. Raise epsilon or delta, or take fewer steps."
            )
    while low > 1e-2 and fits(low):
        low, high = low / 2, low
    while high - low > tolerance * high:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def steps_for(
    epsilon_wanted: float,
    mechanism: Mechanism,
    *,
    delta: float,
    accountant: str = "pld",
    most: int = 10**7,
) -> int:
    """The most steps whose epsilon is at most `epsilon_wanted` (0: not one fits), up to `most`;
    mechanism.steps plays no part.
    """
    checks.positive(epsilon=epsilon_wanted)
    return largest(
        lambda n: epsilon(mechanism.after(n), delta=delta, accountant=accountant) <= epsilon_wanted,
        most=most,
    )


def epochs_for(
    epsilon_wanted: float, mechanism: Mechanism, *, delta: float, accountant: str = "pld", most: int
) -> int:
    """The most whole epochs (of mechanism.epoch_steps) whose epsilon is at most `epsilon_wanted`,
    up to `most`.
    """
    per = mechanism.epoch_steps
    return largest(
        lambda n: (
            epsilon(mechanism.after(n * per), delta=delta, accountant=accountant) <= epsilon_wanted
        ),
        most=most,
    )


def largest(fits: Callable[[int], bool], *, most: int) -> int:
    """The largest n in 0..most with fits(n), where fits is true up to some n and false beyond it;
    fits(0) is taken for true.
    """
    low, high = 0, 1
    while high <= most and fits(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
