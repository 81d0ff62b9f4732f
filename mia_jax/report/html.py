"""report.html: one file that opens offline, from report.json alone.

The head of the page is the verdict in one sentence, one table (the best attack of each kind of
knowledge) and one figure (the ROC curves). The details are the sections of report.md (`page`), in
their order: a section's Markdown is rendered by `rendering.as_html`, or its own `html` where it is
interactive. So there is one list of sections and one text of each number.

Nothing is loaded from elsewhere: scripts, styles, uPlot (assets/, MIT license) and figures are in
the file, and its Content-Security-Policy allows only these very scripts, by their hashes. Names
from data reach the page as escaped text, and its scripts as JSON without '<', which they write as
text nodes only.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import matplotlib
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG

from mia_jax.measures import verdict
from mia_jax.metrics import outcomes
from mia_jax.metrics import rows as result_rows
from mia_jax.report import answer, page, plots, rendering, scope, tables, trust
from mia_jax.report.sections import answer as answer_section

# of the rows of report.json, what the table of attacks holds besides attack, slice and metric
NUMBERS = ("value", "low", "high", "fpr_realized", "n_member", "n_nonmember", "n_targets")
MOST_CURVES = 6  # that are drawn before the reader chooses
COLORS = 7  # of curves in page.js
LINKED = (
    "next_steps",
    "scope",
    "records",
    "trust",
    "glossary",
)  # sections that the navigation names
LABELS = dict(
    shown="Leak shown",
    privileged="Leak shown, but by no realistic attacker",
    inverted="Scores point the wrong way",
    none="No leak shown",
    untested="No verdict",
)


def report(report: Mapping, *, images: Mapping[str, bytes] = {}) -> str:
    """Writes the report of a run as one HTML file.

    Args:
        report: report.json, see `page.report`.
        images: {name: PNG} of figures that were drawn from data, such as 'weights'.
    """
    drawn = {name: svg(figure) for name, figure in page.figures(report).items()}
    uris = {
        f"figures/{name}.svg": f"data:image/svg+xml;base64,{_b64(d)}" for name, d in drawn.items()
    }
    uris |= {
        f"figures/{name}.png": f"data:image/png;base64,{_b64(d)}" for name, d in images.items()
    }
    given = page.complete(report, list(uris))
    rows = result_rows.main_rows(report["results"])
    return document(
        "report",
        title=page.subject(report),
        data=data(report),
        head=headline(report),
        level=f"{100 * verdict.of(report)['level']:g}%",
        best=best_table(rows, verdict.of(report)),
        curves=curve_table(report),
        privacy=claimed(report),
        linked=LINKED,
        copies=(report.get("shown_records") or {}).get("copies", 0),
        pictured="adversarial" in images,
        sections=details(given, uris, report.get("sections", ())),
    )


def seeds(report: Mapping) -> str:
    """Writes the report of several seeds as one HTML file."""
    title, body = rendering.as_html(page.seeds(report), heading=2)
    return document("seeds", title=title, data={}, body=body)


def document(template: str, *, data: Mapping, **values) -> str:
    """Renders a template that extends page.html.j2.

    Args:
        template: its name.
        data: what the scripts read, as JSON.
        values: further names of the template.
    """
    scripts = [script("uplot.js"), script("page.js")]
    return str(
        rendering.render_html(
            template,
            data=htmlsafe_json_dumps(data, allow_nan=False, separators=(",", ":")),
            style=Markup(asset("uplot.css") + asset("page.css")),
            license=asset("uplot.LICENSE").replace("--", "- -"),
            scripts=[Markup(text) for text in scripts],
            hashes=" ".join(f"'sha256-{_digest(text)}'" for text in scripts),
            **values,
        )
    )


def asset(name: str) -> str:
    """Returns the text of a file of mia_jax/report/assets."""
    return resources.files("mia_jax.report").joinpath("assets", name).read_text(encoding="utf-8")


def script(name: str) -> str:
    """Returns a script as it stands in the page; it must not hold the end of its own tag."""
    text = asset(name)
    if re.search(r"</script|<!--", text, re.IGNORECASE):
        raise ValueError(f"{name} holds '</script' or '<!--', which would end it within a page.")
    return text


def _digest(text: str) -> str:
    return _b64(hashlib.sha256(text.encode()).digest())


def _b64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def svg(figure) -> bytes:
    """Draws a figure as SVG; equal figures give equal bytes."""
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "mia_jax", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(file, metadata=dict(Date=None, Creator=None))
    return file.getvalue()


def details(given: Mapping, images: Mapping[str, str], more: Sequence[str]) -> list[dict]:
    """Returns {name, title, body} of every section that has what it needs."""
    parts = []
    for section in page.sections(more):
        if section.html is not None:
            values = page.arguments(section.html, section.needs, given)
            title, body = section.title, Markup() if values is None else section.html(**values)
        else:
            title, body = rendering.as_html(page.body(section, given), images)
        if body:
            title = title or section.title or section.name.replace("_", " ").capitalize()
            parts.append(dict(name=section.name, title=title, body=body))
    return parts


def headline(report: Mapping) -> dict[str, Any]:
    """Returns what the head of the page says.

    Returns:
        {tone, label, sentence, about, next, checks, failed}: 'leak', 'none' or 'open'; the verdict
            in few words, in one sentence with its interval, and what it is about; the next step;
            the line about the checks; the checks that failed.
    """
    decided, failed = answer.of(report), trust.failed(report)
    withheld = trust.failed(report, trust.INVALIDATES)
    violated = (report.get("audit") or {}).get("violated")
    leading = decided.strongest
    rows = result_rows.main_rows(report["results"])
    row = None if leading is None else leading_row(rows, verdict.of(report))
    label = LABELS[decided.leak]
    # no value of any metric would be significant: that no leak is shown says nothing
    blind = decided.leak == "none" and decided.blind
    if blind:
        label = "No leak shown, by a study too small to see one"
    if decided.leak == "none" and decided.in_part:
        label = "No leak shown on average, but in part"
    elif decided.leak == "none" and decided.undecided and not blind:
        label = "No leak shown, but undecided"
    if violated:
        label = "Privacy claim violated"
    if withheld:
        label = "Verdict withheld: a check failed"
    leaks = violated or decided.leak in ("shown", "privileged") or decided.in_part
    reassuring = decided.leak == "none" and not (failed or blind or decided.undecided)
    sentence = rendering.line(
        rendering.render(
            "headline",
            withheld=[check.title for check in withheld],
            qualified=[check.title for check in trust.failed(report, trust.QUALIFIES)],
            violated=(report.get("audit") or {}) if violated else None,
            answer=decided,
            name=tables.shown,
            verdict=answer.verdict_text(report),
            row=row,
            guess=None if row is None else answer.guessing(row["metric"]),
            level=f"{100 * decided.level:g}%",
        )
    )
    return dict(
        tone="leak" if leaks and not withheld else "none" if reassuring else "open",
        label=label,
        sentence=sentence,
        about=about(report, row),
        next=rendering.line(rendering.macros("head_words").first_step(scope.of(report))),
        checks=checks_text(report),
        failed=failed,
    )


def checks_text(report: Mapping) -> str:
    """Writes '2 of 7 checks passed, 5 were not possible'; '' without checks."""
    checks = trust.checks(report)
    counts = {key: len(names) for key, names in trust.titles(checks).items()}
    parts = [f"{counts['passed']} of {len(checks)} checks passed"]
    parts += [f"{counts['failed']} failed"] * bool(counts["failed"])
    parts += [f"{counts['open']} not possible here"] * bool(counts["open"])
    return ", ".join(parts) if checks else ""


def leading_row(rows: Sequence[Mapping], decided: Mapping) -> Mapping | None:
    """Returns the row of the leading attack that the headline quotes.

    It is TPR at 1% FPR, or the AUC where that is what shows the leak, or where there is no TPR; or
    another metric where that alone shows it.
    """
    leading = decided["strongest"]
    shown = decided["attacks"][leading]["shown"]
    metrics = [result_rows.sort_metric(rows), "auc", *shown]
    metrics.sort(key=lambda metric: bool(shown) and metric not in shown)
    candidates = (result_rows.resolved(rows, leading, metric) for metric in metrics)
    return next((row for row in candidates if row is not None and row["value"] is not None), None)


def about(report: Mapping, row: Mapping | None) -> str:
    """Writes what the verdict is about: data, model, targets, members."""
    named = tables.shown(page.subject(report).partition(": ")[2])
    subject = rendering.macros("head_words").subject(scope.of(report), named)
    parts = [rendering.line(subject)] if named else []
    if row is not None:
        text = answer_section.words("basis", row=row)
        rate = row["metric"].startswith("tpr@")
        parts.append(text.partition("; interval" if rate else "; ")[0])
    return "; ".join(filter(None, parts))


def best_table(rows: Sequence[Mapping], decided: Mapping) -> dict[str, Any]:
    """Returns {metrics, lines, rule, basis} of the table at the head of the page."""
    metrics, knows = verdict.headline_metrics(rows), verdict.known(rows)
    lines = []
    for name in verdict.best_of_kinds(decided, knows):
        entry = decided["attacks"][name]
        cells = [result_rows.resolved(rows, name, metric) for metric in metrics]
        lines.append(
            dict(
                knows=tables.attacker_has(knows[name]),
                realistic=name in decided["ranked"],
                attack=name,
                numbers=[tables.number(row) for row in cells],
                realized=next(
                    (r["fpr_realized"] for r in cells if r and r.get("fpr_realized")), None
                ),
                shown=leak_shown(entry, metrics[0]),
            )
        )
    return dict(
        metrics=[tables.metric_name(metric) for metric in metrics],
        lines=lines,
        rule=rendering.line(rendering.macros("ranking").rule(metrics[0])),
        basis=_basis(rows, decided),
    )


def _basis(rows: Sequence[Mapping], decided: Mapping) -> str:
    """Writes over what the numbers of the leading attack are computed; '' without an attack."""
    row = None if decided["strongest"] is None else leading_row(rows, decided)
    if row is None:
        return ""
    return answer_section.words("basis", row=row).partition("; ")[0]


def leak_shown(entry: Mapping, metric: str) -> str:
    """Writes whether an attack's entry of the verdict shows a leak, and in which metric only."""
    if not entry["shown"]:
        return "no, scores point the wrong way" if entry["inverted"] else "no"
    return "yes" if metric in entry["shown"] else f"yes, in {tables.metric_name(entry['shown'][0])}"


