"""Every check with its result, and what a study of this size can detect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from mia_jax.report import rendering, tables, trust

ORDER = 180
NEEDS = ("validity",)
TITLE = "Can these numbers be trusted?"


def text(*, validity: Mapping, about: Mapping = {}) -> str:
    """Writes a line per check, and the minimum detectable effects."""
    checks = trust.checks(dict(validity=validity, about=about))
    targets = validity["records"]["targets"]
    if not checks:
        return ""
    return rendering.render(
        "trust",
        checks=[[check.title, check.status, tables.plain(check.text)] for check in checks],
        power=power_lines(validity["power"]),
        units=min((row["units"] for row in validity["power"]), default=targets),
        single=validity["records"],
    )


def html(*, validity: Mapping, about: Mapping = {}) -> Markup:
    """Writes the checks as a list of pass, warn and fail, and the minimum detectable effects."""
    checks = trust.checks(dict(validity=validity, about=about))
    if not checks:
        return Markup()
    return rendering.render_html(
        "trust",
        checks=[(standing(check), check) for check in checks],
        power=power_lines(validity["power"]),
        units=min((row["units"] for row in validity["power"]), default=None),
        single=single_record(validity["records"]),
        targets=validity["records"]["targets"],
    )


def standing(check: trust.Check) -> str:
    """Returns 'pass', 'warn' or 'fail'.

    A check that was not possible warns, and so does a failed one that only qualifies the verdict.
    """
    if check.status == trust.GOOD:
        return "pass"
    return "fail" if (check.status, check.effect) == (trust.BAD, trust.INVALIDATES) else "warn"


def power_lines(power: Sequence[Mapping]) -> list[list[str]]:
    """Writes a line per metric: the minimum detectable effect, and what a small leak takes."""
    lines = []
    for row in power:
        show = (
            (lambda value: f"{value:.3f}")
            if row["metric"] == "auc"
            else lambda value: tables.percent(value) + "%"
        )
        smallest = (
            tables.UNRESOLVED
            if row["smallest"] is None
            else show(row["smallest"]) + ("†" if row["pooled"] else "")
        )
        enough = row["smallest"] is not None and row["smallest"] <= row["goal"]
        lines.append(
            [
                tables.metric_name(row["metric"]),
                show(row["guess"]),
                smallest,
                show(row["goal"]),
                "this study is large enough" if enough else more(row),
            ]
        )
    return lines


def more(row: Mapping) -> str:
    """Writes '124 independent targets (this study: 32) or 3,131 members and ...'."""
    parts = []
    if row["units_needed"]:
        parts.append(f"{row['units_needed']:,} independent targets (this study: {row['units']:,})")
    if row["rows_needed"]:
        parts.append(
            f"{row['rows_needed']:,} members and non-members per target "
            f"(this study: {row['rows']:,})"
        )
    return " or ".join(parts) or "no study of this kind"


def single_record(records: Mapping) -> str:
    """Says whether one exposed record among all would be detected."""
    return rendering.render("single_record", single=records)
