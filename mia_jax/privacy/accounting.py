"""Computes epsilon from a mechanism, and a noise multiplier or a number of steps from an epsilon.

dp_accounting does the accounting. This file does not use jax.
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
    # Imported inside the functions that need it: the import takes a quarter of a CPU second, which
    # only private runs should pay.
    import dp_accounting

ACCOUNTANTS = ("pld", "rdp", "gdp")
# The names of dp_accounting.NeighboringRelation.
RELATIONS = dict(
    add_remove="ADD_OR_REMOVE_ONE", zero_out="REPLACE_SPECIAL", replace_one="REPLACE_ONE"
)
ROUNDED = 1e-13  # Larger than the rounding errors of one release's Renyi divergence.
APPROXIMATION = "approximation, not a guarantee"


def event(mechanism: Mechanism, *, accountant: str = "pld") -> dp_accounting.DpEvent:
    """Returns the dp_accounting event of all steps.

    - Poisson sampling: subsampled Gaussian (truncated if there is a cap).
    - Sampling without replacement: subsampled Gaussian as well.
    - Cyclic Poisson sampling with noise of b bands: ceil(steps / b) Poisson-subsampled Gaussians at
      the rate within a group, b times the overall rate (Choquette-Choo et al. 2023,
      arXiv:2306.08153, theorem 4). The columns of C have norm 1, and those of a unit's
      participations are orthogonal. This is `amplified_bandmf_event` of jax_privacy.
    - Shuffled batches and balls in bins: a unit takes part once per epoch, so E epochs are E
      Gaussian releases without amplification. Shuffled batches have a fixed size and therefore no
      add_remove neighbor. In balls in bins, no other unit moves when a unit is added.

    The multiplier is noise / sensitivity; under replace_one, dp_accounting's PLD expects noise / C.

    Raises:
        ValueError: if no bound is known for this pair of sampling and adjacency.
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
    n, q = mechanism.num_units, mechanism.release_rate
    if mechanism.sampling in ("poisson", "cyclic_poisson"):
        release = dp_accounting.PoissonSampledDpEvent(q, gaussian)
        if mechanism.cap is not None and mechanism.cap < n:
            release = dp_accounting.TruncatedSubsampledGaussianDpEvent(
                n, q, mechanism.cap, multiplier
            )
        return dp_accounting.SelfComposedDpEvent(release, mechanism.releases)
    if mechanism.sampling == "without_replacement":
        return dp_accounting.SelfComposedDpEvent(
            dp_accounting.SampledWithoutReplacementDpEvent(
                n, round(mechanism.expected_batch), gaussian
            ),
            mechanism.steps,
        )
    return dp_accounting.SelfComposedDpEvent(gaussian, mechanism.releases)


