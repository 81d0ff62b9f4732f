"""Whether what an attack assumes holds here."""

from __future__ import annotations

from collections.abc import Mapping

from mia_jax.measures.assumptions import LEVEL
from mia_jax.report import rendering, tables

ORDER = 190
NEEDS = ("assumptions",)


def text(*, assumptions: Mapping[str, Mapping]) -> str:
    """Writes a line per attack: normality, resolution of the scores, tuned constants."""
    lines = [
        [name, sentence]
        for name, numbers in assumptions.items()
        if (sentence := diagnosis(numbers))
    ]
    normality = any("normality" in sentence for _, sentence in lines)
    return (
        rendering.render("assumptions", lines=lines, normality=normality, level=LEVEL)
        if lines
        else ""
    )


def diagnosis(numbers: Mapping[str, float]) -> str:
    """Writes what the numbers of one attack say."""
    parts = []
    for side in ("in", "out"):
        if numbers.get(f"{side}_normality_tested"):
            share, tested = (
                tables.percent(numbers[f"{side}_normality_rejected"]),
                numbers[f"{side}_normality_tested"],
            )
            parts.append(
                f"normality of {side.upper()} shadows rejected for {share}% of {tested:,.0f} "
                "examples and views"
            )
        elif f"{side}_normality_tested" in numbers:
            parts.append(f"too few {side.upper()} shadows to test normality")
    if "resolution" in numbers:
        parts.append(
            f"scores are multiples of {numbers['resolution']:.2g}, "
            f"{tables.percent(numbers['top_tie_share'])}% of the rows tie at the top"
        )
    if "a" in numbers:
        parts.append(f"a = {numbers['a']:.2g} tuned on shadow models")
    return "; ".join(parts)
