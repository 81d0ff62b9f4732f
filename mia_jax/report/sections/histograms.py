"""The scores of members and non-members; on the page report.html only, where an attack is chosen.

report.md shows the figure of the first attacks that is drawn with the report.
"""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from mia_jax.report import rendering

ORDER = 75
NEEDS = ("histograms", "verdict")
TITLE = "Scores of members and non-members"


def text(*, histograms: Mapping[str, Mapping], verdict: Mapping) -> str:
    """Returns '': the figure of report.md is in the section of figures."""
    return ""


def html(*, histograms: Mapping[str, Mapping], verdict: Mapping) -> Markup:
    """Writes the place of the figure; the page's script draws it."""
    order = [name for name in (*verdict["ranked"], *verdict["apart"]) if name in histograms]
    counts = {name: (sum(h["member"]), sum(h["nonmember"])) for name, h in histograms.items()}
    return rendering.render_html("histograms", order=order, counts=counts) if order else Markup()
