"""Whether what an attack assumes holds here."""

from __future__ import annotations

from collections.abc import Mapping

from mia_jax.measures.assumptions import LEVEL
from mia_jax.report import rendering, tables

ORDER = 190
NEEDS = ("assumptions",)


def text(*, assumptions: Mapping[str, Mapping]) -> str:
    """Writes normality, resolution of the scores and tuned constants, attacks alike in one line."""
    attacks: dict[str, list[str]] = {}
    for name, numbers in assumptions.items():
        if sentence := diagnosis(numbers):
            attacks.setdefault(sentence, []).append(tables.code(name))
    lines = [[", ".join(names), sentence] for sentence, names in attacks.items()]
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
                f"normality among {side.upper()} shadow models rejected in {share}% of "
                f"{tested:,.0f} tests"
            )
        elif f"{side}_normality_tested" in numbers:
            parts.append(f"too few {side.upper()} shadow models to test normality")
    if "resolution" in numbers:
        parts.append(
            f"scores are multiples of {numbers['resolution']:.2g}, "
            f"{tables.percent(numbers['top_tie_share'])}% of the rows tie at the top"
        )
    if "a" in numbers:
        parts.append(f"a = {numbers['a']:.2g} tuned on shadow models")
    return "; ".join(parts)
