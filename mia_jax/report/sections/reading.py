"""How to read the report: the conventions of its numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mia_jax.metrics import rows as result_rows
from mia_jax.report import rendering, tables
from mia_jax.report.sections import privacy_audit

ORDER = 220
NEEDS = ("results",)
KNOWLEDGE = dict(
    nothing="*target's outputs only*: neither shadow models nor population rows",
    shadows="*shadow models*: the target's outputs, and models that the attacker trained",
    population="*population rows*: the target's outputs, and rows that no model was trained on",
)

# the kinds of metrics in the order of the table
KINDS = {
    "auc": "AUC",
    "tpr@": "TPR at a fixed FPR",
    "advantage": "balanced accuracy, advantage",
    "balanced_accuracy": "balanced accuracy, advantage",
    "tpr": "TPR, FPR and precision at a threshold",
    "fpr": "TPR, FPR and precision at a threshold",
    "ppv@": "TPR, FPR and precision at a threshold",
    "advantage_optimistic": "results at the oracle threshold",
    "oracle_threshold": "results at the oracle threshold",
}
METHODS = (
    (
        r"bootstrap: (\d+) units of models x records, (\d+) draws, variance components",
        r"standard error over \1 independent units of models and over the records "
        r"(\2 bootstrap draws)",
    ),
    (
        r" \(attack rerun without each of (\d+) groups of units\)",
        r", with the attack rerun without each of \1 groups of these units",
    ),
    (
        r"bootstrap: records, (\d+) draws, given these models "
        r"\((\d+) of the (\d+) units needed to resample them\)",
        r"\1 bootstrap draws of the records, the same models (\2 of the \3 independent units of "
        r"models that are needed to resample them)",
    ),
    (
        r"stratified bootstrap, (\d+) draws",
        r"bootstrap of members and of non-members separately (\1 draws)",
    ),
    (
        "box: threshold band x Clopper-Pearson",
        "limits of the threshold, and exact binomial (Clopper-Pearson) limits at each of them",
    ),
    (
        "Newcombe over Clopper-Pearson",
        "Newcombe's rule over exact binomial (Clopper-Pearson) limits",
    ),
    (
        "MOVER-R over Clopper-Pearson",
        "the MOVER-R rule for ratios over exact binomial (Clopper-Pearson) limits",
    ),
    ("^Clopper-Pearson$", "exact binomial (Clopper-Pearson) interval"),
    (", logit scale", ", on the logit scale"),
    (
        ", threshold by the slope of the ROC, angular scale",
        ", with the uncertainty of the threshold by the slope of the ROC curve, on the "
        "arcsin sqrt(rate) scale",
    ),
    (", threshold chosen again per draw", ", with the threshold chosen again in every draw"),
    (
        ", widened to Clopper-Pearson of one target",
        ", at least as wide as the exact binomial (Clopper-Pearson) interval of one target",
    ),
    (
        "^Clopper-Pearson of one target",
        "exact binomial (Clopper-Pearson) interval of one target",
    ),
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
        methods=methods(list(shown)),
    )


def methods(rows: Sequence[Mapping]) -> list[list[str]]:
    """Writes a line per kind of metric and method of its intervals, with the attacks they hold for.

    Args:
        rows: rows of results that have an interval.

    Returns:
        Cells of the columns metric, interval, computed from, attacks.
    """
    attacks: dict[tuple[str, str, str], dict[str, None]] = {}
    of_kind: dict[str, dict[str, None]] = {}
    for kind in KINDS.values():
        for row in rows:
            if metric_kind(row["metric"]) == kind:
                key = (kind, row["interval"], row["method"])
                attacks.setdefault(key, {})[row["attack"]] = None
                of_kind.setdefault(kind, {})[row["attack"]] = None
    return [
        [
            kind,
            f"*{interval}*",
            tables.plain(in_words(method)),
            "all" if len(names) == len(of_kind[kind]) else tables.names(list(names), tables.code),
        ]
        for (kind, interval, method), names in attacks.items()
    ]


def metric_kind(metric: str) -> str:
    """Names the metrics whose intervals are computed alike.

    >>> metric_kind("tpr@0.01"), metric_kind("tpr")
    ('TPR at a fixed FPR', 'TPR, FPR and precision at a threshold')
    """
    return KINDS[metric.partition("@")[0] + "@" * ("@" in metric)]


def in_words(method: str) -> str:
    """Writes the column `method` of results.csv in plain words; what it does not know, as it is.

    >>> in_words("bootstrap: 32 units of models x records, 200 draws, variance components")
    'standard error over 32 independent units of models and over the records (200 bootstrap draws)'
    """
    for pattern, words in METHODS:
        method = re.sub(pattern, words, method)
    return method
