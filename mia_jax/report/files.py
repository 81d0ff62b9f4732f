"""The files of a report: report.json, report.md, results.csv, table.tex and figures/, all made from plain arrays and rows."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from mia_jax import workdir
from mia_jax.metrics import bootstrap, summary
from mia_jax.report import epochs, figures, markdown, standing, tables

CAPTION = "Rates with [low, high] intervals; † pooled over targets, else the mean over targets."


NAMES = ("report.json", "report.md", "results.csv", "table.tex")


def write(
    found: Mapping,
    *,
    attacks: Mapping[str, Mapping],
    member_TN,
    evaluated_TN,
    draws: bootstrap.Draws,
    folder: pathlib.Path,
    plots: bool = True,
    pictures: Mapping[str, Mapping] = {},
) -> None:
    """Writes the report `found` (see `markdown.report`) to `folder`; report.md comes last, so it stands for a whole report.

    `attacks[name]['score_TN']`, the membership and the draws are what `metrics.summary.rows` had; `plots` False leaves the figures out.
    `pictures` {figure: arguments} are further functions of report.figures to call.
    """
    shared = dict(attacks=attacks, member_TN=member_TN, evaluated_TN=evaluated_TN, draws=draws)
    paths = draw(found, **shared, folder=folder, pictures=pictures) if plots else []
    caption = markdown.subject(found) + ". " + CAPTION
    workdir.write_json(folder / "report.json", found)
    workdir.write_text(folder / "results.csv", tables.to_csv(found["results"]))
    workdir.write_text(folder / "table.tex", tables.results_latex(tables.main_rows(found["results"]), *standing.order(found), caption=caption))
    workdir.write_text(folder / "report.md", markdown.report(found, figures=paths))


def with_baseline(ranked: Sequence[str], knows: Mapping[str, str], most: int) -> list[str]:
    """The first `most` of a ranking; if all of those used shadows, the last gives way to the best that needs the target alone.

    >>> with_baseline(['lira', 'rmia', 'loss'], dict(lira='shadows', rmia='shadows', loss='nothing'), 2)
    ['lira', 'loss']
    """
    first, alone = list(ranked[:most]), [name for name in ranked if knows[name] == "nothing"]
    return first if not alone or set(first) & set(alone) else [*first[:-1], alone[0]]


def draw(found: Mapping, *, folder: pathlib.Path, **shared) -> list[str]:
    """Writes the figures of a report (arguments of `drawn`) as PNG files; returns their paths relative to `folder`."""
    made = drawn(found, **shared)
    for name, figure in made.items():
        figures.save(figure, folder / "figures" / f"{name}.png")
    return [f"figures/{name}.png" for name in made]


def drawn(found: Mapping, *, attacks, member_TN, evaluated_TN, draws: bootstrap.Draws, pictures: Mapping[str, Mapping] = {}) -> dict[str, Figure]:
    """{name: matplotlib Figure} of a report: 'roc', 'scores', and whatever else was measured."""
    member_TN, evaluated_TN = np.asarray(member_TN, bool), np.asarray(evaluated_TN, bool)
    rows, T = tables.main_rows(found["results"]), len(member_TN)
    ranked = [name for name in standing.order(found)[0] if name in attacks]
    over = f"pooled over {T} targets" if T > 1 else "one target"
    made = {}
    if ranked:
        knows = {row["attack"]: row["knows"] for row in rows}
        first, panels = (with_baseline(ranked, knows, most) for most in (figures.MOST_CURVES, figures.MOST_PANELS))
        curves = {n: summary.band(attacks[n]["score_TN"], member_TN, evaluated_TN, draws) for n in first}
        curves |= {n: {} for n in ranked if n not in first}  # counted in the title only
        level = found.get("about", {}).get("level", 0.95)
        made["roc"] = figures.roc(curves, labels=figures.legend_texts(rows), over=f"{over}; bands: pointwise {100 * level:g}% ({draws.resampling})")
        evidence = {n: (np.asarray(attacks[n]["score_TN"])[evaluated_TN], member_TN[evaluated_TN]) for n in panels}
        made["scores"] = figures.scores(evidence, over=over)
    if any(found.get("shadow_curves", {}).values()):
        made["shadows"] = figures.shadows(found["shadow_curves"], over="mean over targets")
    if any(len(points) > 1 for points in (found.get("queries") or {}).values()):
        made["queries"] = figures.queries(found["queries"], over=over)
    if found.get("epochs"):
        made["epochs"] = figures.epochs(epochs.curves(found["epochs"]), titles={m: epochs.title(m) for m in found["epochs"]["metrics"]}, over=over)
    if found.get("evasion"):
        made["evasion"] = figures.evasion(found["evasion"], over=over)
    made |= {name: getattr(figures, name)(**arguments) for name, arguments in pictures.items()}
    return made
