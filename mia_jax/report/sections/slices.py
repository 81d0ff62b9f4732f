"""The most exposed slices under the leading attack."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from mia_jax.report import rendering, tables

ORDER = 150
NEEDS = ("slices", "verdict")
TITLE = "Which slices are most exposed"
MOST = 8  # slices in the table of report.md; all are in results.csv
MOST_ON_THE_PAGE = 1000


def text(*, slices: Mapping, verdict: Mapping, about: Mapping = {}) -> str:
    """Writes the slices by the lower end of their AUC's interval, and what cannot be sliced."""
    return _rendered(slices, verdict, about, most=MOST)


def html(*, slices: Mapping, verdict: Mapping, about: Mapping = {}) -> Markup:
    """Writes all slices, in a table that is sorted by its headings."""
    return rendering.as_html(_rendered(slices, verdict, about, most=MOST_ON_THE_PAGE))[1]


def _rendered(slices: Mapping, verdict: Mapping, about: Mapping, *, most: int) -> str:
    notes = [tables.plain(note) for note in slices.get("said", ())]
    attack = next((name for name in verdict["ranked"] if slices.get("ranking", {}).get(name)), None)
    if attack is None:
        return rendering.render("slices_missing", notes=notes) if notes else ""
    entries, alpha = slices["ranking"][attack], 1 - about.get("level", 0.95)
    three = "{:.3f}".format
    lines = [
        [
            entry["slice"] + ("*" if entry["post_hoc"] else ""),
            f"{entry['auc']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]",
            "{} [{}, {}]".format(
                *(tables.signed(entry[k], three) for k in ("excess", "excess_low", "excess_high"))
            ),
            tables.p_text(entry["p_holm"]),
            f"{entry['n_records']:,}",
        ]
        for entry in entries[:most]
    ]
    return rendering.render(
        "slices",
        attack=attack,
        lines=lines,
        leaking=sum(entry["p_holm"] <= alpha for entry in entries),
        count=len(entries),
        alpha=f"{100 * alpha:.3g}%",
        small=slices.get("too_small", 0),
        post_hoc=any(entry["post_hoc"] for entry in entries[:most]),
        notes=notes,
    )
