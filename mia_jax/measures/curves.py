"""Computes what the figures of a report draw of every attack: its ROC curve and its histograms.

Both are over all evaluated (target, record) pairs and are kept as whole numbers, so that
report.json stays small and every rate in a figure is a quotient of two of its counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from mia_jax.metrics import bootstrap, intervals, outcomes, record_groups, roc, summary
from mia_jax.metrics.sorted_scores import SortedScores

# of the largest figure that is drawn, in pixels of report.html or of figures/roc.png; in it, the
# thinned curve and the whole one are nowhere more than a pixel apart
WIDTH, HEIGHT = 920, 640
MANTISSAS = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)  # of the FPRs that have an interval
BINS = 60
MANY = 1 << 20  # scores from which a histogram's bins are set by a part of them


def rates(n_nonmember: int, fprs=()) -> list[float]:
    """Returns the rising FPRs at which a curve has an interval: `fprs`, and ten per decade from
    one false positive to 1.

    >>> rates(5)
    [0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0]
    """
    first = math.floor(math.log10(1 / n_nonmember))
    grid = [float(f"{m}e{exponent}") for exponent in range(first, 0) for m in MANTISSAS]
    return sorted({f for f in (*grid, *fprs, 1.0) if f > 0 and roc.resolvable(f, n_nonmember)})


def of(
    attacks: Mapping[str, Mapping],
    member_TN,
    evaluated_TN,
    draws: bootstrap.Draws,
    *,
    fprs=(),
    level: float = 0.95,
) -> tuple[dict[str, dict], dict[str, dict]]:
    """Returns the sections `curves` and `histograms` of report.json.

    Args:
        attacks: {attack: what has its `score_TN`}.
        member_TN, evaluated_TN: the members and the scored rows of each target.
        draws: the draws of the bootstrap.
        fprs: FPRs that get an interval besides those of `rates`.
        level: the confidence level of the intervals.

    Returns:
        {attack: `curve`}, {attack: `histogram`}.
    """
    curves, histograms = {}, {}
    evaluated_TN = np.asarray(evaluated_TN, bool)
    member_K = np.asarray(member_TN, bool)[evaluated_TN]
    for name, attack in attacks.items():
        score_TN = record_groups.as_scores(attack["score_TN"])
        curves[name] = curve(
            score_TN,
            member_TN,
            evaluated_TN,
            draws,
            fprs=fprs,
            level=level,
            done=attack.get("sorted"),
        )
        histograms[name] = histogram(score_TN[evaluated_TN], member_K)
    return curves, histograms


def curve(
    score_TN,
    member_TN,
    evaluated_TN,
    draws: bootstrap.Draws,
    *,
    fprs=(),
    level: float = 0.95,
    done: SortedScores | None = None,
) -> dict:
    """Returns the pooled ROC of an attack, thinned for a figure, with pointwise intervals.

    Args:
        score_TN, member_TN, evaluated_TN, draws, fprs, level: as in `of`.
        done: the sorted scores, for draws of groups of records; None sorts them.

    Returns:
        {n_member, n_nonmember, resampling, false, true, band}. `false` and `true` are the counts of
            flagged non-members and members at the vertices that are kept (see `thinned`), the
            step rule's vertex at every FPR of the band among them. `band` is {fpr, low, high}: the
            intervals of the TPR at the FPRs of `rates`.
    """
    whole, ends_of = summary.redrawn_pool(score_TN, member_TN, evaluated_TN, draws, done)
    at_F = rates(int(whole.n_nonmember), fprs)
    allowed_F = [outcomes.allowed(fpr, int(whole.n_nonmember)) for fpr in at_F]
    vertex_F = np.searchsorted(whole.false_V, allowed_F, side="right") - 1
    # FPRs that allow equally many false positives share an interval
    steps = sorted(set(allowed_F))
    ends = {step: drawn for step, *drawn in zip(steps, *ends_of(steps))}
    low, high = [], []
    for allowed, v in zip(allowed_F, vertex_F, strict=True):
        for end, drawn_R in enumerate(ends[allowed]):
            # With too few records to resample, the interval is [0, 1].
            usable = intervals.usable(drawn_R)
            bound = intervals.percentile(drawn_R, level)[end] if usable else float(end)
            value = float(whole.tpr_V[v])
            (high if end else low).append(round(max(bound, value) if end else min(bound, value), 6))
    kept_V = thinned(whole, keep=vertex_F)
    return dict(
        n_member=int(whole.n_member),
        n_nonmember=int(whole.n_nonmember),
        resampling=draws.resampling,
        false=whole.false_V[kept_V].astype(int).tolist(),
        true=whole.true_V[kept_V].astype(int).tolist(),
        band=dict(fpr=at_F, low=low, high=high),
    )


def thinned(whole: roc.Roc, *, keep=(), width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Returns the numbers of the vertices of a ROC that a figure needs.

    On log-log axes that reach down to one count or further, every vertex that is left out is less
    than a pixel to the right of and above the last one before it that is kept. So no point of the
    steps of the one curve is a pixel away from those of the other. The axis of the TPR may begin
    where that of the FPR does (figures/roc.png), so it is taken to be as long as the shorter side.

    Args:
        whole: the ROC.
        keep: vertices that are kept in any case.
        width, height: the size of the figure in pixels.
    """
    shorter = min(whole.n_member, whole.n_nonmember)
    # none is a pixel below one: the axes of few records reach further down than one
    place_V2 = np.stack(
        [
            np.where(
                count_V > 0,
                pixels * np.log(np.maximum(count_V, 1)) / math.log(max(total, 2)),
                -1.0,
            )
            for count_V, total, pixels in (
                (whole.false_V, whole.n_nonmember, width),
                (whole.true_V, shorter, height),
            )
        ],
        axis=1,
    )
    forced = np.zeros(len(place_V2), bool)
    forced[[0, -1]] = True
    forced[np.asarray(keep, int)] = True
    kept, last = [], 0
    stops = np.flatnonzero(forced)
    while last < len(place_V2):
        kept.append(last)
        if last == len(place_V2) - 1:
            break
        # both places rise with the vertex: the first that is a pixel away in either of them
        following = min(
            int(np.searchsorted(column, column[last] + 1, side="left")) for column in place_V2.T
        )
        last = min(max(following, last + 1), int(stops[np.searchsorted(stops, last + 1)]))
    return np.asarray(kept)


