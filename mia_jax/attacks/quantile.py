"""Quantile regression attack: how extreme the target's signal is for an example like this one.

The reference is the target's signals on rows that no model trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from scipy.special import ndtri

from mia_jax import checks, registry
from mia_jax.attacks import _features, _signals
from mia_jax.fitting import quantiles, rows
from mia_jax.types import Attack

HEADS = dict(
    linear=quantiles.linear, mlp=quantiles.mlp, gradient_boosting=quantiles.gradient_boosting
)
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
FEWEST = 5  # population rows
FLOOR = 0.05  # of the mean width: no example is trusted to have a narrower distribution


def make(
    *,
    head: str = "linear",
    signal: str = "rescaled_logit",
    features: Sequence[str] = ("x",),
    columns: Sequence[str] = (),
    levels: Sequence[float] = LEVELS,
    sign: int | None = None,
    options: Mapping = {},
) -> Attack:
    """Scores z: Phi(z) estimates P(signal of a non-member like x <= the target's signal on x).

    The quantiles q_t(x) at `levels` t are regressed (pinball loss) on the population rows' target
    signals, the mean over the query views times the sign. z is the piecewise linear map q_t(x) ->
    Phi^-1(t). Beyond the outermost level it continues with the mean slope between that level and
    the middle one, whose inverse is at least 5% of its mean over the population. So z is finite,
    grows with the signal and orders examples beyond every level. Where all population rows have the
    same value, z is the distance from it. Rows enter in the order of a hash of their values.

    Args:
        head: the regression: 'linear', 'mlp' or 'gradient_boosting'.
        signal: the scalar signal.
        features: what is known without the target's answer: 'x' (flattened), 'label', and
            'shadow_out', the mean over the shadows that did not train on the example (where there
            is none: the mean over rows).
        columns: further features, columns of the pool.
        levels: ascending in (0, 1), equally many on both sides of the middle one.
        sign: +1 if a larger signal means member, -1 if a smaller one does; None: as the signal
            declares.
        options: arguments of the regression's maker (mia_jax.fitting.quantiles).

    Raises:
        ValueError: Fewer than 5 population rows, NaN, or other levels.

    Source: Bertran et al. 2023 (arXiv:2307.03694).
    """
    checks.one_of(HEADS, head=head)
    sign = _signals.sign_of(signal, sign)
    level_T = _levels(levels)
    regress = registry.call(HEADS[head], f"options of head {head!r}", options)
    names = tuple([features] if isinstance(features, str) else features)
    plain = tuple(n for n in names if n != "shadow_out")
    for name in plain:
        checks.one_of(("x", "label", "shadow_out"), features=name)
    features_read = (
        _features.make(plain, columns) if plain or columns or "shadow_out" not in names else None
    )
    needs = [
        signal,
        "population",
        *(features_read.needs if features_read else ()),
        *(["shadow_out"] if "shadow_out" in names else []),
    ]

    def score(evidence, key):
        draw, learn = jax.random.split(key)
        s_N = sign * _signals.scalar(evidence.target[signal], "AN", signal).astype(np.float64).mean(
            0
        )
        known, asked = np.flatnonzero(evidence.population_N), np.flatnonzero(evidence.evaluated_N)
        if len(known) < FEWEST:
            few = (
                f"quantile regression needs at least {FEWEST} population rows; there are "
                f"{len(known)}."
            )
            raise ValueError(f"{few} Raise design.population, or pass more population_<key>.")
        checks.finite(
            **{
                f"signal {signal!r} on evaluated and population rows": s_N[
                    evidence.evaluated_N | evidence.population_N
                ]
            }
        )
        x_KF, x_NF = _inputs(evidence, signal, features_read, known, asked)
        salt = _features.salt(draw)
        known_order = np.argsort(rows.hashes(np.c_[x_KF, s_N[known]], salt), kind="stable")
        asked_order = np.argsort(rows.hashes(np.c_[x_NF, s_N[asked]], salt), kind="stable")
        known, asked, x_KF, x_NF = (
            known[known_order],
            asked[asked_order],
            x_KF[known_order],
            x_NF[asked_order],
        )
        scaling = rows.scaling(x_KF)
        score_N = np.full(len(s_N), np.nan)
        score_N[asked] = _standing(
            regress, scaling(x_KF), s_N[known], scaling(x_NF), s_N[asked], level_T, learn
        )
        return score_N

    note = (
        f"{head} quantiles of {signal} given {', '.join([*names, *columns])}, on population rows; "
        "score = normal score of the estimated level"
    )
    return Attack(score, tuple(dict.fromkeys(needs)), knows="shadows", note=note)


def _levels(levels: Sequence[float]) -> np.ndarray:
    level_T = np.asarray(levels, np.float64)
    if (
        len(level_T) < 3
        or len(level_T) % 2 == 0
        or (np.diff(level_T) <= 0).any()
        or not 0 < level_T[0] <= level_T[-1] < 1
    ):
        raise ValueError(
            f"levels={tuple(levels)} must be an odd number, at least 3, of ascending numbers in "
            f"(0, 1), such as {LEVELS}."
        )
    return level_T


def _inputs(
    evidence, signal: str, features_read, known: np.ndarray, asked: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the features of the population rows and of the rows to score."""
    parts = []
    if features_read:
        parts.append(
            [_features.matrix(features_read, {}, evidence, part) for part in (known, asked)]
        )
    if evidence.visible_MN is not None:
        outside_MN = evidence.visible_MN & ~evidence.shadow_member_MN
        count_N = outside_MN.sum(0)
        mean_MN = _signals.mean_over_views(evidence.shadow[signal])
        total_N = np.where(outside_MN, mean_MN, 0).sum(0)
        mean_N = np.where(
            count_N > 0, total_N / np.maximum(count_N, 1), total_N.sum() / max(count_N.sum(), 1)
        )
        checks.finite(**{f"the mean of signal {signal!r} over shadows": mean_N})
        parts.append([mean_N[part, None] for part in (known, asked)])
    return tuple(np.concatenate(part, 1) for part in zip(*parts, strict=True))


def _standing(regress, x_KF, s_K, x_NF, s_N, level_T: np.ndarray, key) -> np.ndarray:
    """Returns z_N of the signals s_N given x_NF, from quantiles learned on (x_KF, s_K).

    Signals are standardized by the median and the standard deviation of s_K.
    """
    center, spread = np.median(s_K), s_K.std()
    if s_K.max() == s_K.min() or not spread > 0:
        return s_N - s_K[0]
    s_K, s_N = (s_K - center) / spread, (s_N - center) / spread
    quantile_T = regress(x_KF, s_K, np.concatenate([x_KF, x_NF]), level_T, key)
    middle, z_T = len(level_T) // 2, ndtri(level_T)
    floor = [
        FLOOR * max(float(_width(quantile_T[: len(s_K)], z_T, side, middle).mean()), 1e-6)
        for side in (0, -1)
    ]
    return level_score(s_N, quantile_T[len(s_K) :], level_T, floor)


def _width(quantile_NT: np.ndarray, z_T: np.ndarray, side: int, middle: int) -> np.ndarray:
    """Returns d quantile / d z between the middle level and the outermost one of a side.

    `side` is 0 for the lowest level, -1 for the highest.
    """
    return (quantile_NT[:, side] - quantile_NT[:, middle]) / (z_T[side] - z_T[middle])


def level_score(
    s_N: np.ndarray,
    quantile_NT: np.ndarray,
    level_T: np.ndarray,
    floor: Sequence[float] = (1e-6, 1e-6),
) -> np.ndarray:
    """Maps s through the piecewise linear map of ascending quantiles [N,T] to Phi^-1(level).

    Widths beyond the ends are at least `floor`. Between equal quantiles the upper level counts. The
    map is strictly increasing in s beyond the ends, non-decreasing everywhere.
    """
    z_T, last, middle = ndtri(level_T), len(level_T) - 1, len(level_T) // 2
    below_N = (quantile_NT <= s_N[:, None]).sum(1)  # how many quantiles s has reached
    left_N, right_N = np.clip(below_N - 1, 0, last), np.clip(below_N, 0, last)
    low_N, high_N = (
        np.take_along_axis(quantile_NT, i[:, None], 1)[:, 0] for i in (left_N, right_N)
    )
    gap_N = np.where(high_N > low_N, high_N - low_N, 1.0)
    inside_N = z_T[left_N] + (z_T[right_N] - z_T[left_N]) * np.where(
        high_N > low_N, (s_N - low_N) / gap_N, 0.0
    )
    lower_N = z_T[0] + (s_N - quantile_NT[:, 0]) / np.maximum(
        _width(quantile_NT, z_T, 0, middle), floor[0]
    )
    upper_N = z_T[-1] + (s_N - quantile_NT[:, -1]) / np.maximum(
        _width(quantile_NT, z_T, -1, middle), floor[1]
    )
    return np.where(below_N == 0, lower_N, np.where(below_N > last, upper_N, inside_N))
