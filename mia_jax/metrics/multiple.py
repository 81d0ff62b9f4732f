"""Several tests at once: adjusted p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def holm(p_G) -> np.ndarray:
    """Adjusted p-values [G]: rejecting those <= alpha errs at all with probability <= alpha, whatever their dependence (Holm 1979).

    p_(i) -> max over j <= i of min(1, (G - j + 1) p_(j)).

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p_G = np.asarray(p_G, np.float64)
    order = np.argsort(p_G, kind="stable")
    found = np.empty(len(p_G))
    found[order] = np.minimum(1, np.maximum.accumulate(p_G[order] * np.arange(len(p_G), 0, -1)))
    return found


def leaks(rows: Sequence[Mapping], *, metrics: Sequence[str] | None = None, level: float = 0.95, attacks: Sequence[str] | None = None) -> list[dict]:
    """Which attacks do better than guessing, with Holm's correction over the attacks: rows {attack, p_value, p_holm, leaks, by}, the strongest first.

    `rows` are those of `summary.rows`. An attack's p-value is one-sided, against 'no metric is above guessing' (AUC 1/2, TPR = FPR): the smallest of
    the p-values of its `metrics` times their number (Bonferroni). Each belongs to the interval of its row: it is below (1 - level)/2 where that
    interval lies above guessing. A metric that has no interval for means over targets is taken from the pooled rows, and is left out where it has
    none there either. `metrics` None: 'auc' and the TPR at the FPR nearest 1%. `attacks` None: all of them.

    `leaks` is p_holm <= (1 - level)/2, so one attack with one metric is reported where its two-sided interval lies above guessing, and of attacks
    that all guess, one or more are reported with probability of at most (1 - level)/2, whatever their dependence. `by` is the row with the smallest
    p-value (None if no metric has one; p_value and p_holm are then None). No interval excludes guessing, with the correction, if
    not any(row['leaks'] for row in leaks(rows)).
    """
    names = list(dict.fromkeys(row["attack"] for row in rows)) if attacks is None else list(attacks)
    known = {
        (row["attack"], row["metric"], row["target"]): row
        for row in rows
        if row.get("p_value") is not None and row.get("slice", "all") == "all" and row["target"] in (None, "pooled")
    }
    wanted = _headline(rows) if metrics is None else tuple(metrics)
    found = []
    for name in names:
        own = [known.get((name, metric, None)) or known.get((name, metric, "pooled")) for metric in wanted]
        own = [row for row in own if row is not None]
        best = min(own, key=lambda row: row["p_value"], default=None)
        p = None if best is None else min(1.0, len(own) * best["p_value"])
        found.append(dict(attack=name, p_value=p, p_holm=None, leaks=False, by=best))
    tested = [row for row in found if row["p_value"] is not None]
    for row, p in zip(tested, holm([row["p_value"] for row in tested]), strict=True):
        row.update(p_holm=float(p), leaks=bool(p <= (1 - level) / 2))
    return sorted(found, key=lambda row: (row["p_value"] is None, row["p_value"]))


def _headline(rows: Sequence[Mapping]) -> tuple[str, ...]:
    """The AUC and the TPR at the FPR nearest 1%."""
    fprs = {float(row["metric"].removeprefix("tpr@")) for row in rows if row["metric"].startswith("tpr@")}
    return ("auc", *([f"tpr@{min(fprs, key=lambda f: abs(np.log(f / 0.01))):g}"] if fprs else []))


def benjamini_hochberg(p_N) -> np.ndarray:
    """Adjusted p-values [N], NaN kept: of those <= alpha an expected share of at most alpha is wrong (Benjamini and Hochberg 1995).

    p_(i) -> min over j >= i of min(1, N p_(j) / j), for independent or positively dependent tests.

    >>> benjamini_hochberg([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.04, 0.04]
    """
    p_N = np.asarray(p_N, np.float64)
    known = np.flatnonzero(~np.isnan(p_N))
    order = known[np.argsort(p_N[known], kind="stable")]
    found = np.full(len(p_N), np.nan)
    scaled = p_N[order] * len(order) / np.arange(1, len(order) + 1)
    found[order] = np.minimum(1, np.minimum.accumulate(scaled[::-1])[::-1])
    return found
