"""The files of a report: report.json, report.html, report.md, results.csv, table.tex and figures/,
all made from plain arrays and rows.
"""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from mia_jax.measures import verdict
from mia_jax.metrics import bootstrap, summary
from mia_jax.metrics import rows as result_rows
from mia_jax.report import figures, html, page, source, tables
from mia_jax.runtime import files
from mia_jax.runtime.store import ReportFiles, Store

FROM_DATA = ("adversarial", "weights")  # figures that report.json cannot make again
CAPTION = "Rates with [low, high] intervals; † pooled over targets, else the mean over targets."


def write(
    report: Mapping,
    *,
    attacks: Mapping[str, Mapping],
    member_TN,
    evaluated_TN,
    draws: bootstrap.Draws,
    folder: pathlib.Path,
    plots: bool = True,
    pictures: Mapping[str, Mapping] = {},
) -> None:
    """Writes the files of a report to `folder`.

    report.md comes last: where it exists, the report is whole.

    Args:
        report: report.json, see `page.report`.
        attacks, member_TN, evaluated_TN, draws: what `metrics.summary.rows` had; of an attack,
            `score_TN` is read.
        folder: the folder of the report.
        plots: False leaves the figures out.
        pictures: {figure: arguments} of further functions of report.figures to call.
    """
    shared = dict(attacks=attacks, member_TN=member_TN, evaluated_TN=evaluated_TN, draws=draws)
    source.write(ReportFiles(folder).json, report)
    if plots:
        draw(report, **shared, folder=folder, pictures=pictures)
    write_texts(folder)


def rewrite(folder: str | pathlib.Path) -> pathlib.Path:
    """Writes report.html, report.md, results.csv, table.tex and the figures of sections again, from
    report.json alone.

    Needs neither data nor models: what was computed is in report.json. The figures roc, scores,
    adversarial and weights are drawn from scores, which are not in report.json; they stay as they
    are. A report without figures stays without.

    Args:
        folder: the folder of report.json, or the workdir whose report/ has it; that of one seed or
            of several.

    Returns:
        The path of report.md.
    """
    folder = pathlib.Path(folder).expanduser()
    folder = folder if ReportFiles(folder).json.exists() else Store(folder).report.folder
    if not ReportFiles(folder).json.exists():
        raise FileNotFoundError(
            f"folder={str(folder.parent)!r} holds no report.json, nor does its report/; name the "
            "workdir of a finished run."
        )
    report = source.load(ReportFiles(folder).json)
    if ReportFiles(folder).has_figures() and "seeds" not in report:
        for name, figure in page.figures(report).items():
            figures.save(figure, ReportFiles(folder).figure(name))
    write_texts(folder)
    if ReportFiles(folder).claim.exists():
        made_from = files.read_json(ReportFiles(folder).claim, needs={})
        made_from.pop("files", None)
        finish(folder, made_from)
    return ReportFiles(folder).markdown


def write_texts(folder: pathlib.Path) -> None:
    """Writes results.csv, table.tex, report.html and report.md from the report.json and the figures
    in `folder`.
    """
    report = source.load(ReportFiles(folder).json)
    files.write_text(ReportFiles(folder).results, tables.to_csv(report["results"]))
    if "seeds" not in report:
        files.write_text(ReportFiles(folder).latex, latex(report))
    write_pages(report, ReportFiles(folder), source=ReportFiles(folder))


def write_pages(report: Mapping, place: ReportFiles, *, source: ReportFiles) -> None:
    """Writes report.html and report.md, the last file.

    Args:
        report: report.json of a run or of several seeds.
        place: where the pages are written; report.md shows the figures that are there.
        source: where figures are that were drawn from data; report.html holds them.
    """
    if "seeds" in report:
        files.write_text(place.html, html.seeds(report))
        files.write_text(place.markdown, page.seeds(report))
        return
    write_html(report, {path.name: path.read_bytes() for path in source.figures()}, place)
    paths = [path.relative_to(place.folder).as_posix() for path in place.figures()]
    files.write_text(place.markdown, page.report(report, figures=paths))


def write_html(report: Mapping, pictures: Mapping[str, bytes], place: ReportFiles) -> None:
    """Writes report.html with those of `pictures` {file name: PNG} that were drawn from data."""
    images = {name.removesuffix(".png"): picture for name, picture in pictures.items()}
    images = {name: picture for name, picture in images.items() if name in FROM_DATA}
    files.write_text(place.html, html.report(report, images=images))


