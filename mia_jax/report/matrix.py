"""Speaks a matrix of defenses and attacks: as JSON, Markdown, one HTML file and a figure.

`measures/matrix.py` computes; the sentences are in templates/matrix_words.md.j2, the pages in
matrix.html.j2 and matrix.md.j2.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mia_jax.measures import matrix as measure
from mia_jax.measures.comparison import Amount
from mia_jax.measures.matrix import Cell as Number
from mia_jax.measures.matrix import Cost, Defended, Line, Matrix
from mia_jax.report import figures, html, rendering, source, tables
from mia_jax.report.comparison import Cell, Shown, amount_text, ends, name
from mia_jax.runtime import files
from mia_jax.runtime.store import GridFiles, Store

KNOWN = "known"  # how the line of attackers who know a defense of outputs is marked


def defended(
    root: pathlib.Path,
    names: Sequence[str],
    *,
    about: Mapping[str, str],
    shared: Mapping[str, str],
) -> list[Defended]:
    """Reads the audits of a grid of defenses.

    Args:
        root: the folder of the grid.
        names: the variants that have a report; the first one has no defense.
        about: {variant: a sentence about it}.
        shared: {variant: the variant whose trained models it uses}.
    """
    folders = [GridFiles(root).variant(variant) for variant in names]
    return [
        Defended(
            run=run,
            about=about.get(variant, ""),
            cost=Cost(
                steps=measure.steps_of(run.audit.report),
                cpu_seconds=None if variant in shared else trained_seconds(folder),
                shared=shared.get(variant, ""),
            ),
        )
        for variant, folder in zip(names, folders, strict=True)
        for run in (source.run(folder, name=variant),)
    ]


def trained_seconds(folder: pathlib.Path) -> float | None:
    """Returns the CPU seconds of training in a workdir, of all its starts; None if unknown."""
    starts = [
        start for log in Store(folder).logs() for start in files.read_json(log, needs={})["runs"]
    ]
    each = [start.get("cpu_seconds", {}).get("train") for start in starts]
    known = [seconds for seconds in each if seconds is not None]
    return sum(known) if known else None


def write(made: Matrix, grid: GridFiles) -> None:
    """Writes matrix.json, matrix.md, matrix.html and matrix.png."""
    text = json.dumps(made.to_json(), indent=1, allow_nan=False, ensure_ascii=False)
    files.write_text(grid.matrix("json"), text + "\n")
    files.write_text(grid.matrix("md"), markdown(made))
    files.write_text(grid.matrix("html"), page_html(made))
    figures.save(figures.matrix(made, lines(made)), grid.matrix("png"))


def lines(made: Matrix) -> list[tuple[str, Line, dict[str, Number]]]:
    """Returns (title, defense, {attack: its cell}) of every line of the tables of attacks.

    A defense of outputs has two: attackers who do not know it, and those who do.
    """
    shown = []
    for line in made.lines:
        for adaptive in (False, True):
            cells = {cell.attack: cell for cell in line.cells if cell.adaptive is adaptive}
            if cells:
                title = f"{line.defense}, {KNOWN}" if adaptive else line.defense
                shown.append((title, line, cells))
    return shown


@dataclasses.dataclass(frozen=True)
class Page:
    """Holds what a page says; the templates only arrange it."""

    title: str
    summary: Sequence[str]
    defenses: Shown
    attacks: Sequence[tuple[str, Shown]]
    changes: Shown
    front: str
    notes: Sequence[str]


def page(made: Matrix, write: Callable[[str], str]) -> Page:
    """Makes what a page says; `write` writes a name within a sentence."""
    attacks = [
        (tables.metric_name(metric), attacks_table(made, metric, f"attacks-{at + 1}"))
        for at, metric in enumerate(made.metrics[:2])
    ]
    return Page(
        title=f"{len(made.lines) - 1} defenses against {len(made.columns)} attacks",
        summary=summary(made, write),
        defenses=defenses_table(made),
        attacks=attacks,
        changes=changes_table(made),
        front=words("front", made=made, metric=main_metric(made), name=write),
        notes=[
            words("failed", variant=variant, why=" ".join(why.split()), name=write)
            for variant, why in made.failed.items()
        ],
    )


def words(macro: str, /, **values) -> str:
    """Writes a sentence: a macro of templates/matrix_words.md.j2."""
    return rendering.line(getattr(rendering.macros("matrix_words"), macro)(**values))


def main_metric(made: Matrix) -> str:
    """Returns the metric by which defenses are placed: the AUC."""
    return made.metrics[0]


def summary(made: Matrix, write: Callable[[str], str]) -> list[str]:
    """Writes what the matrix shows, a sentence or two per paragraph."""
    flagged = {
        flag: [line.defense for line in made.lines if flag in line.flags]
        for flag in (measure.ONE_KIND, measure.UNAWARE)
    }
    paragraphs = [
        words("setting", made=made, name=write),
        words("front", made=made, metric=main_metric(made), name=write),
        words("one_kind", flagged=flagged[measure.ONE_KIND], made=made, name=write),
        words("unaware", flagged=flagged[measure.UNAWARE], name=write),
    ]
    return [text for text in paragraphs if text]


def amount(given: Amount | None, metric: str) -> str:
    """Writes a number with its interval: an AUC, or a rate in percent."""
    if given is None:
        return tables.ABSENT
    return tables.number(dict(dataclasses.asdict(given), metric=metric, target=None))


def defenses_table(made: Matrix) -> Shown:
    """Returns the table of defenses: utility, the strongest attack, what it costs, and flags."""
    places = {place.defense: place for place in made.fronts[main_metric(made)]}
    header = ["defense", "acts on", "accuracy", "strongest attack"]
    header += [f"its {tables.metric_name(made.metrics[0])}", "difference"]
    header += [f"highest {tables.metric_name(made.metrics[1])}", "Pareto front", "note"]
    header += ["difference in accuracy", "steps", "CPU s"]
    rows, shown = [], []
    auc, tpr = made.metrics[:2]
    for line in made.lines:
        place = places.get(line.defense)
        best = line.best.get(auc)
        best_tpr = line.best.get(tpr)
        note = words("note", line=line)
        on_front = tables.ABSENT if place is None else words("place", place=place)
        cost = line.cost
        cpu = f"as {cost.shared}" if cost.shared else tables.ABSENT
        if cost.cpu_seconds is not None:
            cpu = f"{cost.cpu_seconds:.1f}"
        shown.append(
            [
                name(line.defense),
                Cell(words("acts", acts=line.acts)),
                Cell(amount(line.accuracy, "accuracy"), line.accuracy.value),
                Cell(tables.ABSENT) if best is None else name(attacker(best)),
                number(best, auc),
                difference(line, auc),
                number(best_tpr, tpr),
                Cell(on_front, strong=bool(place and place.front)),
                Cell(note, note),
                Cell(
                    tables.ABSENT
                    if line.accuracy_difference is None
                    else amount_text(line.accuracy_difference, "accuracy"),
                    None if line.accuracy_difference is None else line.accuracy_difference.value,
                ),
                Cell(tables.ABSENT if cost.steps is None else f"{cost.steps:,.0f}", cost.steps),
                Cell(cpu, cost.cpu_seconds),
            ]
        )
        rows.append(
            [
                *(line.defense, line.acts, *ends(line.accuracy)),
                *ends(line.accuracy_difference),
                None if best is None else best.name,
                *ends(None if best is None else best.rows.get(auc)),
                None if best_tpr is None else best_tpr.name,
                *ends(None if best_tpr is None else best_tpr.rows.get(tpr)),
                *(cost.steps, cost.cpu_seconds, None if place is None else place.front),
                " ".join(line.flags),
            ]
        )
    columns = ["defense", "acts"]
    for key in ("accuracy", "accuracy_difference"):
        columns += [key, f"{key}_low", f"{key}_high"]
    for key in (auc, tpr):
        columns += [f"strongest_{key}", key, f"{key}_low", f"{key}_high"]
    columns += ["steps", "cpu_seconds", "front", "flags"]
    return Shown("defenses", header, shown, columns, rows)


def attacker(cell: Number) -> str:
    """Writes an attack, and whether its attacker knows a defense of outputs."""
    return f"{cell.attack}, {KNOWN}" if cell.adaptive else cell.attack


def number(cell: Number | None, metric: str) -> Cell:
    """Returns the cell of a metric of an attack, with its interval."""
    row = None if cell is None else cell.rows.get(metric)
    text = tables.number(None if row is None else dict(row, method=row["method"] or ""))
    return Cell(text, None if row is None else row["value"])


def difference(line: Line, metric: str) -> Cell:
    """Returns the cell of the strongest attack's difference to that without a defense."""
    given = line.best_difference.get(metric)
    return Cell(tables.ABSENT) if given is None else Cell(amount_text(given, metric), given.value)