def curve_table(report: Mapping) -> dict[str, Any] | None:
    """Returns the ROC figure as a table: {fprs, lines, targets, resampling, bound}; None for a
    report without curves. `bound` are the cells of the claimed guarantee, empty without one.
    """
    curves = report.get("curves")
    if not curves:
        return None
    rows, decided = result_rows.main_rows(report["results"]), verdict.of(report)
    fprs, claim = table_fprs(report), claimed(report)
    order = [*decided["ranked"], *decided["apart"]]
    table = curves_as_table(
        {name: curves[name] for name in order if name in curves},
        fprs,
        targets=max((row["n_targets"] for row in rows), default=1),
    )
    return table | dict(bound=[plots.bound_text(claim, fpr) for fpr in fprs] if claim else [])


def curves_as_table(
    curves: Mapping[str, Mapping], fprs: Sequence[float], *, targets: int
) -> dict[str, Any]:
    """Returns ROC curves as a table: {fprs, lines, targets, resampling, bound}, the last empty.

    Args:
        curves: {name: curve}.
        fprs: the rates of the columns.
        targets: over how many targets they are.
    """
    lines = []
    for name, curve in curves.items():
        cells = [at_rate(curve, fpr) for fpr in fprs]
        lines.append(dict(attack=name, cells=[_cell(cell) for cell in cells]))
    kinds = {"crossed": "of models and records", "records": "of records"}
    resampling = next((curve["resampling"] for curve in curves.values()), "")
    return dict(
        fprs=[f"TPR at {tables.rate_name(fpr)} FPR" for fpr in fprs],
        lines=lines,
        targets=targets,
        resampling=kinds.get(resampling, resampling),
        bound=[],
    )