def render(path: str | pathlib.Path, folder: str | pathlib.Path | None = None) -> pathlib.Path:
    """Writes report.html and report.md of a report.json, without data, models or jax.

    Args:
        path: report.json, the folder of it or of saved Results, or the workdir of a finished run.
        folder: where the pages are written; None: next to report.json, where the other files that
            are made from it are written again as well (see `rewrite`).

    Returns:
        The path of report.html.

    Raises:
        FileNotFoundError: there is no report.
        ValueError: report.json is damaged or none of a report, or `folder` has that of another.
    """
    path, report = source.read(path)
    origin = ReportFiles(path.parent)
    if folder is None:
        if origin.json == path and origin.claim.exists():
            rewrite(path.parent)
            return origin.html
        folder = path.parent
    place = ReportFiles(pathlib.Path(folder).expanduser())
    if place.json.exists() and not place.json.samefile(path):
        raise ValueError(
            f"{place.folder} holds the report of another run, whose pages would be replaced; name "
            "another folder."
        )
    write_pages(report, place, source=origin)
    return place.html


def latex(report: Mapping) -> str:
    """Returns the table of attacks of a report for a paper."""
    return tables.results_latex(
        result_rows.main_rows(report["results"]),
        *verdict.order(report),
        caption=page.subject(report) + ". " + CAPTION,
    )


def finish(folder: pathlib.Path, made_from: Mapping) -> None:
    """Writes config.json of a report, the last file: what the report was made from, and the digest
    of every file, except for the pieces that are about to be removed.
    """
    place = ReportFiles(folder)
    paths = sorted(
        p
        for p in folder.rglob("*")
        if p.is_file()
        and p != place.claim
        and place.pieces not in p.parents
        and not p.name.startswith(".")
    )
    digests = {p.relative_to(folder).as_posix(): file_digest(p) for p in paths}
    files.write_json(ReportFiles(folder).claim, dict(made_from) | dict(files=digests), seal=True)


def file_digest(path: pathlib.Path) -> str | None:
    """Returns 16 hex digits of a file's bytes; None if there is no such file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        return "a folder"


def with_baseline(ranked: Sequence[str], knows: Mapping[str, str], most: int) -> list[str]:
    """Returns the first `most` attacks of a ranking, among them one that needs only the target.

    If all of the first used shadow models, the last is replaced by the best one that needs only the
    target.

    >>> knows = dict(lira='shadows', rmia='shadows', loss='nothing')
    >>> with_baseline(['lira', 'rmia', 'loss'], knows, 2)
    ['lira', 'loss']
    """
    first, alone = list(ranked[:most]), [name for name in ranked if knows[name] == "nothing"]
    return first if not alone or set(first) & set(alone) else [*first[:-1], alone[0]]


def draw(report: Mapping, *, folder: pathlib.Path, **shared) -> None:
    """Writes the figures of a report (arguments of `drawn`) as PNG files in figures/."""
    for name, figure in drawn(report, **shared).items():
        figures.save(figure, ReportFiles(folder).figure(name))


def drawn(
    report: Mapping,
    *,
    attacks,
    member_TN,
    evaluated_TN,
    draws: bootstrap.Draws,
    pictures: Mapping[str, Mapping] = {},
) -> dict[str, Figure]:
    """Draws the figures of a report: {name: matplotlib Figure}.

    They are 'roc', 'scores' and those of whatever else was measured.
    """
    member_TN, evaluated_TN = np.asarray(member_TN, bool), np.asarray(evaluated_TN, bool)
    rows, T = result_rows.main_rows(report["results"]), len(member_TN)
    ranked = [name for name in verdict.order(report)[0] if name in attacks]
    over = figures.targets_text(T)
    made = {}
    if ranked:
        knows = {row["attack"]: row["knows"] for row in rows}
        first, panels = (
            with_baseline(ranked, knows, most)
            for most in (figures.MOST_CURVES, figures.MOST_PANELS)
        )
        kept = report.get("curves") or {}
        curves = {
            n: figures.of_counts(kept[n])
            if n in kept
            else summary.band(attacks[n]["score_TN"], member_TN, evaluated_TN, draws)
            for n in first
        }
        curves |= {n: {} for n in ranked if n not in first}  # counted in the title only
        level = report.get("about", {}).get("level", 0.95)
        made["roc"] = figures.roc(
            curves,
            labels=figures.legend_texts(rows),
            over=f"{over}; bands: pointwise {100 * level:g}% ({draws.resampling})",
        )
        evidence = {
            n: (np.asarray(attacks[n]["score_TN"])[evaluated_TN], member_TN[evaluated_TN])
            for n in panels
        }
        made["scores"] = figures.scores(evidence, over=over)
    made |= page.figures(report)
    made |= {name: getattr(figures, name)(**arguments) for name, arguments in pictures.items()}
    return made
