"""Attacks over the epochs of training: the table of report.md, the points of its figure, and epochs.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mia_jax.report import tables

OPTIMISTIC = "advantage_optimistic"
MOST = 8  # lines of the table; every epoch is in epochs.csv


def points(accuracy: Sequence[Mapping], rows: Sequence[Mapping]) -> dict:
    """{accuracy: [{epoch, train_accuracy, validation_accuracy}], metrics, attacks: {name: [{epoch, <metric>: {value, low, high}}]}}.

    The metrics are the AUC, the TPR that attacks are sorted by, and the advantage at the best threshold (optimistic: picked with the answer at hand).
    """
    metrics = list(dict.fromkeys(["auc", tables.sort_metric(tables.main_rows(rows)), OPTIMISTIC]))
    attacks: dict[str, list[dict]] = {}
    for name in dict.fromkeys(row["attack"] for row in rows):
        for one in accuracy:
            own = [row for row in rows if row["epoch"] == one["epoch"]]
            found = {m: tables.resolved(own, name, m) or {} for m in metrics}
            attacks.setdefault(name, []).append(
                dict(epoch=one["epoch"]) | {m: {k: r.get(k) for k in ("value", "low", "high", "target", "method")} for m, r in found.items()}
            )
    return dict(accuracy=list(accuracy), metrics=metrics, attacks=attacks)


def curves(over: Mapping, *, prefix: str = "") -> dict[str, list[dict]]:
    """{prefix + attack: [{epoch, validation_accuracy, <metric>: {value, low, high}}]}: the lines of figures.epochs."""
    accuracy = [dict(validation_accuracy=one["validation_accuracy"]) for one in over["accuracy"]]
    return {prefix + name: [a | p for a, p in zip(accuracy, points, strict=True)] for name, points in over["attacks"].items()}


def title(metric: str) -> str:
    """A metric in prose.

    >>> title('tpr@0.01')
    'TPR at 1% FPR'
    """
    return "best possible advantage" if metric == OPTIMISTIC else tables.metric_name(metric)


def section(found: Mapping) -> str:
    """The section of report.md; '' without repeated attacks."""
    over = found.get("epochs")
    if not over:
        return ""
    every = max(1, -(-len(over["accuracy"]) // MOST))
    kept = [i for i in range(len(over["accuracy"])) if (len(over["accuracy"]) - 1 - i) % every == 0]
    header = [
        "epoch",
        "train accuracy",
        "validation accuracy",
        *(f"{tables.plain(a)} {title(m)}" for a in over["attacks"] for m in over["metrics"][:2]),
    ]
    share = lambda v: tables.ABSENT if v is None else f"{tables.percent(v)}%"  # noqa: E731
    lines = []
    for i in kept:
        one = over["accuracy"][i]
        cells = [tables.number(dict(points[i][m], metric=m)) for points in over["attacks"].values() for m in over["metrics"][:2]]
        lines.append([str(one["epoch"]), share(one["train_accuracy"]), share(one["validation_accuracy"]), *cells])
    text = "## How the leak grows with training\n\nThe same attacks on the models as they were after these epochs"
    text += ", shadows at the same epoch. Every epoch, slice and metric: epochs.csv.\n\n"
    return text + tables.markdown(header, lines, code_first=False)
