"""Accuracy under evasion attacks, of members and non-members."""

from __future__ import annotations

from collections.abc import Mapping

from mia_jax.measures.evasion import LEVEL
from mia_jax.report import figures, rendering, tables

ORDER = 130
NEEDS = ("evasion",)
SIDES = dict(nonmembers="non-members", members="members")


def text(*, evasion: Mapping[str, Mapping], about: Mapping = {}) -> str:
    """Writes a line per evasion attack and side, and the radius at which the accuracy falls to
    LEVEL.
    """
    lines = [
        [name, title, *(f"{tables.percent(v)}%" for v in curve[side])]
        for name, curve in evasion.items()
        for side, title in SIDES.items()
    ]
    epsilons = next(iter(evasion.values()))["epsilon"]
    crossings = {
        name: f"{curve['crossing']:.3g}"
        for name, curve in evasion.items()
        if curve["crossing"] is not None
    }
    header = ["evasion attack", "rows", *(f"{epsilon:.3g}" for epsilon in epsilons)]
    return rendering.render(
        "evasion",
        header=header,
        lines=lines,
        crossings=crossings,
        level=LEVEL,
        pictured=about.get("contents", True),
    )


def figure(*, evasion: Mapping[str, Mapping], design: Mapping = {}):
    """Draws accuracy against the radius."""
    return figures.evasion(evasion, over=figures.targets_text(len(design.get("targets", ()))))