def checks_pair(mechanism: Mechanism) -> None:
    """Raises ValueError if no guarantee is known for the sampling and the adjacency.

    The message names the pairs with a guarantee.
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
    """Holds an epsilon and the accountant that computed it.

    The accountant is the requested one, or 'rdp' if that one had no finite answer.
    """

    epsilon: float
    accountant: str


def epsilon(mechanism: Mechanism, *, delta: float, accountant: str = "pld") -> float:
    """Returns the epsilon of (epsilon, delta)-DP after all steps: 0 after none, inf without noise.

    - 'pld': privacy loss distributions, an upper bound (tight to 1e-4 per step; exact if no unit is
      sampled).
    - 'rdp': Renyi orders, a looser upper bound.
    - 'gdp': the central limit theorem for Gaussian DP. It can be BELOW the true epsilon: an
      approximation, not a guarantee.

    Each takes about one CPU second at most, whatever the noise, the steps and delta (losses.py).

    Raises:
        ValueError: for an unsupported pair of sampling and adjacency. In dp_accounting 0.6.0, RDP
            supports neither replace_one with Poisson sampling nor truncated Poisson sampling, and
            PLD does not support sampling without replacement.
    """
    return bound(mechanism, delta=delta, accountant=accountant).epsilon


def bound(mechanism: Mechanism, *, delta: float, accountant: str = "pld") -> Bound:
    """Returns `epsilon` together with the accountant that computed it.

    If 'pld' has no finite epsilon (noise or delta at the limits of floating-point numbers), RDP's
    epsilon is returned, which is an upper bound as well.
    """
    checks.fraction(closed="neither", delta=delta)
    composed = event(mechanism, accountant=accountant)
    if not mechanism.steps:
        return Bound(0.0, accountant)
    if mechanism.noise_multiplier == 0:
        return Bound(math.inf, accountant)
    if accountant == "gdp":
        return Bound(gaussian_epsilon(gdp_mu(mechanism), delta), accountant)
    value = _composed_epsilon(composed, mechanism.adjacency, delta, accountant)
    if accountant == "pld" and not math.isfinite(value):
        try:
            other = _composed_epsilon(
                event(mechanism, accountant="rdp"), mechanism.adjacency, delta, "rdp"
            )
        except ValueError:  # RDP does not support this pair.
            return Bound(value, accountant)
        return Bound(other, "rdp") if math.isfinite(other) else Bound(value, accountant)
    return Bound(value, accountant)


@functools.lru_cache(maxsize=4096)
def _composed_epsilon(composed, adjacency: str, delta: float, accountant: str) -> float:
    """Returns the epsilon of a composed event by 'pld' or 'rdp'."""
    from dp_accounting import NeighboringRelation, pld, rdp

    make = pld.PLDAccountant if accountant == "pld" else rdp.RdpAccountant
    calculator = make(neighboring_relation=NeighboringRelation[RELATIONS[adjacency]])
    if not calculator.supports(composed):
        raise ValueError(
            f"accountant={accountant!r} does not support {_kind(composed)} under "
            f"adjacency={adjacency!r} (dp_accounting {dp_accounting_version()}). "
            f"Use accountant={'rdp' if accountant == 'pld' else 'pld'!r} or another sampling."
        )
    if accountant == "rdp":
        return float(
            rdp.compute_epsilon(
                calculator.orders, composed.count * _renyi(composed.event, adjacency), delta
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
        # Without sampling, composed Gaussian releases are one Gaussian release, whose epsilon has a
        # closed form.
        if rate == 1:
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
    """Returns the Renyi divergences of one release at the accountant's orders.

    They take most of the time of an epsilon and are the same after every step, hence the cache. A
    divergence is infinite if floats cannot represent it, and never smaller than its rounding
    errors.
    """
    from dp_accounting import NeighboringRelation, rdp

    calculator = rdp.RdpAccountant(neighboring_relation=NeighboringRelation[RELATIONS[adjacency]])
    try:
        with _quiet(), np.errstate(all="ignore"):
            divergences = np.array(calculator.compose(release).rdp)
    except (OverflowError, ZeroDivisionError):
        divergences = np.full(len(calculator.orders), math.nan)
    # dp_accounting would turn NaN and negative divergences into an epsilon of 0.
    return np.where(np.isnan(divergences), math.inf, np.maximum(divergences, ROUNDED))


def _kind(composed) -> str:
    """Returns the kind of an event, such as 'PoissonSampled'."""
    return type(getattr(composed, "event", composed)).__name__.removesuffix("DpEvent")


def dp_accounting_version() -> str:
    """Returns the installed version of dp_accounting, for messages and reports."""
    return metadata.version("dp-accounting")


@contextlib.contextmanager
def _quiet():
    """Silences the log messages of RDP about orders that did not converge.

    Leaving such orders out only makes the bound looser.
    """
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def gdp_mu(mechanism: Mechanism) -> float:
    """Returns mu of Gaussian DP.

    With s the noise multiplier, q the rate, T the number of steps and E the number of epochs:

    - Poisson (central limit): q sqrt(T (exp(s^-2) - 1)). Cyclic Poisson with b bands: the same with
      q b and ceil(T / b).
    - Without replacement: sqrt(2 T) q sqrt(exp(s^-2) Phi(1.5/s) + 3 Phi(-0.5/s) - 2).
    - Shuffle and balls in bins (exact): sqrt(E) / s.

    Sources: Bu et al. 2020 (arXiv:1911.11607), Dong et al. 2022 (arXiv:1905.02383).
    """
    s, q, steps = mechanism.noise_multiplier, mechanism.release_rate, mechanism.releases
    if mechanism.sampling in ("poisson", "cyclic_poisson"):
        return q * math.sqrt(steps) * math.sqrt(math.expm1(min(1 / s / s, 700.0)))
    if mechanism.sampling == "without_replacement":
        inner = (
            math.exp(min(1 / s / s, 700.0)) * stats.norm.cdf(1.5 / s)
            + 3 * stats.norm.cdf(-0.5 / s)
            - 2
        )
        return q * math.sqrt(2 * steps * inner)
    return math.sqrt(steps) / s


def gaussian_delta(epsilon: float, mu: float) -> float:
    """Returns delta(epsilon) of mu-GDP, computed in log space.

    delta = Phi(-epsilon/mu + mu/2) - exp(epsilon) Phi(-epsilon/mu - mu/2) (Dong et al. 2022,
    corollary 2.13).
    """
    high, low = (
        special.log_ndtr(-epsilon / mu + mu / 2),
        epsilon + special.log_ndtr(-epsilon / mu - mu / 2),
    )
    return float(np.exp(high) * -np.expm1(min(low - high, 0.0)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Returns the epsilon of mu-GDP at `delta`.

    It is 0 if delta alone is enough, and inf if no float is large enough.
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
    """Returns the smallest noise multiplier whose epsilon is at most `epsilon_wanted`.

    The epsilon is that after mechanism.steps steps. The multiplier is accurate to `tolerance` of
    itself and never gives a larger epsilon. It is between 0.0078 and 1e6, and 12 to 32 epsilons are
    computed to choose it.

    Raises:
        ValueError: if a multiplier of 1e6 is not enough noise; the message has its epsilon.
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
    """Returns the largest number of steps, up to `most`, with an epsilon <= `epsilon_wanted`.

    It is 0 if not even one step fits. The value of mechanism.steps is ignored.
    """
    checks.positive(epsilon=epsilon_wanted)
    return largest(
        lambda n: epsilon(mechanism.after(n), delta=delta, accountant=accountant) <= epsilon_wanted,
        most=most,
    )


def epochs_for(
    epsilon_wanted: float, mechanism: Mechanism, *, delta: float, accountant: str = "pld", most: int
) -> int:
    """Returns the largest number of epochs, up to `most`, with an epsilon <= `epsilon_wanted`.

    An epoch has mechanism.epoch_steps steps.
    """
    per = mechanism.epoch_steps
    return largest(
        lambda n: (
            epsilon(mechanism.after(n * per), delta=delta, accountant=accountant) <= epsilon_wanted
        ),
        most=most,
    )


def largest(fits: Callable[[int], bool], *, most: int) -> int:
    """Returns the largest n in 0..most with fits(n).

    `fits` must be true up to some n and false beyond it; fits(0) is assumed to be true.
    """
    low, high = 0, 1
    while high <= most and fits(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
