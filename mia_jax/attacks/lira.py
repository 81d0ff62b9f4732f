"""LiRA, the likelihood-ratio attack: a pair of densities over shadow models for each example.

Source: Carlini et al. 2022 (arXiv:2112.03570).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mia_jax import checks
from mia_jax.attacks import _multivariate, _normality, _shrinkage, _sides, _student
from mia_jax.attacks._sides import COUNT, DOF, IN, M2, OUT
from mia_jax.attacks._student import Predictive
from mia_jax.fitting.moments import Moments
from mia_jax.types import Attack

# Shadows per side from which an example's own variance is used.
ENOUGH = dict(gaussian=16, per_example=2, pooled=np.inf)
# What the note of an attack says.
FORMS = dict(
    online="likelihood ratio of IN and OUT shadows",
    log_cdf="offline: log-probability of a smaller signal among OUT shadows",
    log_pdf="offline: minus the log-density among OUT shadows",
)
VARIANCES = dict(
    per_example="a variance per example",
    pooled="one variance for all examples of a side",
    gaussian="a variance per example from 16 shadows per side on, else one for all examples "
    "(the signal minus the center with one shadow per side)",
    shrunk="variances shrunk toward a common trend",
)
VARIANCES["global"] = "one variance for all examples, with the spread of the centers"


def make(
    *,
    mode: str = "online",
    signal: str = "rescaled_logit",
    offline_score: str = "log_cdf",
    variance: str = "auto",
    variance_side: str = "each",
    center: str = "mean",
    views: str = "mean",
    sign: int | None = None,
) -> Attack:
    """Scores how likely the target's signal s is under IN shadows against OUT shadows.

    IN shadows trained on the example, OUT shadows did not; c and v are the center and variance of
    their signals. The score is the mean over the query views.

    Args:
        mode: 'online': log N(s; c_in, v_in) - log N(s; c_out, v_out) (Algorithm 1). 'offline' reads
            OUT shadows only, see `offline_score`.
        signal: the scalar signal that is compared.
        offline_score: 'log_cdf': log Phi((s - c_out) / sd_out), one-sided. 'log_pdf': -log N(s;
            c_out, v_out) up to a constant, two-sided: the low tail also counts as member.
        variance: how v is estimated.
            'per_example': squared residuals about the example's center over n - 1.
            'pooled': their sum over all examples over the sum of n - 1, per side.
            'gaussian': per example from 16 shadows per side on, pooled below.
            'global': residuals and the spread of the centers together over all values - 1, for
            comparison (it contains the examples' difficulties).
            'shrunk': Student-t predictives with an empirical-Bayes prior over all examples:
            variances shrink toward a trend over difficulty, and IN - OUT differences toward theirs
            (_shrinkage.py). It needs 1 shadow per side.
            'auto': 'shrunk', or 'gaussian' where variance_side is not 'each'.
        variance_side: 'each' side has its own variance; 'in' / 'out': that side's for both; 'both':
            from the residuals of the two sides together.
        center: 'mean' or 'median' over the shadows of a side.
        views: 'mean' of the scores of the query views; or 'multivariate': one t density (with
            'pooled' a Gaussian) over all query views, whose correlation is pooled over examples;
            variance 'shrunk' or 'pooled'.
        sign: +1 if a larger signal means member, -1 if a smaller one does; None: as the signal
            declares.

    Raises:
        ValueError: No shadow is IN (OUT) on any evaluated row.

    Why 'auto' is 'shrunk': on digits, breast_cancer and 2,000 images of Fashion-MNIST it had the
    highest TPR at 1% FPR online with 1, 3, 7, 15 and 31 shadows per side, and offline was at most
    0.4 points behind the best. Between 'per_example' and 'pooled' the order turns at 15 shadows per
    side on Fashion-MNIST, between 15 and 31 on digits, and below 7 on breast_cancer (RESULTS.md,
    `python -m benchmarks.lira_variance`).

    Few shadows: an example with fewer than 2 on a side takes the pooled variance; a side on which
    no example has 2 takes the other side's. Where neither side has 2 (offline: where OUT has not),
    the score is s - the mean of the sides' centers. An example without IN (OUT) shadows takes the
    other side's center plus the mean IN - OUT difference over all examples (offline: the mean OUT
    signal). No sd is below the float32 resolution of s and its center, 1.2e-7 of the larger, so
    constant signals score 0 and not NaN.
    """
    checks.one_of(("online", "offline"), mode=mode)
    checks.one_of(("log_cdf", "log_pdf"), offline_score=offline_score)
    checks.one_of(("auto", *ENOUGH, "global", "shrunk"), variance=variance)
    checks.one_of(("each", "in", "out", "both"), variance_side=variance_side)
    checks.one_of(("mean", "median"), center=center)
    checks.one_of(("mean", "multivariate"), views=views)
    form = "online" if mode == "online" else offline_score
    kinds = (OUT, IN) if mode == "online" else (OUT,)
    if variance_side != "each" and mode == "offline":
        raise ValueError(
            f"variance_side={variance_side!r} compares two sides; mode='offline' sees OUT shadows "
            "alone: use 'each'."
        )
    if variance_side != "each" and variance == "shrunk":
        raise ValueError(
            f"variance='shrunk' fits each side's own prior; variance_side={variance_side!r} goes "
            "with the other variances."
        )
    if variance == "auto":
        variance = "shrunk" if variance_side == "each" else "gaussian"
    note = f"{FORMS[form]}; center: {center}; {VARIANCES[variance]}"
    if variance_side != "each":
        note += f" (variance_side: {variance_side})"
    common = dict(
        signal=signal,
        sign=sign,
        kinds=kinds,
        center=center,
        diagnose=_normality.diagnosis(signal, kinds),
    )
    if views == "multivariate":
        checks.one_of(("shrunk", "pooled"), variance=variance)
        shrunk = variance != "pooled"
        return _multivariate.attack(
            form=form, shrunk=shrunk, note=f"{note}, multivariate over query views", **common
        )
    if variance == "shrunk":
        steps, finish = (_sides.pool, _shrinkage.regressions), _shrunk(form)
    elif variance == "global":
        steps, finish = (_sides.pool, _between), _plain(form, np.inf, variance_side)
    else:
        steps, finish = (_sides.pool,), _plain(form, ENOUGH[variance], variance_side)
    enough = ENOUGH.get(variance, np.inf)
    return _sides.attack(steps=steps, finish=finish, enough=enough, note=note, **common)


def _between(own_N, sides: Sequence[Moments], fitted: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the squared distances of the centers from their mean, summed (variance 'global').

    Each distance counts once for every value behind the center.
    """
    del own_N
    mean = fitted[0][:, _sides.TOTAL] / fitted[0][:, COUNT]
    return np.array(
        [np.sum(s.count * (s.center - c) ** 2) for s, c in zip(sides, mean, strict=True)]
    )


