"""report.md: every section that has what it needs, in their order, from report.json alone.

A section is a file mia_jax/report/sections/<name>.py, or a module of the user's own that
config.report.sections names by its dotted path ('my_pkg.my_section'). It has

    ORDER    its place on the page (`sections` lists those of all sections in their order)
    NEEDS    keys of report.json; the section is left out where one is absent or empty
    text     text(*, <keys of NEEDS>, <other keys>=default) -> Markdown; '' leaves the section out
    figure   optional: figure(*, <keys>) -> matplotlib Figure or None, drawn as figures/<name>.png
    html     optional: html(*, <keys>) -> Markup, the body of the section in report.html where it
             is more than the text; '' leaves the section out there
    TITLE    the heading of `html`, if `text` has none

Besides the keys of report.json, a section may ask for `verdict`, which is decided here for a report
that lacks it, and for `figures`, the paths of the figures that were drawn.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from mia_jax import registry
from mia_jax.measures import verdict
from mia_jax.metrics import rows as result_rows
from mia_jax.report import rendering, tables

ORDER = 195  # of a section that names no place: after the built-in ones, before the figures


class Section(NamedTuple):
    """Holds a section of report.md: its name, place, the keys it needs, and its makers.

    The keys are those of report.json.
    """

    name: str
    order: float
    needs: tuple[str, ...]
    text: Callable[..., str]
    figure: Callable | None
    html: Callable | None = None
    title: str = ""


def sections(more: Sequence[str] = ()) -> list[Section]:
    """Lists the built-in sections and `more`, modules by dotted path, in their order."""
    listed = []
    for name in dict.fromkeys([*registry.names("sections"), *more]):
        module = registry.load("sections", name)
        order, needs = getattr(module, "ORDER", ORDER), tuple(getattr(module, "NEEDS", ()))
        short = name.rpartition(".")[2]
        figure, html = getattr(module, "figure", None), getattr(module, "html", None)
        title = getattr(module, "TITLE", "")
        listed.append(Section(short, order, needs, module.text, figure, html, title))
    return sorted(listed, key=lambda section: (section.order, section.name))


def arguments(function: Callable, needs: Sequence[str], report: Mapping) -> dict | None:
    """Picks the keys that a section's function takes; None where a needed one is absent or
    empty.
    """
    if any(absent(report.get(key)) for key in needs):
        return None
    parameters = inspect.signature(function).parameters
    everything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    taken = [key for key in report if key in parameters or everything]
    return {key: report[key] for key in taken if report[key] is not None or key in needs}


def absent(value) -> bool:
    """Tells whether a value of report.json holds nothing: null, or an empty text, list or
    object.
    """
    return value is None or (isinstance(value, str | Sequence | Mapping) and not value)


def complete(report: Mapping, figures: Sequence[str] = ()) -> dict:
    """Adds the verdict and the figures to a report, which sections may ask for, too."""
    return dict(report, verdict=verdict.of(report), figures=list(figures))


def report(report: Mapping, *, figures: Sequence[str] = ()) -> str:
    """Writes the report of a run as Markdown.

    Args:
        report: report.json. `results` (rows of metrics.summary) and, each optional, `about`
            {data, examples, classes, shape, model, learner, seed, duplicates, level, arrays,
            target, canaries}, `verdict` (measures.verdict.decide), `models`
            [{model, train_accuracy, ...}], `design` {name, models, targets, ...}, `attacks`,
            `versions`, `comparisons`, `slices`, `records`, `validity` (measures.validity),
            `sections` (dotted paths) and others: the keys that the sections need. Of `about`:
            `arrays` says whether a caller passed arrays; `target` is 'answers' or 'labels (a black
            box)' where the audited model is external, so that `model` and `learner` are those of
            its shadow models; `canaries` {kind, count} where only canaries are scored.
        figures: paths of the figures, relative to report.md. A section's own figure follows its
            text, the others are under 'Figures'.
    """
    given = complete(report, figures)
    listed = sections(report.get("sections", ()))
    parts = [title(report), *(body(section, given) for section in listed)]
    return "\n".join(part for part in parts if part)


def body(section: Section, given: Mapping) -> str:
    """Writes the Markdown of a section with its figure; '' where it is left out.

    Args:
        section: the section.
        given: what `complete` returned.
    """
    values = arguments(section.text, section.needs, given)
    text = "" if values is None else section.text(**values)
    pictures = {path.rpartition("/")[2].partition(".")[0]: path for path in given["figures"]}
    if text and section.figure is not None and section.name in pictures:
        heading = text.partition("\n")[0].lstrip("# ")
        text += f"\n![{heading}]({pictures[section.name]})\n"
    return text


def figures(report: Mapping) -> dict:
    """Draws the figures of the sections that have what they need: {name: matplotlib Figure}."""
    given, drawn = complete(report), {}
    for section in sections(report.get("sections", ())):
        values = None if section.figure is None else arguments(section.figure, section.needs, given)
        figure = None if values is None else section.figure(**values)
        if figure is not None:
            drawn[section.name] = figure
    return drawn


def title(report: Mapping) -> str:
    """Writes the first line of the page."""
    return f"# {tables.plain(subject(report))}\n"


def subject(report: Mapping) -> str:
    """Names the data and the audited model: 'Membership inference: digits, mlp'.

    The shadow models of an external target are not the audited model.
    """
    about = report.get("about", {})
    external = "your target" if about.get("target") else ""
    own = {"model": "your model", "recipe": "models by your recipe"}.get(about.get("asked", ""), "")
    model = own if about.get("arrays") else external or tables.section_name(about.get("model"))
    what = ", ".join(filter(None, (tables.data_name(about), model)))
    return "Membership inference" + (f": {what}" if what else "")


def seeds(report: Mapping) -> str:
    """Writes the report of several seeds: each one's answer, and one table of mean ± sd."""
    rows = result_rows.main_rows(report["results"])
    ranked, apart = verdict.order(report)
    rates = [f"tpr@{fpr:g}" for fpr in sorted(result_rows.fprs(rows), reverse=True)]
    metrics = ["auc", *rates, "balanced_accuracy", "advantage"]
    lines = [
        [name, *(tables.mean_sd(result_rows.resolved(rows, name, metric)) for metric in metrics)]
        for name in [*ranked, *apart]
    ]
    return rendering.render(
        "seeds",
        subject=subject(report),
        seeds=report["seeds"],
        answers=report.get("answers", {}),
        header=["attack", *map(tables.metric_name, metrics)],
        lines=lines,
    )
