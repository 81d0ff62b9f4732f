"""The alarm that an audit of canaries contradicts the claimed epsilon, before the numbers."""

from __future__ import annotations

from collections.abc import Mapping

from mia_jax.report.sections import privacy_audit

ORDER = 20
NEEDS = ("audit",)


def text(*, audit: Mapping) -> str:
    """Quotes the violation; '' where there is none. The audit's own section has the details."""
    return "> " + privacy_audit.violation(audit) + "\n" if audit.get("violated") else ""
