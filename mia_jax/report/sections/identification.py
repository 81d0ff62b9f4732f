"""How many records an attacker identifies who bounds the expected share of false ones."""

from __future__ import annotations

from collections.abc import Mapping

from mia_jax.report import rendering, tables

ORDER = 165
NEEDS = ("identification",)


def text(*, identification: Mapping) -> str:
    """Writes what the attack ranked first identifies, and a line per attack."""
    attacks = identification["attacks"]
    first = next(iter(attacks))
    most = max(attacks, key=lambda name: attacks[name]["identified"])
    lines = [
        [
            name,
            f"{row['identified']:.1f}",
            f"{row['false']:.1f}",
            f"{tables.percent(row['realized_share'])}%",
            f"{row['targets_with_any']:,} of {identification['targets']:,}",
        ]
        for name, row in attacks.items()
    ]
    return rendering.render("identification", first=first, most=most, lines=lines, **identification)
