"""What an attack costs: queries per example, counted where signals count them, and what a part of the budget would have bought."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from mia_jax import workdir
from mia_jax.report import tables
from mia_jax.training import probing
from mia_jax.types import Signal

Path = pathlib.Path


def labels_only(names: Sequence[str], signals: Mapping[str, Signal | None]) -> bool:
    """Whether an attack with these signals is told predicted labels and nothing else."""
    found = [signals.get(name) for name in names]
    return bool(found) and all(signal is not None and signal.access == "labels" for signal in found)


def spent(folder: Path, names: Sequence[str], signals: Mapping[str, Signal], *, models: Sequence[int], evaluated_MN, views: int) -> dict:
    """{queries: mean over the models' evaluated examples, queries_max: the most of one}, of all signals of an attack together.

    One forward pass a view answers every signal that needs no more; the others are counted (signal/<name>/<model>.queries.npy) or declared.
    """
    total_MN = np.zeros((len(models), np.shape(evaluated_MN)[1]))
    if any(signals[name].ask is None for name in names):
        total_MN += views
    for name in (name for name in names if signals[name].ask is not None):
        total_MN += np.stack([counts(folder, name, signals[name], m, total_MN.shape[1], views)[:, -1] for m in models])
    rows_MN = np.asarray(evaluated_MN, bool)[list(models)]
    return dict(queries=float(total_MN[rows_MN].mean()), queries_max=int(total_MN[rows_MN].max()))


def counts(folder: Path, name: str, signal: Signal, m: int, num_examples: int, views: int) -> np.ndarray:
    """[N,P]: the queries of one model's examples after each part of the budget (P=1 for a signal without parts), summed over views."""
    path = probing.count_file(folder, name, m)
    if not path.exists():
        if callable(signal.queries):
            raise FileNotFoundError(f"{path} does not exist; run the query stage first (stages_wanted=query,attack,report).")
        return np.full((num_examples, 1), signal.queries * views)
    count_AN = workdir.read_npy(path)
    return count_AN.sum(0).reshape(num_examples, -1)


def counted(folder: Path, needs: Sequence[str], models: Sequence[int]) -> list[np.ndarray] | None:
    """[N,P] of every model, where the first signal of an attack counts the queries of several parts of its budget; else None."""
    paths = [probing.count_file(folder, needs[0], m) for m in models]
    if not all(path.exists() for path in paths):
        return None
    found = [workdir.read_npy(path) for path in paths]
    return [count_ANP.sum(0) for count_ANP in found] if found[0].ndim == 3 and found[0].shape[2] > 1 else None


def section(found: Mapping, ranked: Sequence[str]) -> str:
    """The section of report.md: every label-only attack with its whole budget."""
    curves = found.get("queries") or {}
    if not curves:
        return ""
    percent = lambda p, k: tables.ABSENT if p[k] is None else tables.percent(p[k]) + "%"  # noqa: E731
    bounds = lambda p, k: "" if p[f"{k}_low"] is None else f" [{tables.percent(p[f'{k}_low'])}, {tables.percent(p[f'{k}_high'])}]"  # noqa: E731
    lines = []
    for name in sorted(curves, key=lambda n: curves[n][-1]["queries"]):
        for one in [p for i, p in enumerate(curves[name]) if i in (0, len(curves[name]) // 2, len(curves[name]) - 1)]:
            lines.append(
                [name, f"{one['queries']:,.1f}", percent(one, "accuracy") + bounds(one, "accuracy"), percent(one, "tpr") + bounds(one, "tpr")]
            )
    by = tables.sort_metric(tables.main_rows(found["results"]))
    header = ["attack", "queries per example", "balanced accuracy", tables.metric_name(by) if "@" in by else "TPR"]
    text = "## Query cost\n\nAttacks that see predicted labels only, with the mean number of queries per example; of those that can stop early, the "
    return text + "first, a middle and the last part of the budget (all are in report.json).\n\n" + tables.markdown(header, lines)


def point(rows: Sequence[Mapping], attack: str, queries: float, tpr: str) -> dict:
    """{queries, accuracy, accuracy_low, accuracy_high, tpr, tpr_low, tpr_high} of one attack (mean over targets), None where not resolvable."""
    found: dict = dict(queries=queries)
    for name, metric in (("accuracy", "balanced_accuracy"), ("tpr", tpr)):
        row = next((r for r in rows if (r["attack"], r["metric"], r["target"], r["slice"]) == (attack, metric, None, "all")), None) or {}
        found |= {name: row.get("value"), f"{name}_low": row.get("low"), f"{name}_high": row.get("high")}
    return found
