"""Which records several attacks identify together, and which only one of them does."""

from __future__ import annotations

from collections.abc import Mapping

from mia_jax.report import figures, rendering, tables

ORDER = 85
NEEDS = ("agreement",)


def text(*, agreement: Mapping) -> str:
    """Writes a line per attack: what it identifies, what it alone does, and its agreement with the
    first.
    """
    if "why" in agreement:
        return rendering.render("agreement_missing", why=agreement["why"])
    first = next(iter(agreement["attacks"]))
    lines = [
        [
            name,
            f"{row['identified']:.1f}",
            f"{row['false']:.1f}",
            f"{row['only']:.1f}",
            f"{row['only_false']:.1f}",
            index(agreement["jaccard"][0][a]),
            index(agreement["chance"][0][a]),
        ]
        for a, (name, row) in enumerate(agreement["attacks"].items())
    ]
    given = dict(same=None, alike={}) | agreement  # reports of older versions have neither
    return rendering.render("agreement", first=first, lines=lines, **given)


def index(value: float | None) -> str:
    """Writes a Jaccard index."""
    return tables.ABSENT if value is None else f"{value:.2f}"


def figure(*, agreement: Mapping):
    """Draws the Jaccard index of each two attacks; None where there is none to show."""
    if "why" in agreement or len(agreement["attacks"]) < 2 or not agreement["union"]["identified"]:
        return None
    over = "mean over targets" if agreement["targets"] > 1 else "one target"
    return figures.agreement(
        list(agreement["attacks"]),
        agreement["jaccard"],
        over=f"each at {tables.rate_name(agreement['fpr'])} FPR; {over}",
    )