def _plain(form: str, enough: float, variance_side: str):
    """Returns finish(own_N, sides, fitted) with Gaussians."""

    def finish(own_N, sides, fitted):
        residuals = _of_sides(
            [(side.m2, np.maximum(side.count - 1, 0)) for side in sides], variance_side
        )
        pools = fitted[0].copy() if fitted else None
        centers = _sides.centers(sides, pools)
        if pools is None:
            variance = [m2 / dof for m2, dof in residuals]
        else:
            if len(fitted) == 2:  # variance 'global'
                pools[:, M2] += fitted[1]
                pools[:, DOF] = np.maximum(pools[:, COUNT] - 1, 0)
            pooled = _of_sides([tuple(row) for row in pools[:, [M2, DOF]]], variance_side)
            known = [row for row in pooled if row[1]]
            if not known:
                return own_N - np.mean(centers, 0)
            per_example_N = np.min([side.count for side in sides], 0) >= enough
            pooled = [row if row[1] else known[0] for row in pooled]
            variance = [
                np.where(per_example_N, m2 / np.maximum(dof, 1), p[0] / p[1])
                for (m2, dof), p in zip(residuals, pooled, strict=True)
            ]
        return _score(
            own_N, [Predictive(c, v, np.inf) for c, v in zip(centers, variance, strict=True)], form
        )

    return finish


def _of_sides(residuals: list[tuple], variance_side: str) -> list[tuple]:
    """Returns the (squared residuals, degrees of freedom) that are used for each side."""
    if variance_side == "each":
        return residuals
    shared = (
        tuple(map(sum, zip(*residuals, strict=True)))
        if variance_side == "both"
        else residuals[variance_side == "in"]
    )
    return [shared] * len(residuals)


def _shrunk(form: str):
    """Returns finish(own_N, sides, fitted) with Student-t predictives."""

    def finish(own_N, sides, fitted):
        predictives = _shrinkage.predictive(own_N, sides, fitted)
        return (
            own_N - np.mean(_sides.centers(sides, fitted[0]), 0)
            if predictives is None
            else _score(own_N, predictives, form)
        )

    return finish


def _score(own_N: np.ndarray, sides: Sequence[Predictive], form: str) -> np.ndarray:
    """Returns the score in the given form under the predictives of [OUT] or [OUT, IN]."""
    z, log_sd = zip(*(side.standardized(own_N) for side in sides), strict=True)
    if form == "log_cdf":
        return _student.log_cdf(z[0], sides[0].dof)
    log_density = [
        _student.log_density(z_N**2, side.dof) - log_N
        for z_N, log_N, side in zip(z, log_sd, sides, strict=True)
    ]
    return -log_density[0] if form == "log_pdf" else log_density[1] - log_density[0]
