"""Attacks over the epochs of training."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from mia_jax.measures.epochs import OPTIMISTIC, curves
from mia_jax.report import figures, rendering, tables

ORDER = 120
NEEDS = ("epochs",)
TITLE = "Leakage over the epochs of training"
MOST = 8  # lines of the table of report.md; every epoch is in epochs.csv


def text(*, epochs: Mapping) -> str:
    """Writes accuracies and the attacks' AUC and TPR at up to MOST epochs."""
    return _rendered(epochs, most=MOST)


def html(*, epochs: Mapping) -> Markup:
    """Writes the places of the figures, which the page's script draws, and every epoch."""
    known = any(row["validation_accuracy"] is not None for row in epochs["accuracy"])
    written = _rendered(epochs, most=len(epochs["accuracy"]))
    return rendering.render_html("epochs", body=rendering.as_html(written)[1], accuracy=known)


def _rendered(epochs: Mapping, *, most: int) -> str:
    accuracy, metrics = epochs["accuracy"], epochs["metrics"][:2]
    every = max(1, -(-len(accuracy) // max(most, 1)))

    def share(value):
        return tables.ABSENT if value is None else f"{tables.percent(value)}%"

    lines = []
    for i in (i for i in range(len(accuracy)) if (len(accuracy) - 1 - i) % every == 0):
        row = accuracy[i]
        cells = [
            tables.number(dict(curve[i][m], metric=m))
            for curve in epochs["attacks"].values()
            for m in metrics
        ]
        lines.append(
            [
                str(row["epoch"]),
                share(row["train_accuracy"]),
                share(row["validation_accuracy"]),
                *cells,
            ]
        )
    columns = [
        f"{tables.plain(name)} {title(metric)}" for name in epochs["attacks"] for metric in metrics
    ]
    return rendering.render(
        "epochs", header=["epoch", "train accuracy", "validation accuracy", *columns], lines=lines
    )


def figure(*, epochs: Mapping, design: Mapping = {}):
    """Draws every metric against the epoch and against the accuracy on non-members."""
    over = figures.targets_text(len(design.get("targets", ())))
    return figures.epochs(
        curves(epochs),
        titles={metric: title(metric) for metric in epochs["metrics"]},
        over=over,
    )


def title(metric: str) -> str:
    """Names a metric in prose.

    >>> title('tpr@0.01')
    'TPR at 1% FPR'
    """
    return (
        "advantage at the oracle threshold" if metric == OPTIMISTIC else tables.metric_name(metric)
    )
