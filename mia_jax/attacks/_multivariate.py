"""LiRA with one density over all query views (or signals) of an example.

Each view has its own variances; the correlation is shared by all examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mia_jax.attacks import _shrinkage, _sides, _signals, _student
from mia_jax.attacks._sides import DOF, M2
from mia_jax.attacks._student import Predictive
from mia_jax.fitting import moments
from mia_jax.fitting.moments import Moments
from mia_jax.metrics.record_groups import EXACT
from mia_jax.types import Attack

LEAST = 1e-6  # share of the identity in a correlation, so that two equal views can be inverted


def attack(
    *,
    signal: str,
    sign: int | None,
    kinds: Sequence[str],
    center: str,
    form: str,
    shrunk: bool,
    note: str,
    diagnose: Callable,
) -> Attack:
    """Makes LiRA on vectors, with densities of covariance D_n R D_n; see `score`.

    Densities are Student-t if `shrunk`, else Gaussian. The other arguments are as in
    `_sides.attack` and lira.
    """
    sign = _signals.sign_of(signal, sign)
    needs = (signal, *(f"shadow_{kind}" for kind in (_sides.IN, _sides.OUT) if kind in kinds))

    def score_evidence(evidence, key):
        del key
        if np.count_nonzero(evidence.evaluated_N) > EXACT:
            rule = dict(kinds=kinds, center=center, form=form, shrunk=shrunk)
            return score_many(evidence, signal=signal, sign=sign, **rule)
        value_MAN, own_AN = (
            v.astype(np.float64) * sign for v in (evidence.shadow[signal], evidence.target[signal])
        )
        _signals.scalar(own_AN, "AN", signal)
        middle_A1 = np.array(
            [
                [_sides.origin(own_N[evidence.evaluated_N], evidence.target[signal].dtype)]
                for own_N in own_AN
            ]
        )
        own_AN, value_MAN = own_AN - middle_A1, value_MAN - middle_A1
        return score(
            evidence, own_AN, value_MAN, kinds=kinds, center=center, form=form, shrunk=shrunk
        )

    return Attack(score_evidence, needs, knows="shadows", note=note, diagnose=diagnose)


def score(
    evidence,
    own_AN: np.ndarray,
    value_MAN: np.ndarray,
    *,
    kinds: Sequence[str],
    center: str,
    form: str,
    shrunk: bool,
) -> np.ndarray:
    """Returns score_N under densities of whole vectors.

    Per side z_a = (s_a - c_a) / sd_a with the predictives of each axis a, and R is the correlation
    of the shadows' residuals over all examples. The log density is -log det(D_n) - log det(R) / 2 +
    log t(z' R^-1 z). Form 'log_cdf' is one-sided along the direction in which all axes grow
    together: log P(T <= 1' R^-1 z / sqrt(1' R^-1 1)). Without residuals (one shadow per side) R is
    the identity.
    """
    cols = np.flatnonzero(evidence.evaluated_N)
    masks = _sides.masks_of(evidence, cols, kinds)
    axes, distance, residuals = [], [], [[] for _ in masks]
    for own_N, value_MN in zip(own_AN[:, cols], value_MAN[:, :, cols].swapaxes(0, 1), strict=True):
        sides = [moments.moments(value_MN, where_MN, center) for where_MN in masks]
        pools = _sides.pool(own_N, sides, [])
        distance.append(own_N - np.mean(_sides.centers(sides, pools), 0))
        predictives = _predictive(own_N, sides, pools, shrunk)
        if predictives is None:
            continue
        axes.append(
            [(*predictive.standardized(own_N), predictive.dof) for predictive in predictives]
        )
        for kept, where_MN, side, predictive in zip(
            residuals, masks, sides, predictives, strict=True
        ):
            sd_N = np.sqrt(np.where(predictive.variance > 0, predictive.variance, 1))
            kept.append(((value_MN - side.center) / sd_N)[where_MN])
    if len(axes) < len(distance):
        return _sides.spread_out(np.mean(distance, 0), evidence.evaluated_N)
    crossed = [kept_AK @ kept_AK.T for kept_AK in map(np.stack, residuals)]
    dofs = [int(np.maximum(where_MN.sum(0) - 1, 0).sum()) for where_MN in masks]
    return _sides.spread_out(_scored(axes, crossed, dofs, form), evidence.evaluated_N)


def score_many(
    evidence, *, signal: str, sign: int, kinds: Sequence[str], center: str, form: str, shrunk: bool
) -> np.ndarray:
    """Returns what `score` returns, up to rounding: signals are read in blocks of examples."""
    cols = np.flatnonzero(evidence.evaluated_N)
    masks = _sides.masks_of(evidence, cols, kinds)
    own_AN = sign * _signals.scalar(evidence.target[signal], "AN", signal)[:, cols].astype(float)
    middle_A = [_sides.origin(own_N, evidence.target[signal].dtype) for own_N in own_AN]
    own_AN -= np.array(middle_A)[:, None]
    blocks = list(moments.blocks(len(cols)))

    def values(a: int, block: slice) -> np.ndarray:
        value_MN = evidence.shadow[signal][:, a, cols[block]]
        return value_MN.astype(np.float64) * sign - middle_A[a]

    axes, distance, scales = [], [], []
    for a, own_N in enumerate(own_AN):
        parts = [
            [moments.moments(values(a, b), where_MN[:, b], center) for where_MN in masks]
            for b in blocks
        ]
        sides = [
            Moments(*map(np.concatenate, zip(*side, strict=True)))
            for side in zip(*parts, strict=True)
        ]
        pools = _sides.pool(own_N, sides, [])
        distance.append(own_N - np.mean(_sides.centers(sides, pools), 0))
        predictives = _predictive(own_N, sides, pools, shrunk)
        if predictives is None:
            continue
        axes.append([(*p.standardized(own_N), p.dof) for p in predictives])
        variances = [np.where(p.variance > 0, p.variance, 1) for p in predictives]
        scales.append([(s.center, np.sqrt(v)) for s, v in zip(sides, variances, strict=True)])
    if len(axes) < len(distance):
        return _sides.spread_out(np.mean(distance, 0), evidence.evaluated_N)
    crossed = [np.zeros((len(axes), len(axes))) for _ in masks]
    for block in blocks:
        value_AMN = [values(a, block) for a in range(len(axes))]
        for k, where_MN in enumerate(masks):
            shown = where_MN[:, block]
            residual_AK = np.stack(
                [
                    ((value_MN - scales[a][k][0][block]) / scales[a][k][1][block])[shown]
                    for a, value_MN in enumerate(value_AMN)
                ]
            )
            crossed[k] += residual_AK @ residual_AK.T
    dofs = [int(np.maximum(where_MN.sum(0) - 1, 0).sum()) for where_MN in masks]
    return _sides.spread_out(_scored(axes, crossed, dofs, form), evidence.evaluated_N)


def _scored(axes: Sequence, crossed: Sequence[np.ndarray], dofs: Sequence[int], form: str):
    """Returns the scores from the standardized values of every axis and side.

    Args:
        axes: per axis and side (z_N, log sd_N, degrees of freedom).
        crossed: per side the products [A,A] of the residuals, summed.
        dofs: per side their degrees of freedom.
        form: see `score`.
    """
    log_density = []
    for k, (cross_AA, dof) in enumerate(zip(crossed, dofs, strict=True)):
        inverse_AA, log_det = _inverse_correlation(cross_AA, dof)
        z_AN, log_sd_AN = (np.stack([axis[k][field] for axis in axes]) for field in (0, 1))
        dof_N = np.min([np.broadcast_to(axis[k][2], z_AN.shape[1]) for axis in axes], 0)
        if form == "log_cdf":
            along_A = inverse_AA.sum(0)
            return _student.log_cdf(along_A @ z_AN / np.sqrt(along_A.sum()), dof_N)
        squares_N = np.einsum("an,ab,bn->n", z_AN, inverse_AA, z_AN)
        log_density.append(
            _student.log_density(squares_N, dof_N, len(axes)) - log_sd_AN.sum(0) - log_det / 2
        )
    return -log_density[0] if form == "log_pdf" else log_density[1] - log_density[0]


def _predictive(
    own_N: np.ndarray, sides: Sequence[Moments], pools: np.ndarray, shrunk: bool
) -> list[Predictive] | None:
    """Returns the predictives of one axis, None without residuals.

    They are those of _shrinkage.py, or Gaussians with the pooled variance.
    """
    if shrunk:
        return _shrinkage.predictive(
            own_N, sides, [pools, _shrinkage.regressions(own_N, sides, [pools])]
        )
    known = [i for i in range(len(sides)) if pools[i, DOF]]
    if not known:
        return None
    source = [i if i in known else known[0] for i in range(len(sides))]
    variance = [np.full(len(own_N), pools[i, M2] / pools[i, DOF]) for i in source]
    return [
        Predictive(c, v, np.inf)
        for c, v in zip(_sides.centers(sides, pools), variance, strict=True)
    ]


def _inverse_correlation(cross_AA: np.ndarray, dof: int) -> tuple[np.ndarray, float]:
    """Returns (R^-1, log det R) of the residuals' correlation, from their products [A,A].

    It is shrunk toward the identity by A / dof (completely without residuals).
    """
    axes = len(cross_AA)
    scale_A = np.sqrt(np.where(np.diag(cross_AA) > 0, np.diag(cross_AA), 1))
    share = min(1.0, max(axes / dof, LEAST)) if dof else 1.0
    r_AA = (1 - share) * cross_AA / np.outer(scale_A, scale_A)
    r_AA[np.diag_indices(axes)] = 1
    return np.linalg.inv(r_AA), float(np.linalg.slogdet(r_AA)[1])
