"""Speaks a comparison of several audits: for a terminal, as Markdown and as one HTML file.

`measures/comparison.py` computes; the sentences are in templates/compare_words.md.j2, the pages in
compare.html.j2 and compare.md.j2. Both pages show the same tables; downloads of compare.html hold
the numbers of compare.json.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mia_jax.measures import comparison
from mia_jax.measures.comparison import Comparison, Run
from mia_jax.report import figures, html, rendering, tables

UTILITY_NAMES = {comparison.ACCURACY: "test accuracy", comparison.LOSS: "test loss"}
MOST_NAMED = 12  # runs of a front whose names are all in the figure
MOST_REPEATED = 30  # letters of a setting that is written again for every run
MOST_SETTINGS = 15  # lines of settings on a terminal
MOST_LETTERS = 60  # of a name in a sentence
ROC_FPRS = (0.001, 0.01, 0.1, 0.5)


@dataclasses.dataclass(frozen=True)
class Cell:
    """Holds a cell: its text, what it is sorted by, whether it is a name from data, or strong."""

    text: str
    sort: float | str | None = None
    name: bool = False
    strong: bool = False


@dataclasses.dataclass(frozen=True)
class Shown:
    """Holds a table of a page.

    Attributes:
        key: its name on the page and of its download.
        header: the titles of its columns.
        lines: its cells.
        columns, rows: what a download holds, with all digits.
    """

    key: str
    header: Sequence[str]
    lines: Sequence[Sequence[Cell]]
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def texts(self, write: Callable[[Cell], str]) -> list[list[str]]:
        """Returns the cells as text."""
        return [[write(cell) for cell in line] for line in self.lines]


def name(text: str) -> Cell:
    """Returns the cell of a name from data or a path."""
    return Cell(text, text, name=True)


def brief(text: object, most: int = MOST_LETTERS) -> str:
    """Returns a name for a sentence, cut where it is long.

    >>> brief('lira'), brief('x' * 90, 8)
    ('lira', 'xxxxxxx…')
    """
    shown = tables.shown(text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def utility_text(amount: comparison.Amount | None, key: str) -> Cell:
    """Returns the cell of a utility with its interval."""
    if amount is None:
        return Cell(tables.ABSENT)
    show, unit = (tables.percent, "%") if key == comparison.ACCURACY else (digits, "")
    text = show(amount.value) + unit
    if amount.low is not None and amount.high is not None:
        text += f" [{show(amount.low)}, {show(amount.high)}]"
    return Cell(text, amount.value)


def digits(value: float) -> str:
    """Writes a loss with three digits."""
    return f"{value:.3g}"


def rate(row: Mapping | None) -> Cell:
    """Returns the cell of a metric with its interval."""
    text = tables.number(None if row is None else dict(row, method=row["method"] or ""))
    return Cell(text, None if row is None else row["value"])


def words(macro: str, /, **values) -> str:
    """Writes a sentence: a macro of templates/compare_words.md.j2."""
    return rendering.line(getattr(rendering.macros("compare_words"), macro)(**values))


def runs_table(made: Comparison, runs: Sequence[Run]) -> Shown:
    """Returns the table of the headline of every run."""
    utilities = used_utilities(made)
    several = len({(run.data, run.examples) for run in made.runs}) > 1
    header = ["run", *["data"] * several, "verdict", "strongest attack"]
    header += [tables.metric_name(metric) for metric in made.metrics]
    header += [UTILITY_NAMES[key] for key in utilities] + ["checks"]
    lines = []
    for summary, run in zip(made.runs, runs, strict=True):
        head = html.headline(run.audit.report)
        line = [name(summary.run)]
        if several:
            examples = "" if summary.examples is None else f", {summary.examples:,} examples"
            line.append(Cell(f"{tables.shown(summary.data)}{examples}", summary.data))
        line += [Cell(head["label"], head["label"])]
        line += [Cell(tables.ABSENT) if summary.strongest is None else name(summary.strongest)]
        line += [rate(summary.rows.get(metric)) for metric in made.metrics]
        line += [utility_text(summary.utility.get(key), key) for key in utilities]
        line += [Cell(head["checks"] or tables.ABSENT, head["checks"])]
        lines.append(line)
    columns = ["run", "data", "leak", "withheld", "strongest"]
    columns += [f"{m}{end}" for m in (*made.metrics, *utilities) for end in ("", "_low", "_high")]
    rows = [
        [
            *(summary.run, summary.data, summary.leak, summary.withheld, summary.strongest),
            *(v for m in made.metrics for v in ends(summary.rows.get(m))),
            *(v for key in utilities for v in ends(summary.utility.get(key))),
        ]
        for summary in made.runs
    ]
    return Shown("runs", header, lines, columns, rows)


def ends(number: Mapping | comparison.Amount | None) -> list[float | None]:
    """Returns [value, low, high] of a row or an amount."""
    if isinstance(number, comparison.Amount):
        return [number.value, number.low, number.high]
    return [None if number is None else number[key] for key in ("value", "low", "high")]


def used_utilities(made: Comparison) -> list[str]:
    """Returns the utilities that the page shows: the accuracy, and the loss where a run has no
    accuracy or a front is of the loss.
    """
    known = [key for key in UTILITY_NAMES if any(key in run.utility for run in made.runs)]
    of_fronts = {front.utility for front in made.fronts}
    every = all(comparison.ACCURACY in run.utility for run in made.runs)
    return [key for key in known if key in of_fronts or key == comparison.ACCURACY or not every]


def best_table(made: Comparison) -> Shown:
    """Returns the table of the best attack of each kind of knowledge of every run."""
    kinds = list(dict.fromkeys(entry.knows for entry in made.best))
    order = sorted(made.best, key=lambda entry: (not entry.realistic, kinds.index(entry.knows)))
    header = ["attacker has", "run", "best attack"]
    header += [*map(tables.metric_name, made.metrics), "leak shown (significant)"]
    lines = []
    for entry in order:
        knows = tables.attacker_has(entry.knows)
        knows += "" if entry.realistic else " (more than a real attacker)"
        shown = html.leak_shown(dict(shown=entry.shown, inverted=entry.inverted), made.metrics[0])
        line = [Cell(tables.shown(knows), knows), name(entry.run), name(entry.attack)]
        line += [rate(entry.rows.get(metric)) for metric in made.metrics]
        lines.append([*line, Cell(shown, shown)])
    columns = ["knows", "run", "attack"]
    columns += [f"{m}{end}" for m in made.metrics for end in ("", "_low", "_high")]
    rows = [
        [e.knows, e.run, e.attack, *(v for m in made.metrics for v in ends(e.rows.get(m)))]
        for e in order
    ]
    return Shown(
        "best",
        header,
        lines,
        [*columns, "shown"],
        [[*row, ", ".join(entry.shown)] for row, entry in zip(rows, order, strict=True)],
    )


def amount_text(amount: comparison.Amount, metric: str) -> str:
    """Writes a difference with its interval: '+0.061 [+0.047, +0.075]', of rates in points."""
    show, unit = tables.percent, " pp"
    if metric in ("auc", comparison.LOSS):
        show, unit = digits if metric == comparison.LOSS else "{:.3f}".format, ""
    text = tables.signed(amount.value, show) + unit
    if amount.low is None or amount.high is None:
        return text
    return f"{text} [{tables.signed(amount.low, show)}, {tables.signed(amount.high, show)}]"


def number_text(value: float, metric: str) -> str:
    """Writes a number without its interval."""
    if metric == comparison.LOSS:
        return digits(value)
    return f"{value:.3f}" if metric == "auc" else f"{tables.percent(value)}%"


def differences_table(made: Comparison) -> Shown:
    """Returns the table of the differences from the first run."""
    header = ["run", "attack", "metric", "run's value", "reference", "difference"]
    header += ["interval excludes 0"]
    lines = []
    for row in made.differences:
        metric = UTILITY_NAMES.get(row.metric) or tables.metric_name(row.metric)
        shown = excludes(row)
        lines.append(
            [
                name(row.run),
                name(row.attack) if row.attack else Cell("– (the model)", ""),
                Cell(metric, metric),
                Cell(number_text(row.value, row.metric), row.value),
                Cell(number_text(row.other, row.metric), row.other),
                Cell(amount_text(row.amount, row.metric), row.difference),
                Cell(shown + ("" if row.paired else ", not paired"), shown, strong=shown == "yes"),
            ]
        )
    columns = [field.name for field in dataclasses.fields(comparison.Difference)]
    rows = [[getattr(row, column) for column in columns] for row in made.differences]
    return Shown("differences", header, lines, columns, rows)


def excludes(row: comparison.Difference) -> str:
    """Writes whether the interval of a difference excludes 0."""
    if row.low is None or row.high is None:
        return "no interval"
    return "yes" if row.low > 0 or row.high < 0 else "no"


def front_table(front: comparison.Front, key: str) -> Shown:
    """Returns the table of a front: the runs by falling utility, then those that have no place."""
    more = comparison.UTILITIES[front.utility]
    order = sorted(front.points, key=lambda p: -p.utility.value if more else p.utility.value)
    metric, use = tables.metric_name(front.metric), UTILITY_NAMES[front.utility]
    header = ["run", use, f"{metric} of the strongest attack", "strongest attack", "place"]
    behind = any(point.dominated_by is not None for point in front.points)
    header += ["difference from the run in front of it"] * behind
    lines = []
    for point in order:
        place = words("place", point=point, front=front, name=brief, use=use)
        lines.append(
            [
                name(point.run),
                utility_text(point.utility, front.utility),
                rate(leakage_row(point, front.metric)),
                name(point.attack),
                Cell(place, place),
                *[Cell(from_better(point, front))] * behind,
            ]
        )
    for run, why in front.left_out.items():
        place = words("left_out", why=why, use=use, metric=metric)
        lines.append([name(run), *[Cell(tables.ABSENT)] * 3, Cell(place, place)])
        lines[-1] += [Cell("")] * behind
    columns = ["run", "utility", "utility_low", "utility_high", "leakage", "leakage_low"]
    columns += ["leakage_high", "attack", "front", "dominated_by", "beyond"]
    rows: list[list[Any]] = [
        [
            *(point.run, *ends(point.utility), *ends(point.leakage), point.attack, point.front),
            *(point.dominated_by, ", ".join(point.beyond)),
        ]
        for point in order
    ]
    rows += [[run, *[None] * (len(columns) - 1)] for run in front.left_out]
    return Shown(key, header, lines, columns, rows)


def from_better(point: comparison.Point, front: comparison.Front) -> str:
    """Writes the differences of a run from the one that dominates it, on both axes."""
    texts = []
    for axis, metric in ((comparison.LEAKAGE, front.metric), (comparison.UTILITY, front.utility)):
        amount = point.difference.get(axis)
        if amount is not None:
            title = UTILITY_NAMES.get(metric) or tables.metric_name(metric)
            texts.append(f"{title} {amount_text(amount, metric)}")
    return "; ".join(texts) or ("" if point.front else tables.ABSENT)


def settings_table(made: Comparison) -> Shown:
    """Returns the table of the fields in which the configs differ."""
    header = ["field", *(run.run for run in made.runs)]
    lines = []
    for setting in made.settings:
        first = next(at for at, value in enumerate(setting.values) if value is not None)
        line = [name(setting.field)]
        for at, value in enumerate(setting.values):
            if value is None:
                text = "not set"
            elif at > first and value == setting.values[first] and len(value) > MOST_REPEATED:
                text = f"as {brief(header[1 + first], MOST_REPEATED)}"
            else:
                text = tables.shown(value_text(value))
            line.append(Cell(text, text))
        lines.append(line)
    rows = [[setting.field, *setting.values] for setting in made.settings]
    return Shown("settings", header, lines, header, rows)


def value_text(text: str) -> str:
    """Writes a value that is JSON as people write it.

    >>> value_text('"adam"'), value_text('{"name": "adamw", "weight_decay": 0.01}')
    ('adam', 'name: adamw, weight_decay: 0.01')
    """
    value = json.loads(text)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {value_text(json.dumps(v))}" for key, v in value.items())
    return value if isinstance(value, str) and value else text


@dataclasses.dataclass(frozen=True)
class Page:
    """Holds what both pages of a comparison say.

    Attributes:
        title: the title.
        summary: what the comparison shows, in a sentence or two.
        level: the level of the intervals, '' if they differ.
        runs, best, differences, settings: the tables; one without lines is left out.
        fronts: each front with its table and title.
        no_front: why there is no front; ''.
        alone: which runs have no place beside the others; ''.
        pairings: how every run is compared with the first.
        reference: the name of the first run.
        configs: see `Comparison`.
        notes: further notes, such as runs of a grid that have no report.
    """

    title: str
    summary: str
    level: str
    runs: Shown
    best: Shown
    differences: Shown
    settings: Shown
    fronts: Sequence[Mapping[str, Any]]
    no_front: str
    alone: str
    pairings: Sequence[str]
    reference: str
    configs: bool
    notes: Sequence[str]


def page(made: Comparison, runs: Sequence[Run], *, notes: Sequence[str], write: Callable) -> Page:
    """Makes what a page says.

    Args:
        made: the comparison of the runs.
        runs: the runs.
        notes: further notes.
        write: writes a name within a sentence.
    """
    levels = sorted({run.level for run in made.runs})
    fronts = []
    for at, front in enumerate(made.fronts):
        metric, use = tables.metric_name(front.metric), UTILITY_NAMES[front.utility]
        several = len({other.data for other in made.fronts}) > 1
        fronts.append(
            dict(
                table=front_table(front, f"front-{at + 1}"),
                title=f"{use.capitalize()} against {metric}"
                + f", {tables.shown(front.data)}" * several,
                assumed=front.assumed,
                front=front,
            )
        )
    placed = {point.run for front in made.fronts for point in front.points}
    placed |= {run for front in made.fronts for run in front.left_out}
    alone = [run.run for run in made.runs if run.run not in placed]
    return Page(
        title=f"Comparison of {len(made.runs)} audits",
        summary=summary(made, write),
        level=f"{100 * levels[0]:g}%" if len(levels) == 1 else "",
        runs=runs_table(made, runs),
        best=best_table(made),
        differences=differences_table(made),
        settings=settings_table(made),
        fronts=fronts,
        no_front="" if fronts else words("no_front"),
        alone=words("alone", runs=alone, name=write) if made.fronts and alone else "",
        pairings=[
            words("pairing", how=how, reference=made.runs[0].run, name=write)
            for how in made.pairings
        ],
        reference=made.runs[0].run,
        configs=made.configs,
        notes=list(notes),
    )


def summary(made: Comparison, write: Callable[[str], str]) -> str:
    """Writes what the comparison shows, in a few sentences."""
    first = made.fronts[0] if made.fronts else None
    ends = sorted(first.points, key=lambda point: point.leakage.value) if first else []
    return words(
        "summary",
        shown=[r.run for r in made.runs if r.leak == "shown" and not r.withheld],
        withheld=[run.run for run in made.runs if run.withheld],
        count=len(made.runs),
        extremes=[(p.run, rate(leakage_row(p, first.metric)).text) for p in ends[:: len(ends) - 1]],
        metric=first and first.metric,
        fronts=[front for front in made.fronts if front.data == first.data],
        use=UTILITY_NAMES,
        name=write,
    )


def leakage_row(point: comparison.Point, metric: str) -> dict[str, Any]:
    """Returns the leakage of a run as a row of results."""
    target = "pooled" if point.pooled else None
    return dict(dataclasses.asdict(point.leakage), metric=metric, target=target)


def terminal(made: Comparison, runs: Sequence[Run], *, notes: Sequence[str] = ()) -> str:
    """Returns the comparison for a terminal.

    Args:
        made: the comparison of the runs.
        runs: the runs.
        notes: further notes.
    """
    given = page(made, runs, notes=notes, write=brief)
    lines = [given.summary, *text_lines(given.runs)]
    for front in given.fronts:
        lines += ["", tables.shown(front["title"])]
        table = front["table"]
        lines += text_lines(
            dataclasses.replace(
                table, header=table.header[:5], lines=[line[:5] for line in table.lines]
            )
        )
    if given.differences.lines:
        lines += ["", f"differences from {brief(given.reference)}"]
        leading = {run.strongest for run in made.runs} | {""}
        wanted = {*made.metrics, *UTILITY_NAMES}
        table = given.differences
        chosen = [
            line
            for row, line in zip(made.differences, table.lines, strict=True)
            if row.attack in leading and row.metric in wanted
        ]
        lines += text_lines(dataclasses.replace(table, lines=chosen))
    if given.settings.lines:
        lines += ["", "settings that differ" if made.configs else "settings that differ (recorded)"]
        table = given.settings
        lines += text_lines(dataclasses.replace(table, lines=table.lines[:MOST_SETTINGS]), most=24)
        left = len(table.lines) - MOST_SETTINGS
        lines += [f"and {left} more; -o compare.html shows all"] * (left > 0)
    said = [*given.pairings, *([given.no_front] if given.no_front else []), *given.notes]
    return "\n".join([*lines, "", *(f"note: {tables.shown(text)}" for text in said)])


def text_lines(table: Shown, most: int = 46) -> list[str]:
    """Returns a table for a terminal, cells cut after `most` letters."""
    cut = lambda text: brief(text, most)  # noqa: E731
    return tables.text_table(
        [cut(title) for title in table.header], table.texts(lambda cell: cut(cell.text))
    )


def markdown(made: Comparison, runs: Sequence[Run], *, notes: Sequence[str] = ()) -> str:
    """Writes the comparison as Markdown; the arguments are those of `terminal`."""
    given = page(made, runs, notes=notes, write=tables.code)

    def cell(shown: Cell) -> str:
        if shown.name:
            return tables.code(shown.text)
        if shown.strong:
            return f"**{tables.plain(shown.text)}**"
        return shown.text if isinstance(shown.sort, float) else tables.plain(shown.text)

    def table(shown: Shown) -> str:
        header = [tables.plain(title) for title in shown.header]
        return tables.markdown(header, shown.texts(cell), code_first=False, align="left")

    return rendering.render("compare", page=given, written=table)


def page_html(made: Comparison, runs: Sequence[Run], *, notes: Sequence[str] = ()) -> str:
    """Writes the comparison as one HTML file; the arguments are those of `terminal`."""
    given = page(made, runs, notes=notes, write=brief)
    curves = overlay(made, runs)
    shown = [given.runs, given.best, given.differences, given.settings]
    shown += [front["table"] for front in given.fronts]
    targets = {run.targets for run in made.runs}
    data = dict(
        title=given.title,
        attacks=[label for label, _ in curves["entries"]],
        curves={str(at): curve for at, (_, curve) in enumerate(curves["entries"])},
        best=curves["best"],
        looks=curves["looks"],
        choices=curves["choices"],
        histograms={},
        tables={table.key: dict(columns=table.columns, rows=table.rows) for table in shown},
    )
    return html.document(
        "compare",
        title=given.title,
        data=data,
        page=given,
        images=[image(front["front"]) for front in given.fronts],
        curves=html.curves_as_table(
            dict(curves["entries"]), ROC_FPRS, targets=targets.pop() if len(targets) == 1 else 1
        )
        if curves["entries"]
        else None,
        privacy=None,
        level=given.level,
        several=True,
    )


def image(front: comparison.Front) -> str:
    """Returns the figure of a front as a data URI."""
    use = UTILITY_NAMES[front.utility]
    marks = [
        dict(
            name=point.run,
            score=point.utility.value,
            score_low=point.utility.low,
            score_high=point.utility.high,
            leak=point.leakage.value,
            leak_low=point.leakage.low,
            leak_high=point.leakage.high,
            front=point.front,
        )
        for point in front.points
    ]
    drawn = figures.selection(
        marks, metric=front.metric, score=use, all_names=len(marks) <= MOST_NAMED
    )
    return "data:image/svg+xml;base64," + base64.b64encode(html.svg(drawn)).decode("ascii")


def overlay(made: Comparison, runs: Sequence[Run]) -> dict[str, Any]:
    """Returns the ROC curves of the attacks that are the best of a kind of knowledge in some run.

    Returns:
        {entries, best, looks, choices}: `entries` are (run: attack, its curve); `best` the places
            of the strongest attack of each run; `looks` {place: [number of the color, of the
            dashes]}, a color per run and dashes per attack; `choices` {title: places}.
    """
    attacks = list(dict.fromkeys(entry.attack for entry in made.best))
    entries: list[tuple[str, Mapping]] = []
    looks, best = {}, []
    choices: dict[str, list[int]] = {attack: [] for attack in attacks}
    for at, (summary, run) in enumerate(zip(made.runs, runs, strict=True)):
        curves = run.audit.report.get("curves") or {}
        for dashes, attack in enumerate(attacks):
            if attack not in curves:
                continue
            place = len(entries)
            entries.append((f"{summary.run}: {attack}", curves[attack]))
            looks[str(place)] = [at, dashes + at // html.COLORS]
            choices[attack].append(place)
            if attack == summary.strongest:
                best.append(place)
    return dict(
        entries=entries,
        best=best[: html.MOST_CURVES],
        looks=looks,
        choices=[dict(title=attack, shown=places) for attack, places in choices.items() if places],
    )


def to_json(made: Comparison) -> str:
    """Returns the comparison as JSON."""
    return json.dumps(made.to_json(), indent=1, allow_nan=False, ensure_ascii=False)
