"""RMIA, the relative attack: whether the target's probability rises more on x than on other rows.

Source: Zarifzadeh et al. 2024 (arXiv:2312.03262).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mia_jax import checks
from mia_jax.attacks import _inner, _probability, _sides
from mia_jax.metrics import roc
from mia_jax.threat_model import Evidence
from mia_jax.types import Attack

GRID = tuple(i / 10 for i in range(11))  # of `a`
ROUNDING = 64 * np.finfo(np.float64).eps  # relative error of a difference of two log means


def make(
    *,
    mode: str = "online",
    gamma: float = 2.0,
    temperature: float = 2.0,
    a: float | str = 0.33,
    signal: str = "log_probability",
    population_p: str = "offline",
    views: str = "mean",
) -> Attack:
    """Scores the share of population rows z with ratio(x) >= gamma ratio(z).

    ratio(x) = p(x | target) / p(x), where p(x | model) is the true label's probability at the
    temperature. The counts are exact, by sorting ratio(z): O((N + Z) log Z) time and O(N + Z)
    memory per target. Ratios are differences of logarithms; equal up to rounding counts as equal.
    The score is a multiple of 1 / Z; `diagnose` returns the share of rows that tie at the top. An
    example without shadows on a side takes the other side's mean times the overall quotient of the
    sides (offline: the overall OUT mean).

    Args:
        mode: 'online': p(x) = (mean over IN + mean over OUT shadows) / 2, equal weights whatever
            their numbers. 'offline': p(x) = ((1 + a) mean over OUT + 1 - a) / 2, which replaces the
            IN mean by a out + 1 - a.
        gamma: how much larger the ratio of x must be.
        temperature: of the softmax.
        a: the constant of the offline map; 'tuned' (offline): the best mean AUC over 0, .1 .. 1
            with every shadow as target in turn and OUT models of the rest.
        signal: 'log_probability', measured at the temperature: two numbers per example that add up
            to it, with the scores of 'logits', one number per class. 'loss', measured at the
            temperature (the signal tempered_loss), is one number, so scores are equal up to the
            rounding of float32. 'confidence' is measured at temperature 1.
        population_p: p(z) of population rows, which have no IN shadow. 'offline': the offline map,
            in both modes; 'out': the plain OUT mean.
        views: 'mean': the mean of the scores of the query views, x against z under the same view.
            'majority': a z counts if ratio(x) >= gamma ratio(z) under more than half of x's views,
            z under view 0.

    Raises:
        ValueError: There are no population rows, or no shadow is OUT (IN) on any evaluated row.
    """
    checks.one_of(("online", "offline"), mode=mode)
    checks.one_of(("offline", "out"), population_p=population_p)
    checks.one_of(("mean", "majority"), views=views)
    checks.positive(gamma=gamma)
    tuned = a == "tuned"
    if tuned and mode == "online":
        raise ValueError("a='tuned' belongs to mode='offline'; online p(x) does not use a.")
    if not tuned:
        checks.fraction(a=a)
    kinds = (_sides.OUT, _sides.IN) if mode == "online" else (_sides.OUT,)
    needs = ("population", *(("shadow_in",) if mode == "online" else ()), "shadow_out")
    rule = dict(kinds=kinds, gamma=gamma, population_p=population_p, views=views)

    def score(evidence):
        best = tune(evidence, ("log_p", *needs), **rule) if tuned else a
        return scores(evidence, a=best, **rule)

    def diagnose(evidence):
        score_N = score(evidence)[evidence.evaluated_N]
        numbers = dict(
            resolution=1 / int(evidence.population_N.sum()),
            top_tie_share=float((score_N == score_N.max()).mean()),
        )
        return numbers | (dict(a=tune(evidence, ("log_p", *needs), **rule)) if tuned else {})

    note = (
        f"{mode}, gamma {gamma:g}, temperature {temperature:g}, a {a}, p(z) {population_p}, "
        f"{views} over views; scores are multiples of 1/Z"
    )
    read = (*needs, "shadow_own") if tuned else needs
    return _probability.attack(
        score,
        signal=signal,
        temperature=temperature,
        needs=read,
        note=note,
        diagnose=diagnose,
        # counts of comparisons are the same, so scores that were computed from logits are these
        claimed=dict(signal="logits") if signal == "log_probability" else {},
    )


def tune(evidence: Evidence, needs: Sequence[str], **rule) -> float:
    """Returns the `a` of GRID with the best mean AUC over the evidence's shadows as targets.

    Of equally good neighbors it is the middle one.

    Raises:
        ValueError: No shadow has OUT models among the others on its own evaluated rows.
    """
    inner = [
        (v, member_N)
        for v, member_N in _inner.evidence_of_shadows(
            evidence, needs, limit=len(evidence.shadow_member_MN)
        )
        if _has_out(v)
    ]
    if not inner:
        raise ValueError(
            "a='tuned' scores every shadow with OUT models of the others, and 0 of "
            f"{len(evidence.shadow_member_MN)} shadows have one on "
            "their own evaluated rows: train more models or give a number."
        )
    auc = []
    for a in GRID:
        values = []
        for v, member_N in inner:
            score_N = scores(v, a=a, **rule)
            values.append(roc.auc(roc.roc(score_N[v.evaluated_N], member_N[v.evaluated_N])))
        auc.append(np.mean(values))
    best = np.flatnonzero(np.asarray(auc) >= max(auc) - 1e-12)
    return GRID[best[(len(best) - 1) // 2]]


def _has_out(evidence: Evidence) -> bool:
    return bool((evidence.visible_MN & ~evidence.shadow_member_MN)[:, evidence.evaluated_N].any())


def scores(
    evidence: Evidence,
    *,
    kinds: Sequence[str],
    a: float,
    gamma: float,
    population_p: str,
    views: str,
) -> np.ndarray:
    """Returns score_N of evidence whose signal 'log_p' is the log probability of the true label."""
    x, z = np.flatnonzero(evidence.evaluated_N), np.flatnonzero(evidence.population_N)
    if not len(z):
        raise ValueError(
            "there are 0 population rows to compare with; at least 1 is needed: set "
            "design.population, or pass population_<key>."
        )
    masks = _sides.masks_of(evidence, x, kinds)
    out_z = evidence.visible_MN[:, z] & ~evidence.shadow_member_MN[:, z]
    own_AN, log_p_MAN = evidence.target["log_p"], evidence.shadow["log_p"]
    ratio_x, ratio_z = [], []
    for view, own_N in enumerate(own_AN):
        log_p_MX = log_p_MAN[:, view][:, x]
        ratio_x.append(
            own_N[x] - average([_probability.log_mean(log_p_MX, where_MN) for where_MN in masks], a)
        )
        mean_Z = _probability.log_mean(log_p_MAN[:, view][:, z], out_z)
        ratio_z.append(
            own_N[z] - (_probability.offline(mean_Z, a) if population_p == "offline" else mean_Z)
        )
    log_gamma, rounding = (
        np.log(gamma),
        ROUNDING * max(1.0, float(np.abs(own_AN[:, np.concatenate([x, z])]).max())),
    )
    if views == "mean":
        dominated = [
            share_dominated(x_N, z_N, log_gamma, rounding=rounding)
            for x_N, z_N in zip(ratio_x, ratio_z, strict=True)
        ]
        score_X = np.mean(dominated, 0)
    else:
        needed = len(ratio_x) // 2 + 1
        score_X = share_dominated(
            np.sort(ratio_x, 0)[-needed], ratio_z[0], log_gamma, rounding=rounding
        )
    return _sides.spread_out(score_X, evidence.evaluated_N)


def share_dominated(
    log_ratio_N: np.ndarray, log_ratio_Z: np.ndarray, log_gamma: float, *, rounding: float = 0.0
) -> np.ndarray:
    """Returns the share of z with log ratio_N >= log gamma + log ratio_Z - rounding, for every n.

    These are the exact counts of the N x Z comparison.
    """
    return np.searchsorted(
        np.sort(log_gamma + log_ratio_Z) - rounding, log_ratio_N, side="right"
    ) / len(log_ratio_Z)


def average(log_means: Sequence[np.ndarray], a: float) -> np.ndarray:
    """Returns log p(x) from the log means over OUT shadows, or over OUT and IN shadows.

    `log_means` are NaN where an example has no shadow of that side.
    """
    overall = [_probability.log_mean_over_examples(log_mean_N) for log_mean_N in log_means]
    if len(log_means) == 1:
        return _probability.offline(np.where(np.isnan(log_means[0]), overall[0], log_means[0]), a)
    out_N, in_N = log_means
    quotient = overall[1] - overall[0]
    in_N, out_N = (
        np.where(np.isnan(in_N), out_N + quotient, in_N),
        np.where(np.isnan(out_N), in_N - quotient, out_N),
    )
    return np.logaddexp(out_N, in_N) - np.log(2)
