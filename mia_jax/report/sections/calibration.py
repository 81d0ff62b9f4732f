"""What thresholds that are calibrated on shadow models do on the targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mia_jax.metrics import rows as result_rows
from mia_jax.report import rendering, tables

ORDER = 90
NEEDS = ("results", "verdict")


def text(*, results: Sequence[Mapping], verdict: Mapping) -> str:
    """Writes intended and realized rates of the leading attack; '' without such thresholds."""
    ranked = verdict["ranked"]
    rows = [
        r
        for r in results
        if ranked and r["attack"] == ranked[0] and r["target"] is None and r["slice"] == "all"
    ]
    by, lines = {row["metric"]: row for row in rows}, []
    for fpr in result_rows.fprs(result_rows.main_rows(results)):
        tpr, realized = by.get(f"tpr_at_shadow@{fpr:g}"), by.get(f"fpr_at_shadow@{fpr:g}")
        if tpr and realized and realized["value"] is not None:
            calibrated = {True: "yes", False: "no", None: "undecided"}[realized["calibrated"]]
            lines.append(
                [tables.rate_name(fpr), tables.number(realized), tables.number(tpr), calibrated]
            )
    failed = any(line[-1] == "no" for line in lines)
    return (
        rendering.render("calibration", attack=ranked[0], lines=lines, failed=failed)
        if lines
        else ""
    )