def histogram(score_K, member_K, bins: int = BINS) -> dict:
    """Returns how the scores of members and of non-members are distributed.

    Scores beyond the middle 99%, or more than ten interquartile ranges from the middle half (a tail
    that would squeeze all others into one bin; infinities among them), are counted in the outermost
    bins.

    Args:
        score_K: the scores.
        member_K: whether each row is a member.
        bins: the number of bins, which are equally wide.

    Returns:
        {low, high, member, nonmember}: the ends of all bins together, and the counts of both sides.
    """
    score_K, member_K = np.asarray(score_K).ravel(), np.asarray(member_K, bool).ravel()
    if len(score_K) > MANY:
        return _histogram_of_many(score_K, member_K, bins)
    score_K = score_K.astype(np.float64)
    edges = bin_edges(score_K, bins)
    clipped_K = np.clip(score_K, edges[0], edges[-1])
    return dict(
        low=float(edges[0]),
        high=float(edges[-1]),
        member=np.histogram(clipped_K[member_K], edges)[0].tolist(),
        nonmember=np.histogram(clipped_K[~member_K], edges)[0].tolist(),
    )


def _histogram_of_many(score_K: np.ndarray, member_K: np.ndarray, bins: int) -> dict:
    """Returns what `histogram` returns, with the ends of the bins from a part of the scores."""
    edges = bin_edges(score_K[:: len(score_K) // MANY + 1].astype(np.float64), bins)
    low, high = float(edges[0]), float(edges[-1])
    counts = np.zeros((2, bins), np.int64)
    for start in range(0, len(score_K), MANY):
        part = slice(start, start + MANY)
        score_k = score_K[part].astype(np.float64)
        place_K = (np.clip(score_k, low, high) - low) * (bins / (high - low))
        code_K = np.minimum(place_K.astype(np.int64), bins - 1) + bins * member_K[part]
        counts += np.bincount(code_K, minlength=2 * bins).reshape(2, bins)
    return dict(low=low, high=high, member=counts[1].tolist(), nonmember=counts[0].tolist())


def bin_edges(score_K: np.ndarray, bins: int) -> np.ndarray:
    """Returns the edges of equally wide bins that show the bulk of the scores; see `histogram`."""
    finite = score_K[np.isfinite(score_K)]
    low, lower, upper, high = (
        np.quantile(finite, [0.005, 0.25, 0.75, 0.995]) if finite.size else (0.0, 0.0, 0.0, 1.0)
    )
    if lower < upper:
        low, high = max(low, lower - 10 * (upper - lower)), min(high, upper + 10 * (upper - lower))
    if not low < high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, bins + 1)