def attacks_table(made: Matrix, metric: str, key: str) -> Shown:
    """Returns the table of one metric: a line per defense, a column per attack."""
    header = ["defense", *(f"{c.attack} ({c.sees})" for c in made.columns)]
    shown, rows = [], []
    for title, line, cells in lines(made):
        best = line.best.get(metric)
        listed = [name(title)]
        for column in made.columns:
            cell = cells.get(column.attack)
            written = number(cell, metric)
            leads = best is not None and cell is not None and cell.name == best.name
            listed.append(dataclasses.replace(written, strong=leads))
        shown.append(listed)
        rows.append(
            [
                title,
                *(
                    value
                    for column in made.columns
                    for value in ends(
                        cells[column.attack].rows.get(metric) if column.attack in cells else None
                    )
                ),
            ]
        )
    columns = ["defense"]
    columns += [f"{c.attack}{end}" for c in made.columns for end in ("", "_low", "_high")]
    return Shown(key, header, shown, columns, rows)


def changes_table(made: Matrix) -> Shown:
    """Returns the table of differences of the AUC to the undefended models."""
    metric = main_metric(made)
    header = ["defense", *(c.attack for c in made.columns)]
    shown, rows = [], []
    for title, line, cells in lines(made):
        if line.defense == made.reference:
            continue
        given = [
            cells[column.attack].difference.get(metric) if column.attack in cells else None
            for column in made.columns
        ]
        shown.append(
            [
                name(title),
                *(
                    Cell(tables.ABSENT)
                    if each is None
                    else Cell(amount_text(each, metric), each.value, strong=excludes_zero(each))
                    for each in given
                ),
            ]
        )
        rows.append([title, *(value for each in given for value in ends(each))])
    columns = ["defense"]
    columns += [f"{c.attack}{end}" for c in made.columns for end in ("", "_low", "_high")]
    return Shown("differences", header, shown, columns, rows)


