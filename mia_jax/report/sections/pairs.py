"""How well a siamese net separates pairs of one class from pairs of two classes."""

from __future__ import annotations

from collections.abc import Mapping

from mia_jax.report import rendering, tables

ORDER = 140
NEEDS = ("pairs",)
SIDES = dict(nonmembers="held out", members="members")


def text(*, pairs: Mapping) -> str:
    """Writes the accuracy of the verification on held-out rows and on members."""
    targets, threshold, lines = pairs["targets"], pairs["threshold"], []
    plain = lambda value: f"{value:.3f}"  # noqa: E731
    for side, name in SIDES.items():
        rows = [target[side] for target in targets]
        accuracy = tables.statistic([row["accuracy"] for row in rows])
        accuracy += (
            f" [{tables.percent(rows[0]['low'])}, {tables.percent(rows[0]['high'])}]"
            if len(rows) == 1
            else ""
        )
        chosen = tables.statistic([row["accuracy_chosen"] for row in rows])
        lines.append(
            [
                name,
                accuracy,
                chosen,
                *(
                    tables.statistic([row[key] for row in rows], plain, "")
                    for key in ("auc", "same", "different")
                ),
            ]
        )
    return rendering.render(
        "pairs",
        threshold=f"{threshold:g}",
        half=f"{threshold / 2:g}",
        chosen=tables.statistic(
            [target["chosen"] for target in targets], lambda value: f"{value:.2f}", ""
        ),
        count=f"{pairs['pairs']:,}",
        lines=lines,
        targets=len(targets),
        collapsed=sum(target["collapsed"] for target in targets),
    )
