"""The terms of the report, a line each."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from mia_jax.report import glossary, rendering

ORDER = 225
NEEDS = ("results",)


def text(*, results: Sequence) -> str:
    """Writes the glossary."""
    return rendering.render("glossary", terms=glossary.TERMS)


def html(*, results: Sequence) -> Markup:
    """Writes the glossary as a list of definitions."""
    return rendering.render_html("glossary", terms=glossary.TERMS)
