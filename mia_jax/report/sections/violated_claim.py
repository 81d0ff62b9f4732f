"""The alarm that canaries contradict the claimed epsilon or mechanism, before the numbers."""

from __future__ import annotations

from collections.abc import Mapping

from mia_jax.report.sections import privacy_audit

ORDER = 20
NEEDS = ("audit",)


def text(*, audit: Mapping) -> str:
    """Quotes the violations; '' where there is none. The audit's own section has the details."""
    alarms = [privacy_audit.violation(audit) if audit.get("violated") else ""]
    alarms.append(privacy_audit.contradicted(audit))
    return "\n".join(f"> {alarm}\n" for alarm in alarms if alarm)