def excludes_zero(given: Amount) -> bool:
    """Returns whether the interval of a difference lies on one side of 0."""
    return given.low is not None and given.high is not None and given.low * given.high > 0


def markdown(made: Matrix) -> str:
    """Writes the matrix as Markdown."""
    given = page(made, tables.code)

    def cell(shown: Cell) -> str:
        if shown.name:
            return tables.code(shown.text)
        text = shown.text if isinstance(shown.sort, float) else tables.plain(shown.text)
        return f"**{text}**" if shown.strong else text

    def written(shown: Shown) -> str:
        header = [tables.plain(title) for title in shown.header]
        return tables.markdown(header, shown.texts(cell), code_first=False, align="left")

    return rendering.render("matrix", page=given, made=made, written=written)


def page_html(made: Matrix) -> str:
    """Writes the matrix as one HTML file that loads nothing."""
    given = page(made, str)
    shown = [given.defenses, given.changes, *(table for _, table in given.attacks)]
    data: dict[str, Any] = dict(
        title=given.title,
        attacks=[],
        curves={},
        best=[],
        histograms={},
        tables={table.key: dict(columns=table.columns, rows=table.rows) for table in shown},
    )
    drawn = html.svg(figures.matrix(made, lines(made)))
    return html.document(
        "matrix",
        title=given.title,
        data=data,
        page=given,
        made=made,
        image="data:image/svg+xml;base64," + base64.b64encode(drawn).decode("ascii"),
    )
