"""Calculates which coverage an interval can have where few groups of models show their variance.

    python -m benchmarks.interval_limits [--groups 8]

The setting is that of an attack that was rerun without each of G groups of units of models
(mia_jax/metrics/components.py, `left_error`), in its simplest form. The estimate is normal. Its
variance is 1 due to records, which is known, and r due to units of models. The jackknife variance J
estimates k + r with d degrees of freedom, where k is the part of J that is due to records; what
several models do together counts more than once in it, so k is up to 4, and more where nothing
leaks. The coverage then follows from integrals over J.

The rules:

    report     the report's rule: J d / chi^2_d stands for the variance that J estimates
    half prior a Bayesian rule: half of the prior probability says that units do not differ, the
               other half has a half-Cauchy prior on sqrt(r) (scale sqrt 10)
    flat prior the same without the point mass (scale sqrt 3)
    tested     the records' variance alone, unless J is in the upper quarter of what k alone gives

With 8 groups and k of 3 or more, no rule of these covers at most 0.99 at r = 0 and at least 0.92
everywhere: J tells too little. The report's rule keeps the second and gives up the first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from scipy import special, stats

from mia_jax.metrics import components

RATIOS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0)  # r
PARTS = (1.0, 2.0, 3.0, 4.0)  # k
POINTS = 400  # quantiles of J
GRID = np.concatenate([[0.0], np.geomspace(1e-3, 2e3, 500)])  # of r, for the Bayesian rules


def degrees(groups: int) -> float:
    """Returns d of a variance between so many groups, as the report takes it."""
    return 2 / (2 / (groups - 1) + components.EXCESS / groups)


def report_rule(among_J: np.ndarray, k: float, d: float) -> np.ndarray:
    """Returns the half width [J] of the report's rule."""
    ratio_P = components.true_over_estimated(d)
    halves = []
    for among in among_J:
        error = components.like_t(1 + np.maximum(0.0, among * ratio_P - k))
        normal = np.isinf(error.freedom)
        factor = stats.norm.ppf(0.975) if normal else special.stdtrit(error.freedom, 0.975)
        halves.append(error.deviation * factor)
    return np.array(halves)


def bayesian_rule(*, at_zero: float, scale: float) -> Callable:
    """Returns a rule with a prior of r: a point mass at 0, half-Cauchy in sqrt(r) otherwise."""
    prior = np.gradient(GRID) / (np.sqrt(np.maximum(GRID, 1e-4)) * (1 + GRID / scale))
    prior[0] = 0.0
    prior *= (1 - at_zero) / prior.sum()
    prior[0] = at_zero

    def rule(among_J: np.ndarray, k: float, d: float) -> np.ndarray:
        variance_R = k + GRID
        log_JR = stats.chi2.logpdf(among_J[:, None] * d / variance_R, d) - np.log(variance_R)
        weight_JR = np.exp(log_JR - log_JR.max(1, keepdims=True)) * prior
        weight_JR /= weight_JR.sum(1, keepdims=True)
        low_J = np.full(len(among_J), 0.5)
        high_J = np.full(len(among_J), 60 * np.sqrt(1 + GRID[-1]))
        for _ in range(60):
            middle_J = (low_J + high_J) / 2
            share_J = (special.ndtr(middle_J[:, None] / np.sqrt(1 + GRID)) * weight_JR).sum(1)
            low_J = np.where(share_J < 0.975, middle_J, low_J)
            high_J = np.where(share_J < 0.975, high_J, middle_J)
        return middle_J

    return rule


def tested_rule(among_J: np.ndarray, k: float, d: float) -> np.ndarray:
    """Returns the half width [J] of records alone, or of the report's rule where J is large."""
    alone = stats.norm.ppf(0.975)
    large_J = among_J > k * stats.chi2.ppf(0.75, d) / d
    return np.where(large_J, report_rule(among_J, k, d), alone)


RULES = {
    "report": report_rule,
    "half prior": bayesian_rule(at_zero=0.5, scale=10.0),
    "flat prior": bayesian_rule(at_zero=0.0, scale=3.0),
    "tested": tested_rule,
}


def coverage(rule: Callable, *, r: float, k: float, d: float) -> float:
    """Returns the share of estimates whose interval holds the true value."""
    among_J = (k + r) * stats.chi2.ppf((np.arange(POINTS) + 0.5) / POINTS, d) / d
    return float((2 * special.ndtr(rule(among_J, k, d) / np.sqrt(1 + r)) - 1).mean())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, default=8, help="groups of units (default 8)")
    args = parser.parse_args(argv)
    d = degrees(args.groups)
    print(f"{args.groups} groups, {d:.1f} degrees of freedom; coverage by rule, k and r\n")
    print("| rule | k | " + " | ".join(f"r = {r:g}" for r in RATIOS) + " |")
    print("|:--|--:|" + "--:|" * len(RATIOS))
    for name, rule in RULES.items():
        for k in PARTS:
            shares = (f"{coverage(rule, r=r, k=k, d=d):.3f}" for r in RATIOS)
            print(f"| {name} | {k:g} | {' | '.join(shares)} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
