"""The most exposed records, ranked on one half of the targets and measured on the other."""

from __future__ import annotations

from collections.abc import Mapping

from mia_jax.report import rendering, tables

ORDER = 160
NEEDS = ("records",)


def text(*, records: Mapping[str, Mapping], validity: Mapping = {}, about: Mapping = {}) -> str:
    """Writes what each measured attack says about single records."""
    return rendering.render(
        "records",
        parts=[
            of_attack(name, table, validity=validity, about=about)
            for name, table in records.items()
        ],
    )


def of_attack(name: str, table: Mapping, *, validity: Mapping = {}, about: Mapping = {}) -> str:
    """Writes the records under one attack; they are listed only where some are significantly
    exposed.
    """
    if "why" in table:
        kind = "arrays" if about.get("arrays") else "target" if about.get("target") else "fleet"
        return rendering.render(
            "records_missing", attack=name, why=table["why"], few=bool(table.get("few")), kind=kind
        )
    winners, alpha = table.get("most_exposed", {}), 1 - table["level"]
    listed = table.get("listed", ())
    lines = [
        [
            str(entry["record"]),
            f"{entry['ranked_auc']:.3f}",
            f"{entry['auc']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]",
            tables.p_text(entry["q"]),
        ]
        for entry in listed
        if entry["q"] <= alpha
    ]
    bounds = "" if winners.get("low") is None else f" [{winners['low']:.3f}, {winners['high']:.3f}]"
    return rendering.render(
        "records_attack",
        attack=name,
        measured=table,
        rate=f"{100 * alpha:.3g}%",
        bounds=bounds,
        single=(validity or {}).get("records"),
        first=len(listed),
        lines=lines if winners.get("records") else [],
    )
