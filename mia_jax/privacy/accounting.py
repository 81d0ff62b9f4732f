"""From a mechanism to epsilon, and back to a noise multiplier or a number of steps: dp_accounting underneath, no jax."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize, special, stats

from mia_jax import checks
from mia_jax.privacy.mechanism import Mechanism

if TYPE_CHECKING:
    import dp_accounting  # below, inside the functions that need it: a quarter of a CPU second of every start that private runs alone should pay

ACCOUNTANTS = ("pld", "rdp", "gdp")
RELATIONS = dict(add_remove="ADD_OR_REMOVE_ONE", zero_out="REPLACE_SPECIAL", replace_one="REPLACE_ONE")  # dp_accounting.NeighboringRelation
APPROXIMATION = "approximation, not a guarantee"


def event(mechanism: Mechanism, *, accountant: str = "pld") -> dp_accounting.DpEvent:
    """The dp_accounting event of all steps; ValueError for a sampling and adjacency that no bound is known for.

    Poisson: subsampled Gaussian (truncated with a cap). Without replacement: likewise. Shuffled batches and balls in bins: a unit takes part once
    an epoch, so E epochs are E Gaussian releases without amplification (shuffled batches of fixed size have no add_remove neighbor; in balls in
    bins nobody else moves when a unit is added). The multiplier is noise / sensitivity; dp_accounting's PLD wants noise / C under replace_one.
    """
    import dp_accounting

    checks.one_of(ACCOUNTANTS, accountant=accountant)
    checks_pair(mechanism)
    if not mechanism.steps:
        return dp_accounting.NoOpDpEvent()
    multiplier = mechanism.noise_multiplier * (2 if accountant == "pld" and mechanism.adjacency == "replace_one" else 1)
    gaussian = dp_accounting.GaussianDpEvent(multiplier)
    n, q = mechanism.num_units, mechanism.rate
    if mechanism.sampling == "poisson":
        one = dp_accounting.PoissonSampledDpEvent(q, gaussian)
        if mechanism.cap is not None and mechanism.cap < n:
            one = dp_accounting.TruncatedSubsampledGaussianDpEvent(n, q, mechanism.cap, multiplier)
        return dp_accounting.SelfComposedDpEvent(one, mechanism.steps)
    if mechanism.sampling == "without_replacement":
        return dp_accounting.SelfComposedDpEvent(
            dp_accounting.SampledWithoutReplacementDpEvent(n, round(mechanism.expected_batch), gaussian), mechanism.steps
        )
    return dp_accounting.SelfComposedDpEvent(gaussian, mechanism.epochs)


def checks_pair(mechanism: Mechanism) -> None:
    """ValueError for a sampling and adjacency whose guarantee is not known, with the pairs that are."""
    sampling, adjacency = mechanism.sampling, mechanism.adjacency
    if sampling == "shuffle" and adjacency == "add_remove":
        raise ValueError(
            "sampling='shuffle' has no guarantee under adjacency='add_remove': batches have a fixed size, and one more unit moves all others. "
            "Use adjacency='zero_out' or 'replace_one', or sampling='poisson'."
        )
    if sampling == "without_replacement" and adjacency != "replace_one":
        raise ValueError(f"sampling='without_replacement' is accounted under adjacency='replace_one' alone, not {adjacency!r}.")
    if mechanism.microbatch > 1 and sampling == "poisson" and adjacency == "replace_one":
        raise ValueError("microbatch > 1 with Poisson sampling is accounted under adjacency='add_remove' or 'zero_out', not 'replace_one'.")


def epsilon(mechanism: Mechanism, *, delta: float, accountant: str = "pld") -> float:
    """The epsilon of (epsilon, delta)-DP after all steps: 0 after none, inf without noise.

    'pld': privacy loss distributions (upper bound, tight to 1e-4 a step); 'rdp': Renyi orders (looser upper bound); 'gdp': the central limit
    theorem for Gaussian DP, which can lie BELOW the truth: an approximation, not a guarantee. ValueError for an unsupported pair of sampling and
    adjacency (dp_accounting 0.6.0: RDP has no replace_one for Poisson and no truncated Poisson; PLD has no sampling without replacement).
    """
    checks.fraction(closed="neither", delta=delta)
    composed = event(mechanism, accountant=accountant)
    if not mechanism.steps:
        return 0.0
    if mechanism.noise_multiplier == 0:
        return math.inf
    if accountant == "gdp":
        return gaussian_epsilon(gdp_mu(mechanism), delta)
    return _composed_epsilon(composed, mechanism.adjacency, delta, accountant)


@functools.lru_cache(maxsize=4096)
def _composed_epsilon(composed, adjacency: str, delta: float, accountant: str) -> float:
    from dp_accounting import NeighboringRelation, pld, rdp

    make = pld.PLDAccountant if accountant == "pld" else rdp.RdpAccountant
    one = make(neighboring_relation=NeighboringRelation[RELATIONS[adjacency]])
    if not one.supports(composed):
        raise ValueError(
            f"accountant={accountant!r} does not support {_kind(composed)} under adjacency={adjacency!r} (dp_accounting {dp_accounting_version()}). "
            f"Use accountant={'rdp' if accountant == 'pld' else 'pld'!r} or another sampling."
        )
    if accountant == "pld" and _kind(composed) == "PoissonSampled":
        release = _poisson_release(composed.event.sampling_probability, composed.event.event.noise_multiplier, adjacency)
        return float(release.self_compose(composed.count).get_epsilon_for_delta(delta))
    with _quiet():
        return float(one.compose(composed).get_epsilon(delta))


@functools.lru_cache(maxsize=16)
def _poisson_release(rate: float, multiplier: float, adjacency: str):
    """The privacy loss of one step, as PLDAccountant has it: most of the time that an epsilon takes, and the same after every number of steps."""
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import privacy_loss_distribution as losses

    relation = NeighboringRelation[RELATIONS[adjacency]]
    common = dict(value_discretization_interval=1e-4, neighboring_relation=relation)
    return losses.from_gaussian_mechanism(standard_deviation=multiplier, sampling_prob=rate, **common)


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
    """mu of Gaussian DP. Poisson (central limit): q sqrt(T (exp(s^-2) - 1)); without replacement: sqrt(2 T) q sqrt(exp(s^-2) Phi(1.5/s) + 3
    Phi(-.5/s) - 2); shuffle and balls in bins (exact): sqrt(E) / s. (Bu et al. 2020, arXiv:1911.11607; Dong et al. 2022, arXiv:1905.02383.)
    """
    s, q, steps = mechanism.noise_multiplier, mechanism.rate, mechanism.steps
    if mechanism.sampling == "poisson":
        return q * math.sqrt(steps) * math.sqrt(math.expm1(min(s**-2, 700.0)))
    if mechanism.sampling == "without_replacement":
        inner = math.exp(min(s**-2, 700.0)) * stats.norm.cdf(1.5 / s) + 3 * stats.norm.cdf(-0.5 / s) - 2
        return q * math.sqrt(2 * steps * inner)
    return math.sqrt(mechanism.epochs) / s


def gaussian_delta(epsilon: float, mu: float) -> float:
    """delta(epsilon) of mu-GDP: Phi(-eps/mu + mu/2) - exp(eps) Phi(-eps/mu - mu/2), in log space. (Dong et al. 2022, corollary 2.13.)"""
    high, low = special.log_ndtr(-epsilon / mu + mu / 2), epsilon + special.log_ndtr(-epsilon / mu - mu / 2)
    return float(np.exp(high) * -np.expm1(min(low - high, 0.0)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The epsilon of mu-GDP at `delta`; 0 where delta alone is enough, inf where no float is large enough."""
    if mu == 0 or gaussian_delta(0.0, mu) <= delta:
        return 0.0
    high = 1.0
    while gaussian_delta(high, mu) > delta:
        high *= 2
        if high > 1e12:
            return math.inf
    return float(optimize.brentq(lambda e: gaussian_delta(e, mu) - delta, 0.0, high, xtol=1e-12, rtol=1e-12))


