"""Audits shuffled batches with the likelihood ratio of all updates of a run.

In an epoch of shuffled batches of b units, a unit is in exactly one batch, in a random place, and
so is what replaces it. The worst case: all other units have the gradient -g, and the unit has g or,
if it is replaced by zero, 0. Batches without it sum up to -b g. Relative to that, the batch with
the unit shows 2 g, and with its replacement g: the place is marked, and nothing of the
amplification by sampling is left if the mark is visible. Poisson sampling shows g or nothing, at a
random number of steps. With z_eb = <g, noisy sum + b g> / |g|^2 and noise of s |g|, the privacy
loss of a shuffled run is

    sum_e log mean_b exp((2 z_eb - 2) / s^2) - log mean_b exp((z_eb - 1/2) / s^2)

(audits of shuffled DP-SGD by likelihood ratios: arXiv:2411.10614; the worst case:
arXiv:2403.17673). A score per run and a fair coin per run give a bound by
`audit_runs.best_threshold`. `game` draws the signals of such runs.

This file uses NumPy and SciPy only.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from mia_jax import checks

SAMPLINGS = ("shuffle", "poisson")


def log_ratio(signal_REB, *, multiplier: float, sampling: str = "shuffle") -> np.ndarray:
    """Returns the log likelihood ratio of 'the unit was in' and 'it was zero' of each run, [R].

    Args:
        signal_REB: z of R runs, E epochs and B batches of an epoch. Of 'poisson' it is relative to
            the sum of the other units: N(0, multiplier^2), plus 1 in batches with the unit.
        multiplier: s, the noise multiplier.
        sampling: 'shuffle', or 'poisson' at rate 1/B.
    """
    signal_REB = np.asarray(signal_REB, np.float64)
    batches = checks.shape("REB", signal=signal_REB)["B"]
    checks.positive(multiplier=multiplier)
    checks.one_of(SAMPLINGS, sampling=sampling)
    absent_REB = (signal_REB - 0.5) / multiplier**2
    if sampling == "shuffle":
        inside_RE = special.logsumexp((2 * signal_REB - 2) / multiplier**2, axis=2)
        return (inside_RE - special.logsumexp(absent_REB, axis=2)).sum(1)
    with np.errstate(divide="ignore"):
        out = np.log1p(-1 / batches)
    return np.logaddexp(out, absent_REB - math.log(batches)).sum((1, 2))


def game(
    *, runs: int, epochs: int, batches: int, multiplier: float, sampling: str, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws (signal_REB, inside_R) of runs of the worst case.

    Args:
        runs: R, each with a fair coin that decides whether the unit is in.
        epochs: E.
        batches: B.
        multiplier: the noise multiplier.
        sampling: 'shuffle' or 'poisson' (at rate 1/B).
        seed: of coins, batches and noise.
    """
    checks.one_of(SAMPLINGS, sampling=sampling)
    checks.at_least(1, runs=runs, epochs=epochs, batches=batches)
    checks.positive(multiplier=multiplier)
    rng = np.random.default_rng(seed)
    inside_R = rng.random(runs) < 0.5
    signal_REB = rng.normal(0.0, multiplier, size=(runs, epochs, batches))
    if sampling == "poisson":
        part_REB = rng.random((runs, epochs, batches)) < 1 / batches
        return signal_REB + part_REB * inside_R[:, None, None], inside_R
    place_RE1 = rng.integers(batches, size=(runs, epochs, 1))
    mark_REB = np.arange(batches) == place_RE1
    return signal_REB + mark_REB * (1 + inside_R)[:, None, None], inside_R
