"""Lower bounds on epsilon from many training runs with one canary: in half of them it is in the training set. NumPy and SciPy only.

One in/out trial is one *run*: scores of several canaries of the same run depend on each other through the model and are no trials of their own.
A fleet of the design `canaries` (data.canaries=dict(kind='mislabeled', count=20), design.models=64) is such runs: its models toss independent coins
about any one canary, which is named before scores are seen. After train and query:

    design = np.load("runs/many/design/membership.npz")
    n = np.flatnonzero(design["evaluated_MN"][0])[0]
    score_M = np.array([-np.load(f"runs/many/signal/loss/{m:05d}.npy")[0, n] for m in range(64)])
    inside_M = design["member_MN"][:, n]
    clopper_pearson(score_M[inside_M], score_M[~inside_M], delta=1e-5).epsilon

64 perfect runs show at most 2.1 at 95% (`ceiling`), 1,000 canaries of one run 5.8: one run (audit.py) is what the report uses.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import special

from mia_jax import checks
from mia_jax.privacy.audit import gdp_epsilon

SELECTIONS = ("explicit", "split", "bonferroni")


class Box(NamedTuple):
    """With one confidence: the true-positive rate is at least `tpr`, the false-positive rate at most `fpr`."""

    tpr: float
    fpr: float


class RunsBound(NamedTuple):
    """`epsilon` at delta from the rates alone, `mu` and `gdp_epsilon` if the mechanism's trade-off curve is a Gaussian's; the threshold and its
    counts (true positives, runs with, false positives, runs without), and the method."""

    epsilon: float
    mu: float
    gdp_epsilon: float
    threshold: float
    counts: tuple[int, int, int, int]
    method: str


def box(k1: int, n1: int, k0: int, n0: int, *, alpha: float = 0.05) -> Box:
    """Clopper-Pearson limits of k1 of n1 runs with and k0 of n0 runs without the canary called IN, alpha/2 each."""
    for name, k, n in (("1", k1, n1), ("0", k0, n0)):
        if not 0 <= k <= n or n < 1:
            raise ValueError(f"k{name}={k} of n{name}={n}: need 0 <= k <= n and n > 0.")
    checks.fraction(closed="neither", alpha=alpha)
    low = float(special.betaincinv(k1, n1 - k1 + 1, alpha / 2)) if k1 else 0.0
    high = float(special.betaincinv(k0 + 1, n0 - k0, 1 - alpha / 2)) if k0 < n0 else 1.0
    return Box(low, high)


def epsilon_of(rates: Box, *, delta: float) -> float:
    """max(0, log((TPR - delta)/FPR), log((TNR - delta)/FNR)): both directions follow from the same two limits.

    Source: Kairouz, Oh and Viswanath 2015 (arXiv:1311.0776), Theorem 2.1; Jagielski, Ullman and Oprea 2020 (arXiv:2006.07709).
    """
    checks.fraction(closed="left", delta=delta)
    pairs = ((rates.tpr - delta, rates.fpr), (1 - rates.fpr - delta, 1 - rates.tpr))
    return max([0.0, *(math.log(up / down) for up, down in pairs if up > 0 and down > 0)])


def mu_of(rates: Box) -> float:
    """max(0, Phi^-1(TPR) - Phi^-1(FPR)): the smallest mu of Gaussian DP that allows these rates. Source: Nasr et al. 2023 (arXiv:2302.07956)."""
    mu = float(special.ndtri(rates.tpr) - special.ndtri(rates.fpr))
    return max(0.0, mu) if math.isfinite(mu) else 0.0


def clopper_pearson(
    in_R, out_R, *, delta: float, alpha: float = 0.05, selection: str = "bonferroni", threshold: float | None = None, seed: int = 0
) -> RunsBound:
    """A bound of confidence 1 - alpha from the canary's scores in runs with it, `in_R`, and without it, `out_R`; higher = called IN.

    selection 'explicit': at `threshold`, fixed beforehand (score >= threshold is called IN). 'split': the threshold that bounds most on the first
    half of a random order of either side, the bound from the second half. 'bonferroni': the best of the thresholds that call 0, 1, 2, 4, ... OUT
    runs IN or miss 0, 1, 2, 4, ... IN runs, alpha shared among them; these ranks depend on the numbers of runs alone. The best threshold without
    such care is no bound. `mu` and `gdp_epsilon` come from the same limits, so they are 0 on scores that carry nothing, as `epsilon` is.
    """
    checks.one_of(SELECTIONS, selection=selection)
    in_R, out_R = np.asarray(in_R, np.float64), np.asarray(out_R, np.float64)
    checks.shape("R", scores_in=in_R)
    checks.shape("R", scores_out=out_R)
    checks.finite(scores_in=in_R, scores_out=out_R)
    if min(len(in_R), len(out_R)) < 2:
        raise ValueError(f"{len(in_R)} runs with and {len(out_R)} without the canary; need at least 2 of each.")
    if selection == "explicit":
        if threshold is None:
            raise ValueError("selection='explicit' needs a threshold that was fixed beforehand.")
        return _best(in_R, out_R, [threshold], delta, alpha, "explicit threshold")
    if selection == "bonferroni":
        cuts = _ranks(in_R, out_R)
        return _best(in_R, out_R, cuts, delta, alpha / len(cuts), f"Bonferroni over {len(cuts)} ranks")
    rng = np.random.default_rng(seed)
    (in1, in2), (out1, out2) = (np.array_split(rng.permutation(side), 2) for side in (in_R, out_R))
    tried = _all(in1, out1, np.unique(np.append(in1, out1)), delta, alpha, "")
    second = [_best(in2, out2, [max(tried, key=by).threshold], delta, alpha, "threshold from the other half of the runs") for by in (_epsilon, _mu)]
    return second[0]._replace(mu=second[1].mu, gdp_epsilon=second[1].gdp_epsilon)


def ceiling(runs_in: int, runs_out: int, *, delta: float = 0.0, alpha: float = 0.05) -> float:
    """What perfect scores can show at a threshold fixed beforehand.

    >>> round(ceiling(32, 32), 2)
    2.1
    """
    return epsilon_of(box(runs_in, runs_in, 0, runs_out, alpha=alpha), delta=delta)


def _all(in_R, out_R, thresholds, delta: float, alpha: float, method: str) -> list[RunsBound]:
    """The bound at each threshold, every one at level alpha."""
    found = []
    for threshold in thresholds:
        counts = (int((in_R >= threshold).sum()), len(in_R), int((out_R >= threshold).sum()), len(out_R))
        rates = box(*counts, alpha=alpha)
        found.append(RunsBound(epsilon_of(rates, delta=delta), mu_of(rates), math.nan, float(threshold), counts, method))
    return found


def _best(in_R, out_R, thresholds, delta: float, alpha: float, method: str) -> RunsBound:
    """The best epsilon and the best mu; all limits hold together, so each number may take its own threshold."""
    found = _all(in_R, out_R, thresholds, delta, alpha, method)
    mu = max(found, key=_mu).mu
    return max(found, key=_epsilon)._replace(mu=mu, gdp_epsilon=gdp_epsilon(mu, delta) if delta else math.nan)


def _epsilon(one: RunsBound) -> tuple:
    return one.epsilon, one.counts[0] / one.counts[1] - one.counts[2] / one.counts[3]


def _mu(one: RunsBound) -> float:
    return one.mu


def _ranks(in_R, out_R) -> np.ndarray:
    """Thresholds that call 0, 1, 2, 4, ... OUT runs IN, and those that miss 0, 1, 2, 4, ... IN runs."""
    down, up = np.sort(out_R)[::-1], np.sort(in_R)
    few = [2 ** np.arange(int(np.log2(len(side))) + 1) - 1 for side in (down, up)]
    called = np.append(np.nextafter(down[0], np.inf), down[few[0]])
    missed = np.append(up[0], np.nextafter(up[few[1]], np.inf))
    return np.append(called, missed)