def noise_for(epsilon_wanted: float, mechanism: Mechanism, *, delta: float, accountant: str = "pld", tolerance: float = 1e-3) -> float:
    """The smallest noise multiplier (to `tolerance` of itself) whose epsilon after mechanism.steps is at most `epsilon_wanted`; never above it."""
    checks.positive(epsilon=epsilon_wanted)

    def fits(multiplier: float) -> bool:
        return epsilon(dataclasses.replace(mechanism, noise_multiplier=multiplier), delta=delta, accountant=accountant) <= epsilon_wanted

    low, high = 0.25, 0.5
    while not fits(high):
        low, high = high, 2 * high
        if high > 1e6:
            raise ValueError(f"no noise multiplier up to 1e6 gives epsilon <= {epsilon_wanted} at delta={delta}.")
    while low > 1e-2 and fits(low):
        low, high = low / 2, low
    while high - low > tolerance * high:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def steps_for(epsilon_wanted: float, mechanism: Mechanism, *, delta: float, accountant: str = "pld", most: int = 10**7) -> int:
    """The most steps whose epsilon is at most `epsilon_wanted` (0: not one fits), up to `most`; mechanism.steps plays no part."""
    checks.positive(epsilon=epsilon_wanted)
    return largest(lambda n: epsilon(mechanism.after(n), delta=delta, accountant=accountant) <= epsilon_wanted, most=most)


def epochs_for(epsilon_wanted: float, mechanism: Mechanism, *, delta: float, accountant: str = "pld", most: int) -> int:
    """The most whole epochs (of mechanism.epoch_steps) whose epsilon is at most `epsilon_wanted`, up to `most`."""
    per = mechanism.epoch_steps
    return largest(lambda n: epsilon(mechanism.after(n * per), delta=delta, accountant=accountant) <= epsilon_wanted, most=most)


def largest(fits: Callable[[int], bool], *, most: int) -> int:
    """The largest n in 0..most with fits(n), where fits is true up to some n and false beyond it; fits(0) is taken for true."""
    low, high = 0, 1
    while high <= most and fits(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
