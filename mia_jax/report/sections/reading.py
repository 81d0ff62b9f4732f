"""How to read the report: the conventions of its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mia_jax.metrics import rows as result_rows
from mia_jax.report import rendering
from mia_jax.report.sections import privacy_audit

ORDER = 220
NEEDS = ("results",)
KNOWLEDGE = dict(
    nothing="`nothing`: the target's answers only",
    shadows="`shadows`: shadow models that the attacker trained",
    population="`population`: rows that no model was trained on",
)


def text(*, results: Sequence[Mapping], audit: Mapping | None = None) -> str:
    """Explains the metrics and intervals that occur."""
    rows = result_rows.main_rows(results)
    shown = (row for row in rows if row["interval"] and row["target"] in (None, "pooled"))
    return rendering.render(
        "reading",
        knowledge=[
            KNOWLEDGE[key]
            for key in dict.fromkeys(row["knows"] for row in rows)
            if key in KNOWLEDGE
        ],
        audit=privacy_audit.TITLE if audit else "",
        methods=list(dict.fromkeys(f"{row['interval']}: {row['method']}" for row in shown)),
    )
