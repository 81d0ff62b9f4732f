"""What the attacks cost: the models that had to be trained, and their time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mia_jax.report import rendering, tables

ORDER = 115
NEEDS = ("models",)


def text(*, models: Sequence[Mapping], design: Mapping = {}) -> str:
    """Writes the number of models and their training time; '' where it was not measured."""
    seconds = [row["seconds"] for row in models if row.get("seconds") is not None]
    if not seconds:
        return ""
    return rendering.render(
        "cost",
        models=len(seconds),
        seconds=tables.statistic(seconds, lambda value: f"{value:.2g}", " s"),
        total=duration(sum(seconds)),
        shadows=(design.get("shadows_min"), design.get("shadows_max")),
    )


def duration(seconds: float) -> str:
    """Writes a time: '40 s', '12 min', '3.5 h'.

    >>> duration(40), duration(720), duration(12600)
    ('40 s', '12 min', '3.5 h')
    """
    size, unit = next((s, u) for s, u in ((3600, "h"), (60, "min"), (0, "s")) if seconds >= s)
    return f"{seconds / (size or 1):.3g} {unit}"