def at_rate(curve: Mapping, fpr: float) -> dict[str, float] | None:
    """Returns {true, false, tpr, low, high} of a curve at a rate of its band; None at others."""
    band = curve["band"]
    if fpr not in band["fpr"]:
        return None
    allowed = outcomes.allowed(fpr, curve["n_nonmember"])
    at = max(i for i, false in enumerate(curve["false"]) if false <= allowed)
    place = band["fpr"].index(fpr)
    return dict(
        true=curve["true"][at],
        false=curve["false"][at],
        tpr=curve["true"][at] / curve["n_member"],
        low=band["low"][place],
        high=band["high"][place],
    )


def _cell(point: Mapping | None) -> str:
    if point is None:
        return tables.UNRESOLVED
    value, low, high = (tables.percent(point[key]) for key in ("tpr", "low", "high"))
    return f"{value}% [{low}, {high}]"


def data(report: Mapping) -> dict[str, Any]:
    """Returns what the scripts of the page read.

    Names stand once: a row holds the places of its attack, slice and metric in `attacks`, `slices`
    and `metrics`. The numbers are those of report.json.
    """
    decided, rows = verdict.of(report), result_rows.main_rows(report["results"])
    order, knows = [*decided["ranked"], *decided["apart"]], verdict.known(rows)
    chosen: dict[tuple, Mapping] = {}
    for row in report["results"]:
        key = (row["attack"], row["slice"], row["metric"])
        before = chosen.get(key)
        # the mean over targets, or the pooled number where only that has a value
        if row["target"] is None and (before is None or row["value"] is not None):
            chosen[key] = row
        elif row["target"] == "pooled" and (before is None or before["value"] is None):
            chosen[key] = row
    attacks = list(dict.fromkeys([*order, *(row["attack"] for row in chosen.values())]))
    slices = list(dict.fromkeys(row["slice"] for row in chosen.values()))
    metrics = list(dict.fromkeys(row["metric"] for row in chosen.values()))
    place = {name: at for at, name in enumerate(attacks)}
    curves, histograms = report.get("curves") or {}, report.get("histograms") or {}
    best = verdict.best_of_kinds(decided, knows)
    return dict(
        title=page.subject(report),
        level=decided["level"],
        attacks=attacks,
        knows=[knows.get(name, "") for name in attacks],
        knowledge={key: tables.attacker_has(key) for key in dict.fromkeys(knows.values())},
        slices=slices,
        metrics=[
            dict(key=key, name=tables.metric_name(key), unit=plots.unit(key)) for key in metrics
        ],
        main=result_rows.sort_metric(rows),
        columns=["attack", "slice", "metric", "pooled", *NUMBERS],
        rows=[
            [
                place[row["attack"]],
                slices.index(row["slice"]),
                metrics.index(row["metric"]),
                int(row["target"] == "pooled"),
                *(row.get(key) for key in NUMBERS),
            ]
            for row in chosen.values()
        ],
        curves={str(place[name]): curves[name] for name in order if name in curves},
        histograms={str(place[name]): histograms[name] for name in order if name in histograms},
        best=[place[name] for name in best if name in curves][:MOST_CURVES],
        privacy=claimed(report),
        epochs=plots.epochs(report, place),
        overfitting=plots.overfitting(report, place),
    )


def claimed(report: Mapping) -> dict[str, Any] | None:
    """Returns the claimed {epsilon, delta, fpr, tpr} of differential privacy; None without a claim.

    The curve is that of the privacy loss distribution where the report has one, which is below
    that of one (epsilon, delta), at the FPRs of the attacks' curves.
    """
    guarantee = report.get("guarantee") or {}
    if guarantee.get("epsilon") is None or guarantee.get("refused"):
        return None
    epsilon, delta = guarantee["epsilon"], guarantee["delta"]
    bands = (curve["band"]["fpr"] for curve in (report.get("curves") or {}).values())
    fprs = {*table_fprs(report), *(fpr for band in bands for fpr in band)}
    curve = plots.bound(epsilon, delta, sorted(fprs), proven=guarantee.get("proven"))
    return dict(epsilon=epsilon, delta=delta, **curve)


def table_fprs(report: Mapping) -> list[float]:
    """Returns the rates of the columns of `curve_table`."""
    rows = result_rows.main_rows(report["results"])
    return [fpr for fpr in sorted({*result_rows.fprs(rows), 0.001, 0.01, 0.1, 0.5}) if fpr > 0]
