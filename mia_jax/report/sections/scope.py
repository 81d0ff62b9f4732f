"""What the report shows and does not show, for those who sign an assessment of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from mia_jax.report import rendering, scope, tables

ORDER = 65
NEEDS = ("results", "verdict")
TITLE = "What this report shows and does not show"


def text(*, results: Sequence[Mapping], verdict: Mapping, **report) -> str:
    """Writes two tables: question, what this report says, where."""
    whole = dict(report, results=results, verdict=verdict)

    def lines(questions: Sequence[scope.Question]) -> list[list[str]]:
        return [
            [question, says, "; ".join(scope.NAMES[section] for section in where)]
            for _, question, says, where in scope.rows(whole, questions, name=tables.code)
        ]

    return rendering.render(
        "scope",
        title=TITLE,
        assessment=lines(scope.ASSESSMENT),
        verification=lines(scope.VERIFICATION),
    )


def html(*, results: Sequence[Mapping], verdict: Mapping, **report) -> Markup:
    """Writes the same tables with links to the sections."""
    whole = dict(report, results=results, verdict=verdict)
    return rendering.render_html(
        "scope",
        assessment=scope.rows(whole, scope.ASSESSMENT),
        verification=scope.rows(whole, scope.VERIFICATION),
        names=scope.NAMES,
    )
