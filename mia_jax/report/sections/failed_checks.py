"""The failed checks, above everything else."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from mia_jax.report import rendering, trust

ORDER = 10
NEEDS = ("validity",)


def text(*, validity: Mapping, about: Mapping = {}) -> str:
    """Quotes every failed check with its remedy; '' where none failed."""
    failed = trust.failed(dict(validity=validity, about=about))
    return rendering.render("failed_checks", checks=failed) if failed else ""


def html(*, validity: Mapping, about: Mapping = {}) -> Markup:
    """Returns '': report.html shows failed checks in the place of the verdict."""
    return Markup()
