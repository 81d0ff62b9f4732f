"""LiRA, the likelihood-ratio attack of Carlini et al. 2022 (arXiv:2112.03570): Gaussians over shadow models, one pair an example."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import log_ndtr

from mia_jax import checks, fits
from mia_jax.attacks import _signals
from mia_jax.fits import Moments
from mia_jax.types import Attack

ENOUGH = dict(auto=4, per_example=2, pooled=np.inf)  # shadows a side from which an example's own variance is used


def make(
    *,
    mode: str = "online",
    signal: str = "rescaled_logit",
    offline_score: str = "log_cdf",
    variance: str = "auto",
    center: str = "mean",
    sign: int | None = None,
) -> Attack:
    """Compares the target's signal s with the shadows that trained on the example (IN) and those that did not (OUT); mean over query views.

    mode 'online': log N(s; c_in, v_in) - log N(s; c_out, v_out) (Algorithm 1); 'offline' (OUT alone): offline_score 'log_cdf' =
    log Phi((s - c_out) / sd_out), one-sided, or 'log_pdf' = -log N(s; c_out, v_out) up to a constant, two-sided: the low tail
    counts as member too.

    center 'mean' or 'median' over the shadows of a side. variance 'per_example': squared residuals about the example's center over n - 1;
    'pooled': their sum over all examples over the sum of n - 1, per side; 'auto': per example from 4 shadows a side on, pooled below.
    Few shadows: an example with fewer than 2 on a side takes the pooled variance; a side on which no example has 2 takes the other side's;
    where neither side has 2 (or OUT alone, offline) the score is s - the mean of the sides' centers. An example without IN (OUT) shadows
    takes the other side's center plus the mean IN - OUT difference over all examples (offline: the mean OUT signal).
    No sd is below the float32 resolution of s and its center, 1.2e-7 of the larger, so constant signals score 0 and not NaN.

    `sign` None: as the signal declares. ValueError if no shadow is IN (OUT) on any evaluated row.
    """
    checks.one_of(("online", "offline"), mode=mode)
    checks.one_of(("log_cdf", "log_pdf"), offline_score=offline_score)
    checks.one_of(ENOUGH, variance=variance)
    checks.one_of(("mean", "median"), center=center)
    sign = _signals.sign_of(signal, sign)
    form = "online" if mode == "online" else offline_score
    needs = (signal, "shadow_in", "shadow_out") if mode == "online" else (signal, "shadow_out")

    def score(view, key):
        del key
        cols = np.flatnonzero(view.evaluated_N)
        own_AN = sign * _signals.scalar(view.target[signal], "AN", signal)[:, cols].astype(np.float64)
        member_MN, visible_MN = view.shadow_member_MN[:, cols], view.visible_MN[:, cols]
        masks = [visible_MN & ~member_MN, visible_MN & member_MN][: len(needs) - 1]
        total_N = np.zeros(len(cols))
        for a, own_N in enumerate(own_AN):
            value_MN = sign * view.shadow[signal][:, a, cols]
            sides = [fits.moments(value_MN, where_MN, center) for where_MN in masks]
            total_N += _score(own_N, sides, [_pool(side) for side in sides], form, ENOUGH[variance])
        score_N = np.full(len(view.evaluated_N), np.nan)
        score_N[cols] = total_N / len(own_AN)
        return score_N

    def score_all(fleet, key):
        d = fleet.design
        targets = list(d.targets)
        if center != "mean" or not np.array_equal(d.shadow_MM[targets], d.unit_M[targets, None] != d.unit_M[None]):
            return np.stack([score(fleet.view(t, needs), key) for t in targets])
        value_MAN = _signals.scalar(fleet.signal[signal], "MAN", signal)
        masks = [~d.member_MN, d.member_MN][: len(needs) - 1]
        total_TN = sum(_score_all(value_MAN[:, a], masks, d, sign, form, ENOUGH[variance]) for a in range(value_MAN.shape[1]))
        return total_TN / value_MAN.shape[1]

    note = f"{mode}, {form + ', ' if mode == 'offline' else ''}{center} centers, variance {variance}"
    if variance == "auto":
        note += " (per example from 4 shadows a side on, else pooled; s - center with one a side)"
    return Attack(score, needs, knows="shadows", score_all=score_all, note=note)


class _Pool(NamedTuple):
    """Sums over examples of one side: values, their number, squared residuals and degrees of freedom."""

    total: float
    count: float
    m2: float
    dof: float


def _pool(side: Moments) -> _Pool:
    return _Pool(np.sum(side.count * side.center), np.sum(side.count), np.sum(side.m2), np.sum(np.maximum(side.count - 1, 0)))


def _score(own_N: np.ndarray, sides: list[Moments], pools: list[_Pool], form: str, enough: float) -> np.ndarray:
    """Scores of examples with signals `own_N`; `sides` and `pools` are [OUT] or [OUT, IN]."""
    for name, pool in zip(("OUT", "IN"), pools, strict=False):
        if not pool.count:
            raise ValueError(f"no usable shadow is {name} on any evaluated row; train more models or use another attack.")
    centers = _centers(sides, pools)
    if not any(pool.dof for pool in pools):
        return own_N - np.mean(centers, 0)
    per_example_N = np.min([side.count for side in sides], 0) >= enough
    z, log_sd = [], []
    for side, pool, center_N in zip(sides, pools, centers, strict=True):
        pool = pool if pool.dof else next(p for p in pools if p.dof)
        variance_N = np.where(per_example_N, side.m2 / np.maximum(side.count - 1, 1), pool.m2 / pool.dof)
        floor_N = np.finfo(np.float32).eps * np.maximum(np.abs(center_N), np.abs(own_N))
        sd_N = np.maximum(np.sqrt(variance_N), floor_N)
        sd_N = np.where(sd_N > 0, sd_N, 1)
        z.append((own_N - center_N) / sd_N)
        log_sd.append(np.log(sd_N))
    if form == "log_cdf":
        return log_ndtr(z[0])
    if form == "log_pdf":
        return z[0] ** 2 / 2 + log_sd[0]
    return (z[0] ** 2 - z[1] ** 2) / 2 + log_sd[0] - log_sd[1]


def _centers(sides: list[Moments], pools: list[_Pool]) -> list[np.ndarray]:
    mean = [pool.total / pool.count for pool in pools]
    if len(sides) == 1:
        return [np.where(sides[0].count > 0, sides[0].center, mean[0])]
    outside, inside = sides
    shift = mean[1] - mean[0]
    return [
        np.where(outside.count > 0, outside.center, np.where(inside.count > 0, inside.center - shift, mean[0])),
        np.where(inside.count > 0, inside.center, np.where(outside.count > 0, outside.center + shift, mean[1])),
    ]


def _score_all(value_MN, masks, design, sign: int, form: str, enough: float) -> np.ndarray:
    """One query view, every target in turn: two passes over blocks of examples, the first for what is pooled over examples."""
    unit_T = np.searchsorted(np.unique(design.unit_M), design.unit_M[list(design.targets)])
    pools_T = [[_Pool(0.0, 0.0, 0.0, 0.0) for _ in masks] for _ in design.targets]
    score_TN = np.full((len(design.targets), value_MN.shape[1]), np.nan)
    for scoring in (False, True):
        for cols in fits.blocks(value_MN.shape[1]):
            block_MN = sign * value_MN[:, cols].astype(np.float64)
            sides_UN = [fits.leave_unit_out_moments(block_MN, where_MN[:, cols], design.unit_M) for where_MN in masks]
            for i, t in enumerate(design.targets):
                keep = np.flatnonzero(design.evaluated_MN[t, cols])
                sides = [Moments(*(field[unit_T[i], keep] for field in side)) for side in sides_UN]
                if scoring:
                    score_TN[i, cols.start + keep] = _score(block_MN[t, keep], sides, pools_T[i], form, enough)
                else:
                    pools_T[i] = [_Pool(*map(sum, zip(old, _pool(side), strict=True))) for old, side in zip(pools_T[i], sides, strict=True)]
    return score_TN
