"""The numbers that could not be computed, and why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mia_jax.metrics import rows as result_rows
from mia_jax.report import rendering, tables

BELOW = re.compile(r"not resolvable: FPR (\S+) < 1/(\d+)")
ORDER = 210
NEEDS = ("results",)


def text(*, results: Sequence[Mapping]) -> str:
    """Groups the numbers by reason, and says which of them the tables replace by a pooled one."""
    rows = result_rows.main_rows(results)
    reasons: dict[tuple[str, str, bool], list[tuple[str, str]]] = {}
    for row in rows:
        if row["value"] is None and (
            row["target"] is None or (row["target"] == "pooled" and row["n_targets"] > 1)
        ):
            pooled = row["target"] == "pooled"
            instead = (
                not pooled
                and (result_rows.resolved(rows, row["attack"], row["metric"]) or row)["value"]
                is not None
            )
            scope = "pooled" if pooled else "mean over targets" if row["n_targets"] > 1 else ""
            reasons.setdefault((row["method"], scope, instead), []).append(
                (row["metric"], row["attack"])
            )
    everyone, groups = {row["attack"] for row in rows}, []
    for (method, scope, instead), cells in reasons.items():
        metrics, attacks = (list(dict.fromkeys(cell[i] for cell in cells)) for i in (0, 1))
        who = "all attacks" if set(attacks) == everyone else ", ".join(map(tables.code, attacks))
        groups.append(
            dict(
                metrics=", ".join(map(tables.metric_name, metrics)),
                scope="; ".join(filter(None, (scope, who))),
                reason=explained(method, scope == "pooled"),
                instead=instead,
            )
        )
    return rendering.render("unresolved", groups=groups)


def explained(method: str, pooled: bool) -> str:
    """Writes why there is no number, as the end of a sentence that begins with the metrics.

    >>> explained("not resolvable: FPR 0.001 < 1/808", pooled=False)
    ' cannot be measured on one target: with 808 non-members, one false positive is already 0.124%'
    >>> explained("no shadow to choose a threshold on", pooled=False)
    ': no shadow to choose a threshold on'
    """
    below = BELOW.fullmatch(method)
    if not below:
        return f": {method}"
    return " " + rendering.line(rendering.macros("unresolved_words").below(int(below[2]), pooled))
