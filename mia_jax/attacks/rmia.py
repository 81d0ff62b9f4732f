"""RMIA, the relative attack of Zarifzadeh et al. 2024 (arXiv:2312.03262): is the target's rise on x larger than on population rows?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mia_jax import checks
from mia_jax.attacks import _inner, _probability, _sides
from mia_jax.metrics import roc
from mia_jax.types import Attack
from mia_jax.views import View

GRID = tuple(i / 10 for i in range(11))  # of `a`


def make(
    *,
    mode: str = "online",
    gamma: float = 2.0,
    temperature: float = 2.0,
    a: float | str = 0.33,
    signal: str = "logits",
    population_p: str = "offline",
    views: str = "mean",
) -> Attack:
    """score(x) = share of population rows z with ratio(x) >= gamma ratio(z), ratio(x) = p(x | target) / p(x).

    p(x | model) is the true label's probability at the temperature. mode 'online': p(x) = (mean over IN + mean over OUT shadows) / 2, equal
    weights whatever their numbers; 'offline': p(x) = ((1 + a) mean over OUT + 1 - a) / 2, which takes the IN mean for a out + 1 - a.
    Population rows have no IN shadow: population_p 'offline' uses that same map for p(z), in both modes; 'out' the plain OUT mean.
    a 'tuned' (offline): the best mean AUC over 0, .1 .. 1 with every shadow as target in turn and OUT models of the rest.
    views 'mean': mean of the scores of the query views, x against z under the same view; 'majority': a z counts if ratio(x) >= gamma ratio(z)
    under more than half of x's views, z under view 0.
    An example without IN shadows online takes the offline map of its OUT mean; one without OUT shadows its IN mean times the overall
    OUT / IN quotient (offline: the overall OUT mean).

    signal 'logits' (any temperature), 'loss' or 'confidence' (temperature 1). The counts are exact, by sorting ratio(z): O((N + Z) log Z) time
    and O(N + Z) memory a target. The score is a multiple of 1 / Z: `diagnose` tells the share of rows that tie at the top.
    ValueError without population rows, or if no shadow is OUT (IN) on any evaluated row.
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

    def score(view):
        best = tune(view, ("p", *needs), **rule) if tuned else a
        return scores(view, a=best, **rule)

    def diagnose(view):
        score_N = score(view)[view.evaluated_N]
        found = dict(resolution=1 / int(view.population_N.sum()), top_tie_share=float((score_N == score_N.max()).mean()))
        return found | (dict(a=tune(view, ("p", *needs), **rule)) if tuned else {})

    note = f"{mode}, gamma {gamma:g}, temperature {temperature:g}, a {a}, p(z) {population_p}, {views} over views; scores are multiples of 1/Z"
    read = (*needs, "shadow_own") if tuned else needs
    return _probability.attack(score, signal=signal, temperature=temperature, needs=read, note=note, diagnose=diagnose)


def tune(view: View, needs: Sequence[str], **rule) -> float:
    """The `a` of GRID with the best mean AUC over the view's shadows as targets; the middle one of equally good neighbours.

    ValueError if no shadow has OUT models among the others on its own evaluated rows.
    """
    inner = [(v, member_N) for v, member_N in _inner.views_of_shadows(view, needs, limit=len(view.shadow_member_MN)) if _has_out(v)]
    if not inner:
        raise ValueError(
            f"a='tuned' scores every shadow with OUT models of the others, and 0 of {len(view.shadow_member_MN)} shadows have one on "
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


def _has_out(view: View) -> bool:
    return bool((view.visible_MN & ~view.shadow_member_MN)[:, view.evaluated_N].any())


def scores(view: View, *, kinds: Sequence[str], a: float, gamma: float, population_p: str, views: str) -> np.ndarray:
    """score_N of a view whose signal 'p' is the true label's probability."""
    x, z = np.flatnonzero(view.evaluated_N), np.flatnonzero(view.population_N)
    if not len(z):
        raise ValueError("there are 0 population rows to compare with; at least 1 is needed: set design.population.")
    masks = _sides.masks_of(view, x, kinds)
    out_z = view.visible_MN[:, z] & ~view.shadow_member_MN[:, z]
    own_AN, p_MAN = view.target["p"], view.shadow["p"]
    ratio_x, ratio_z = [], []
    for own_N, p_MN in zip(own_AN, p_MAN.swapaxes(0, 1), strict=True):
        ratio_x.append(own_N[x] / average([_probability.mean(p_MN[:, x], where_MN) for where_MN in masks], a))
        mean_Z = _probability.mean(p_MN[:, z], out_z)
        ratio_z.append(own_N[z] / (_probability.offline(mean_Z, a) if population_p == "offline" else mean_Z))
    if views == "mean":
        score_X = np.mean([share_dominated(x_N, z_N, gamma) for x_N, z_N in zip(ratio_x, ratio_z, strict=True)], 0)
    else:
        needed = len(ratio_x) // 2 + 1
        score_X = share_dominated(np.sort(ratio_x, 0)[-needed], ratio_z[0], gamma)
    return _sides.spread_out(score_X, view.evaluated_N)


def share_dominated(ratio_N: np.ndarray, ratio_Z: np.ndarray, gamma: float) -> np.ndarray:
    """Share of z with ratio_N >= gamma ratio_Z for every n: the exact counts of the N x Z comparison."""
    return np.searchsorted(np.sort(gamma * ratio_Z), ratio_N, side="right") / len(ratio_Z)


def average(means: Sequence[np.ndarray], a: float) -> np.ndarray:
    """p(x) from the mean over OUT shadows or over OUT and IN shadows, NaN where an example has none of a kind."""
    if len(means) == 1:
        return _probability.offline(np.where(np.isnan(means[0]), np.nanmean(means[0]), means[0]), a)
    out_N, in_N = means
    quotient = np.nanmean(out_N) / np.nanmean(in_N)
    return np.where(np.isnan(in_N), _probability.offline(out_N, a), (np.where(np.isnan(out_N), in_N * quotient, out_N) + in_N) / 2)
