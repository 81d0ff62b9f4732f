"""R-attack: how the target's signal ranks among the shadows that did not train on the example.

Source: Ye et al. 2022 (arXiv:2111.09679).
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_ndtr, ndtr

from mia_jax import checks
from mia_jax.attacks import _probability, _sides, _signals
from mia_jax.fitting import moments
from mia_jax.metrics.record_groups import EXACT
from mia_jax.types import Attack

TINY = 1e-280  # tails below it are computed as logarithms


def make(*, signal: str = "loss", quantile: str = "smooth", sign: int | None = None) -> Attack:
    """Scores -log p or 1 - p, where p is the target's upper tail among its k OUT shadows.

    s is the target's signal, s_m are the OUT shadows' signals on the same example. The score is the
    mean over the query views.

    Args:
        signal: the scalar signal that is ranked.
        quantile: 'count': 1 - (1 + #{m: s_m >= s}) / (k + 1), with k + 1 values; 0 for an example
            without OUT shadows. 'smooth': -log of the mean over m of Phi((s_m - s) / h), a kernel
            estimate that does not tie. h = pooled sd of the OUT residuals * (4 / 3k)^(1/5),
            Silverman's width; where every example has one OUT shadow, the sd of s - s_m over the
            examples replaces that of the residuals. An example without OUT shadows is compared with
            the overall OUT mean.
        sign: +1 if a larger signal means member, -1 if a smaller one does; None: as the signal
            declares.

    Raises:
        ValueError: No shadow is OUT on any evaluated row.
    """
    checks.one_of(("smooth", "count"), quantile=quantile)
    sign = _signals.sign_of(signal, sign)
    tail = _smooth if quantile == "smooth" else _count

    def score(evidence, key):
        del key
        x = np.flatnonzero(evidence.evaluated_N)
        (where_MN,) = _sides.masks_of(evidence, x, (_sides.OUT,))
        own_AN = sign * _signals.scalar(evidence.target[signal], "AN", signal)[:, x].astype(
            np.float64
        )
        total_X = 0.0
        for a, own_N in enumerate(own_AN):
            value_MN = evidence.shadow[signal][:, a]
            c = _sides.origin(own_N, value_MN.dtype)
            if len(x) > EXACT and quantile == "smooth":
                total_X += _smooth_of_many(own_N, value_MN, x, where_MN, sign=sign, origin=c)
                continue
            value_MN = sign * value_MN[:, x]
            total_X += tail(own_N - c, value_MN - np.asarray(c, value_MN.dtype), where_MN)
        return _sides.spread_out(total_X / len(own_AN), evidence.evaluated_N)

    return Attack(
        score,
        (signal, "shadow_out"),
        knows="shadows",
        note=f"{signal}, {quantile} quantile among OUT shadows",
    )


def _count(own_N: np.ndarray, value_MN: np.ndarray, where_MN: np.ndarray) -> np.ndarray:
    above_N = (where_MN & (value_MN >= own_N)).sum(0)
    return 1 - (1 + above_N) / (where_MN.sum(0) + 1)


def _smooth(own_N: np.ndarray, value_MN: np.ndarray, where_MN: np.ndarray) -> np.ndarray:
    side = moments.moments(value_MN, where_MN)
    center_N, width_N = _kernel(own_N, side)
    tail_N = _probability.log_mean(
        (_log_tail(value_N, own_N, width_N) for value_N in value_MN), where_MN
    )
    alone_N = log_ndtr((center_N - own_N) / width_N)
    return np.where(side.count > 0, -tail_N, -alone_N)


def _smooth_of_many(
    own_N: np.ndarray, value_MN, column_N, where_MN: np.ndarray, *, sign: int, origin: float
) -> np.ndarray:
    """Returns what `_smooth` returns, up to rounding: in blocks, adding up tails.

    Args:
        own_N: the target's values.
        value_MN: those of its shadows, of all examples.
        column_N: the examples that are scored.
        where_MN: which shadows are OUT on them.
        sign: what `value_MN` is multiplied by.
        origin: what is subtracted from all values.
    """
    own_N = own_N - origin
    sides = []
    blocks = list(moments.blocks(len(own_N)))
    for cols in blocks:
        block_MN = sign * value_MN[:, column_N[cols]].astype(np.float64) - origin
        sides.append(moments.moments(block_MN, where_MN[:, cols]))
    side = moments.Moments(*map(np.concatenate, zip(*sides, strict=True)))
    center_N, width_N = _kernel(own_N, side)
    score_N = -log_ndtr((center_N - own_N) / width_N)
    for cols in blocks:
        block_MN = sign * value_MN[:, column_N[cols]].astype(np.float64) - origin
        z_MN = np.where(where_MN[:, cols], block_MN, -np.inf)
        z_MN -= own_N[cols]
        z_MN /= width_N[cols]
        tail_N = ndtr(z_MN).sum(0)
        known_N = side.count[cols] > 0
        tail_N /= np.maximum(side.count[cols], 1)
        np.copyto(score_N[cols], -np.log(np.maximum(tail_N, TINY)), where=known_N)
        tiny = np.flatnonzero(known_N & (tail_N < TINY))
        if len(tiny):
            log_MK = log_ndtr(z_MN[:, tiny])
            score_N[cols][tiny] = -_probability.log_mean(log_MK, where_MN[:, cols][:, tiny])
    return score_N


def _kernel(own_N: np.ndarray, side: moments.Moments) -> tuple[np.ndarray, np.ndarray]:
    """Returns the centers of the OUT shadows and Silverman's width of the kernel, [N] each."""
    pools = _sides.pool(own_N, [side], [])
    (center_N,) = _sides.centers([side], pools)
    dof = pools[0, _sides.DOF]
    sd = np.sqrt(pools[0, _sides.M2] / dof) if dof else np.std(own_N - center_N)
    count_N = np.maximum(side.count, 1)
    width_N = sd * (4 / (3 * count_N)) ** 0.2
    width_N = np.maximum(
        width_N, np.finfo(np.float32).eps * np.maximum(np.abs(center_N), np.abs(own_N))
    )
    return center_N, np.where(width_N > 0, width_N, 1)


def _log_tail(value_N: np.ndarray, own_N: np.ndarray, width_N: np.ndarray) -> np.ndarray:
    """Returns log Phi((s_m - s) / h) of one shadow."""
    return log_ndtr((value_N - own_N) / width_N)
