"""All attacks; separately those that know too much, and the oracle threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from mia_jax.metrics import rows as result_rows
from mia_jax.report import rendering, tables

ORDER = 70
NEEDS = ("results", "verdict")
TITLE = "All attacks"


def text(*, results: Sequence[Mapping], verdict: Mapping) -> str:
    """Writes the attacks in the verdict's order."""
    rows, ranked, apart = result_rows.main_rows(results), verdict["ranked"], verdict["apart"]
    return rendering.render(
        "attacks",
        ranked=tables.grid(rows, ranked),
        apart=tables.grid(rows, apart) if apart else None,
        oracle=tables.optimistic_grid(rows, [*ranked, *apart]),
        metric=result_rows.sort_metric(rows),
        tests=verdict["tests"],
        inverted=[name for name in (*ranked, *apart) if verdict["attacks"][name]["inverted"]],
    )


def html(*, results: Sequence[Mapping], verdict: Mapping) -> Markup:
    """Writes the place of the table that is sorted and filtered, and the text below it."""
    return rendering.render_html(
        "attacks", body=rendering.as_html(text(results=results, verdict=verdict))[1]
    )
