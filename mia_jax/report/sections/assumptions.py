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
    normality = any(
        numbers.get(f"{side}_normality_tested")
        for numbers in assumptions.values()
        for side in ("in", "out")
    )
    return (
        rendering.render("assumptions", lines=lines, normality=normality, level=LEVEL)
        if lines
        else ""
    )


def diagnosis(numbers: Mapping[str, float]) -> str:
    """Writes what the numbers of one attack say: macros of templates/assumptions_words.md.j2."""
    text = rendering.line(rendering.macros("assumptions_words").diagnosis(numbers))
    return text.replace(" ;", ";")
