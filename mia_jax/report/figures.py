"""Draws figures as PNG files on matplotlib's Agg canvas, without pyplot and its global state.

The same numbers give the same bytes. A new figure belongs to a section: `figure(...)` in
report/sections/NAME.py calls a function of this file; roc and scores are called in report/files.py.
"""

from __future__ import annotations

import pathlib
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

from mia_jax.measures import curves as curves_of
from mia_jax.report import tables
from mia_jax.runtime import files

# Okabe and Ito's colors, distinguishable with any color vision; dashes distinguish them in grey.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)))
MEMBER, OTHER = COLORS[1], COLORS[0]
MOST_CURVES, MOST_PANELS, MOST_LETTERS = 6, 3, 80
RUINED = 0.8  # of the best accuracy


def targets_text(count: int) -> str:
    """Says over what a figure's numbers are: 'pooled over 64 targets', 'one target'."""
    return f"pooled over {count} targets" if count > 1 else "one target"


def save(figure: Figure, path: pathlib.Path) -> None:
    """Writes a PNG, atomically; equal figures give equal bytes."""
    files.write(
        path, lambda file: FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    )


def roc(curves: Mapping[str, Mapping], *, labels: Mapping[str, str] = {}, over: str = "") -> Figure:
    """Draws ROC curves on log-log axes, with the diagonal of random guessing.

    The bands are pointwise intervals.

    `curves[attack]` is {fpr, tpr, band_fpr, low, high} (`metrics.summary.band`), best attack first:
    the first six are drawn. `labels[attack]` is its legend text; `over` says over what (for the
    title).
    """
    shown = dict(list(curves.items())[:MOST_CURVES])
    figure, axes = _canvas(6.4, 5.6)
    floor = min([1e-3, *(float(np.min(c["fpr"])) for c in shown.values())])
    axes.plot([floor, 1], [floor, 1], color="0.55", linewidth=1, label="random guessing")
    for i, (name, c) in enumerate(shown.items()):
        tpr, low, high = (
            np.maximum(np.asarray(c[k], float), floor / 2) for k in ("tpr", "low", "high")
        )
        axes.fill_between(c["band_fpr"], low, high, color=COLORS[i], alpha=0.15, linewidth=0)
        axes.step(
            c["fpr"],
            tpr,
            where="post",
            color=COLORS[i],
            linestyle=DASHES[i],
            linewidth=1.6,
            label=_name(labels.get(name, name)),
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(floor, 1),
        ylim=(floor, 1),
        xlabel="false-positive rate",
        ylabel="true-positive rate",
        aspect="equal",
    )
    count = (
        f"{len(shown)} of {len(curves)} attacks"
        if len(shown) < len(curves)
        else f"{len(shown)} attack{'s' * (len(shown) > 1)}"
    )
    _title(axes, f"ROC curves of {count}", over)
    axes.grid(True, which="major", color="0.9", linewidth=0.6)
    axes.legend(loc="lower right", fontsize=7.5, framealpha=0.9)
    return figure


def of_counts(curve: Mapping) -> dict[str, np.ndarray]:
    """Returns a curve of report.json (`measures.curves.curve`) as `roc` draws it."""
    false, true = np.asarray(curve["false"], float), np.asarray(curve["true"], float)
    n, seen = curve["n_nonmember"], false > 0
    # from the first false positive on: FPR 0 has no place on a log axis
    fpr = np.append(1.0, false[seen])
    at_first = true[~seen][-1] if seen.any() and false[seen][0] > 1 else true[seen][0]
    tpr = np.append(at_first, true[seen]) / curve["n_member"]
    band = {key: np.asarray(curve["band"][key], float) for key in ("fpr", "low", "high")}
    return dict(fpr=fpr / n, tpr=tpr, band_fpr=band["fpr"], low=band["low"], high=band["high"])


def scores(evidence: Mapping[str, tuple], *, over: str = "", bins: int = 60) -> Figure:
    """Draws histograms of the scores of members and non-members, one panel per attack.

    The first three attacks are drawn.

    `evidence[attack]` is (score [K], member [K]). The outermost bins hold the tails, see
    `measures.curves.histogram`.
    """
    shown = list(evidence.items())[:MOST_PANELS]
    figure, panels = _canvas(4.4 * len(shown), 3.6, columns=len(shown))
    for axes, (name, (score, member)) in zip(np.atleast_1d(panels), shown):
        score, member = np.asarray(score, float).ravel(), np.asarray(member, bool).ravel()
        edges = curves_of.bin_edges(score, bins)
        clipped = np.clip(score, edges[0], edges[-1])
        tallest = 0.0
        for side, color, dash, text in (
            (~member, OTHER, "--", "non-members"),
            (member, MEMBER, "-", "members"),
        ):
            share = np.histogram(clipped[side], edges)[0] / max(side.sum(), 1)
            tallest = max(tallest, float(share.max()))
            axes.stairs(share, edges, fill=True, color=color, alpha=0.25)
            axes.stairs(
                share,
                edges,
                color=color,
                linestyle=dash,
                linewidth=1.4,
                label=f"{text} (n = {int(side.sum()):,})",
            )
        axes.set(
            xlabel="score (higher = more likely a member)",
            ylabel="fraction of rows",
            ylim=(0, 1.3 * tallest),
        )
        _title(axes, f"{_name(name)}: scores of members and non-members", over)
        axes.legend(fontsize=7.5, loc="upper right")
    return figure


def shadows(
    curves: Mapping[str, Mapping[int, Mapping]], *, fpr: float = 0.01, over: str = ""
) -> Figure:
    """Draws AUC and TPR at one FPR against the number of shadow models used, with intervals.

    `curves[attack][shadows]` is {auc, auc_low, auc_high, tpr, tpr_low, tpr_high} (or a tuple in
    that order); a None is left out.
    """
    figure, panels = _canvas(9.6, 3.8, columns=2)
    keys = ("auc", "auc_low", "auc_high", "tpr", "tpr_low", "tpr_high")
    titles = ("AUC", f"TPR at {100 * fpr:g}% FPR")
    ticks = sorted({int(n) for points in curves.values() for n in points})
    for axes, part, text, guess in zip(panels, (keys[:3], keys[3:]), titles, (0.5, fpr)):
        axes.axhline(guess, color="0.55", linewidth=1, label="random guessing")
        for i, (name, points) in enumerate(curves.items()):
            color, dash = COLORS[i % len(COLORS)], DASHES[i % len(DASHES)]
            table = {
                int(n): p if isinstance(p, Mapping) else dict(zip(keys, p))
                for n, p in points.items()
            }
            shown = [
                (n, *(table[n][k] for k in part))
                for n in sorted(table)
                if table[n][part[0]] is not None
            ]
            if not shown:
                continue
            at, value = [s[0] for s in shown], [s[1] for s in shown]
            low, high = ([s[1] if s[k] is None else s[k] for s in shown] for k in (2, 3))
            axes.fill_between(at, low, high, color=color, alpha=0.15, linewidth=0)
            show = f"{value[-1]:.3f}" if part[0] == "auc" else f"{100 * value[-1]:.1f}%"
            axes.plot(
                at,
                value,
                color=color,
                linestyle=dash,
                marker="o",
                markersize=4,
                label=_name(f"{name}: {show} with {at[-1]} shadow models"),
            )
        axes.set(xscale="log", xlabel="number of shadow models", ylabel=text)
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(ticks, [str(n) for n in ticks])
        _title(axes, f"{text} against the number of shadow models", over)
        axes.grid(True, axis="y", color="0.9", linewidth=0.6)
        axes.legend(fontsize=7.5)
    return figure


def variants(rows: Sequence[Mapping], *, title: str = "") -> Figure:
    """Draws the variants of a grid side by side.

    There is one panel per metric, one line per variant (in the rows' order, the first on top) and
    one mark with its interval per attack.

    `rows` are {member, attack, metric, value, low, high} (measures.variants.rows), `member` the
    variant; a value of None is left out.
    """
    names, attacks, metrics = (
        list(dict.fromkeys(row[k] for row in rows)) for k in ("member", "attack", "metric")
    )
    figure, panels = _canvas(
        1.6 + 3.6 * len(metrics),
        1.4 + 0.3 * len(names) * max(1, 0.6 * len(attacks)),
        columns=len(metrics),
    )
    for axes, metric in zip(np.atleast_1d(panels), metrics):
        rate = metric.partition("@")[2]
        axes.axvline(
            float(rate) if rate else (0.0 if metric == "advantage" else 0.5),
            color="0.55",
            linewidth=1,
            label="random guessing",
        )
        for i, attack in enumerate(attacks):
            marks = [
                r
                for r in rows
                if (r["attack"], r["metric"]) == (attack, metric) and r["value"] is not None
            ]
            at = [
                names.index(r["member"]) + (i - (len(attacks) - 1) / 2) * 0.8 / len(attacks)
                for r in marks
            ]
            value = np.array([r["value"] for r in marks])
            low, high = (
                np.array([r["value"] if r[k] is None else r[k] for r in marks])
                for k in ("low", "high")
            )
            color, marker = COLORS[i % len(COLORS)], "osD^v*X"[i % 7]
            axes.errorbar(
                value,
                at,
                xerr=(value - low, high - value),
                color=color,
                fmt=marker,
                markersize=5,
                capsize=2.5,
                linewidth=1.4,
                label=_name(attack),
            )
        axes.set_yticks(range(len(names)), list(map(_name, names)), fontsize=8)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(True, axis="x", color="0.9", linewidth=0.6)
        _title(axes, title, tables.metric_name(metric))
        axes.legend(fontsize=7)
    return figure


def selection(
    rows: Sequence[Mapping], *, metric: str, score: str, over: str = "", all_names: bool = False
) -> Figure:
    """Draws settings of a model: how well they predict against how much they leak.

    `rows` are {name, score, score_low, score_high, leak, leak_low, leak_high, front}; the settings
    on the Pareto front (`front`) are joined by a line and named, with `all_names` the others as
    well. A `leak` of None is left out.
    """
    figure, axes = _canvas(6.8, 4.8)
    axes.axvline(
        float(metric.partition("@")[2] or 0.5), color="0.55", linewidth=1, label="random guessing"
    )
    shown = [row for row in rows if row["leak"] is not None]
    for on_front, color, marker, text in (
        (False, COLORS[0], "o", "dominated, by point values"),
        (True, COLORS[1], "s", "Pareto front"),
    ):
        marks = sorted((r for r in shown if r["front"] is on_front), key=lambda r: r["leak"])
        if not marks:
            continue
        ends = {
            key: np.abs(
                [
                    [r[key] - (r[key] if r[f"{key}_{end}"] is None else r[f"{key}_{end}"])]
                    for end in ("low", "high")
                    for r in marks
                ]
            ).reshape(2, len(marks))
            for key in ("leak", "score")
        }
        axes.errorbar(
            [r["leak"] for r in marks],
            [r["score"] for r in marks],
            xerr=ends["leak"],
            yerr=ends["score"],
            color=color,
            fmt=marker + ("-" if on_front else ""),
            markersize=5,
            capsize=2.5,
            linewidth=1.2,
            label=text,
        )
        for r in marks if on_front or all_names else ():
            axes.annotate(
                _name(r["name"]),
                (r["leak"], r["score"]),
                xytext=(5, 5),
                textcoords="offset points",
                fontsize=8.5 if all_names else 7,
            )
    axes.set(xlabel=f"{tables.metric_name(metric)} of the strongest attack", ylabel=score)
    _title(axes, f"{score} against leakage", over)
    axes.grid(True, color="0.9", linewidth=0.6)
    axes.legend(fontsize=7.5)
    return figure


def agreement(names: Sequence[str], jaccard, *, over: str = "") -> Figure:
    """Draws the Jaccard index [A,A] of the members that each two of A attacks identify.

    A value of None is a cell without a number.
    """
    value_AA = np.array([[np.nan if v is None else v for v in row] for row in jaccard], float)
    side = 2.6 + 0.5 * len(names)
    figure, axes = _canvas(side + 0.7, side)
    image = axes.imshow(value_AA, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    at, shown = range(len(names)), [_name(name) for name in names]
    axes.set_xticks(at, shown, rotation=45, ha="right", fontsize=7.5)
    axes.set_yticks(at, shown, fontsize=7.5)
    for row, column in np.ndindex(value_AA.shape):
        value = value_AA[row, column]
        text, ink = ("–", "black") if np.isnan(value) else (f"{value:.2f}", _ink(value))
        axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=7.5)
    _title(axes, "Jaccard index of the members that two attacks identify", over)
    figure.colorbar(image, ax=axes, shrink=0.8).ax.tick_params(labelsize=7)
    return figure


def matrix(made, lines: Sequence[tuple]) -> Figure:
    """Draws the AUC of every attack behind every defense, and accuracy against the strongest one.

    Args:
        made: a `measures.matrix.Matrix`.
        lines: (title, its Line, {attack: its Cell}) of every line, as `report.matrix.lines` lists
            them.
    """
    metric, columns = made.metrics[0], [column.attack for column in made.columns]
    value_LA = np.full((len(lines), len(columns)), np.nan)
    for at, (_, _, cells) in enumerate(lines):
        for place, attack in enumerate(columns):
            if attack in cells and metric in cells[attack].rows:
                value_LA[at, place] = cells[attack].rows[metric]["value"]
    tall = 1.6 + 0.24 * len(lines)
    figure = Figure(figsize=(9.5, tall + 5.0), dpi=130, layout="constrained")
    heat, scatter = figure.subplots(2, 1, height_ratios=(tall, 5.0))
    most = max(0.55, float(np.nanmax(value_LA)))
    image = heat.imshow(
        value_LA, cmap="cividis", vmin=0.5, vmax=most, interpolation="nearest", aspect="auto"
    )
    names = [_name(f"{c.attack} ({c.sees})") for c in made.columns]
    heat.set_xticks(range(len(columns)), names, rotation=60, ha="right", fontsize=8)
    heat.set_yticks(range(len(lines)), [_name(title) for title, _, _ in lines], fontsize=8)
    for row, column in np.ndindex(value_LA.shape):
        value = value_LA[row, column]
        ink = "black" if value > (0.5 + most) / 2 else "white"
        text = "–" if np.isnan(value) else f"{value:.2f}".replace("0.", ".")
        heat.text(column, row, text, ha="center", va="center", color=ink, fontsize=7.5)
    heat.set_title(f"{tables.metric_name(metric)} of every attack", fontsize=9)
    figure.colorbar(image, ax=heat, shrink=0.5).ax.tick_params(labelsize=7)
    _places(scatter, made.fronts[metric], tables.metric_name(metric))
    return figure


def _places(axes, places: Sequence, metric: str) -> None:
    """Draws accuracy against leakage with intervals, the front joined by a line, all named.

    Ruined models would press all others together: those that are less than RUINED times as accurate
    as the best one are named below the axes instead.
    """
    best = max(place.accuracy.value for place in places)
    ruined = [p for p in places if p.accuracy.value < RUINED * best]
    places = [p for p in places if p.accuracy.value >= RUINED * best]
    for on_front, color, marker, text in (
        (False, COLORS[0], "o", "dominated, by point values"),
        (True, COLORS[1], "s", "Pareto front"),
    ):
        some = sorted((p for p in places if p.front is on_front), key=lambda p: p.leakage.value)
        for place in some:
            for amount, along in ((place.leakage, "x"), (place.accuracy, "y")):
                if amount.low is None or amount.high is None:
                    continue
                span = (amount.low, amount.high)
                across = (place.accuracy if along == "x" else place.leakage).value
                both = (span, (across, across))
                axes.plot(*(both if along == "x" else both[::-1]), color=color, lw=0.7, alpha=0.5)
        axes.plot(
            [p.leakage.value for p in some],
            [p.accuracy.value for p in some],
            marker + ("-" if on_front else ""),
            color=color,
            markersize=4,
            linewidth=1,
            label=text,
        )
    axes.axvline(0.5, color="0.55", linewidth=1, linestyle=":", label="random guessing")
    axes.set(xlabel=f"{metric} of the strongest attack", ylabel="accuracy of released labels")
    below = ", ".join(
        f"{_name(p.defense)} ({100 * p.accuracy.value:.0f}%, AUC {p.leakage.value:.2f})"
        for p in ruined
    )
    title = "Accuracy against the strongest attack"
    axes.set_title(title + f"; below the axes: {below}" * bool(below), fontsize=9)
    axes.grid(True, color="0.9", linewidth=0.6)
    axes.legend(fontsize=7, loc="lower right")
    first = sorted(places, key=lambda p: (not p.front, -p.accuracy.value))
    _labeled(axes, [(_name(p.defense), p.leakage.value, p.accuracy.value) for p in first])


def _labeled(axes, points: Sequence[tuple[str, float, float]], *, size: float = 7.5) -> list:
    """Writes a name beside each point so that no two names overlap, and returns the texts.

    A name takes the free place that is nearest to its point, to the right or to the left; a name
    that is not beside its point is joined to it by a thin line. Points come in the order in which
    they may choose.
    """
    figure = axes.figure
    renderer, scale = FigureCanvasAgg(figure).get_renderer(), figure.dpi / 72
    figure.draw_without_rendering()  # the layout decides where points are
    steps = [s * n for n in range(40) for s in ((1, -1) if n else (1,))]
    offsets = [(dx, 3 + 0.5 * size * n) for n in steps for dx in (5, -5)]
    taken = [axes.get_legend().get_window_extent(renderer)] if axes.get_legend() else []
    taken += [
        Bbox.from_extents(x - 3, y - 3, x + 3, y + 3)
        for x, y in (axes.transData.transform(point[1:]) for point in points)
    ]
    inside, texts = axes.get_window_extent(renderer), []
    for name, x, y in points:
        text = axes.annotate(
            name, (x, y), xytext=(0, 0), textcoords="offset points", fontsize=size, va="center"
        )
        extent = text.get_window_extent(renderer)
        for dx, dy in offsets:
            left = dx < 0
            box = extent.translated(dx * scale - left * extent.width, dy * scale)
            within = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0
            if within and box.y1 <= inside.y1 and not any(box.overlaps(b) for b in taken):
                break
        else:  # more names than room: beside its point
            (dx, dy), left, box = offsets[0], False, extent
        text.set_position((dx, dy))
        text.set_horizontalalignment("right" if left else "left")
        if abs(dy) > size:
            axes.annotate(
                "",
                (x, y),
                xytext=(dx, dy),
                textcoords="offset points",
                arrowprops=dict(arrowstyle="-", color="0.6", linewidth=0.5, shrinkA=0, shrinkB=2),
            )
        taken.append(box)
        texts.append(text)
    return texts


def _ink(value: float) -> str:
    return "black" if value > 0.5 else "white"


def queries(curves: Mapping[str, Sequence[Mapping]], *, over: str = "") -> Figure:
    """Draws balanced accuracy and TPR at a low FPR against queries per example, with intervals.

    An attack of one point is a marker.

    `curves[attack]` are points {queries, accuracy, accuracy_low, accuracy_high, tpr, tpr_low,
    tpr_high}; a None is left out.
    """
    figure, panels = _canvas(9.6, 3.8, columns=2)
    for axes, key, text in zip(
        panels, ("accuracy", "tpr"), ("balanced accuracy", "TPR at a low FPR"), strict=True
    ):
        for i, (name, points) in enumerate(curves.items()):
            known = [p for p in points if p[key] is not None]
            if not known:
                continue
            at, value = [p["queries"] for p in known], [p[key] for p in known]
            low, high = (
                [p[key] if p[f"{key}_{end}"] is None else p[f"{key}_{end}"] for p in known]
                for end in ("low", "high")
            )
            color = COLORS[i % len(COLORS)]
            if len(known) > 1:
                axes.fill_between(at, low, high, color=color, alpha=0.15, linewidth=0)
            else:
                axes.errorbar(
                    at,
                    value,
                    yerr=[[value[0] - low[0]], [high[0] - value[0]]],
                    color=color,
                    linewidth=1,
                    capsize=2,
                )
            axes.plot(
                at,
                value,
                color=color,
                linestyle=DASHES[i % len(DASHES)],
                marker="o",
                markersize=4,
                label=_name(name),
            )
        axes.set(xscale="log", xlabel="queries per example", ylabel=text)
        _title(axes, f"{text} against queries", over)
        axes.grid(True, axis="y", color="0.9", linewidth=0.6)
        if axes.lines:
            axes.legend(fontsize=7)
    return figure


def epochs(
    curves: Mapping[str, Sequence[Mapping]], *, titles: Mapping[str, str], over: str = ""
) -> Figure:
    """Draws metrics against the epoch (above) and the accuracy on non-members (below).

    There is one line per attack; `titles` is {metric: its name}.

    `curves[attack]` are points {epoch, validation_accuracy, <metric>: {value, low, high}}
    (measures.epochs.curves); a value of None is left out.
    """
    figure, panels = _canvas(4.1 * len(titles), 6.6, rows=2, columns=len(titles))
    for row, (along, text) in zip(
        panels,
        dict(epoch="epoch", validation_accuracy="accuracy on non-members").items(),
        strict=True,
    ):
        for axes, (metric, name) in zip(row, titles.items(), strict=True):
            for i, (attack, points) in enumerate(curves.items()):
                known = [
                    p for p in points if p[metric]["value"] is not None and p[along] is not None
                ]
                at, value = [p[along] for p in known], [p[metric]["value"] for p in known]
                color = COLORS[i % len(COLORS)]
                if along == "epoch":
                    ends = (
                        [p[metric]["value" if p[metric][end] is None else end] for p in known]
                        for end in ("low", "high")
                    )
                    axes.fill_between(at, *ends, color=color, alpha=0.15, linewidth=0)
                look = (
                    dict(linewidth=1.2, markersize=2.5)
                    if along == "epoch"
                    else dict(linewidth=0.4, markersize=3.5)
                )
                axes.plot(
                    at,
                    value,
                    color=color,
                    linestyle=DASHES[i % len(DASHES)],
                    marker="os^Dv"[i % 5],
                    label=_name(attack),
                    **look,
                )
            axes.set(xlabel=text, ylabel=name)
            _title(axes, f"{name} against {text}", over)
            axes.grid(True, color="0.9", linewidth=0.6)
    panels[0][0].legend(fontsize=7)
    return figure


def training(rows: Sequence[Mapping], metric: str, *, limits: Sequence[float] = ()) -> Figure:
    """Draws a metric over the epochs of one training with its intervals, and accuracies below.

    Args:
        rows: a row per epoch and attack: {epoch, attack, <metric>, <metric>_low, <metric>_high,
            member_accuracy, nonmember_accuracy} (mia_jax/monitor.py). None is left out.
        metric: the metric of the upper panel.
        limits: horizontal lines.
    """
    has_accuracy = any(row["member_accuracy"] is not None for row in rows)
    below = "accuracy" if has_accuracy else "loss"
    figure, (above, lower) = _canvas(6.4, 6.2, rows=2)
    attacks = list(dict.fromkeys(row["attack"] for row in rows))
    for i, attack in enumerate(attacks):
        known = [row for row in rows if row["attack"] == attack and row[metric] is not None]
        at, value = [row["epoch"] for row in known], [row[metric] for row in known]
        low, high = (
            [row[metric if row[f"{metric}_{end}"] is None else f"{metric}_{end}"] for row in known]
            for end in ("low", "high")
        )
        look = dict(color=COLORS[i % len(COLORS)])
        above.fill_between(at, low, high, alpha=0.15, linewidth=0, **look)
        style = DASHES[i % len(DASHES)]
        above.plot(at, value, style, label=_name(attack), marker="o", markersize=2.5, **look)
    for most in limits:
        above.axhline(most, color="0.3", linewidth=1, linestyle=":", label=f"limit {most:g}")
    for side, name, color in (("member", "members", MEMBER), ("nonmember", "non-members", OTHER)):
        known = [r for r in rows if r["attack"] == attacks[0] and r[f"{side}_{below}"] is not None]
        at, value = [r["epoch"] for r in known], [r[f"{side}_{below}"] for r in known]
        lower.plot(at, value, label=name, color=color, marker="o", markersize=2.5)
    above.set(ylabel=tables.metric_name(metric))
    lower.set(xlabel="epoch", ylabel=f"{'' if has_accuracy else 'mean '}{below} of the model")
    for axes in (above, lower):
        axes.grid(True, color="0.9", linewidth=0.6)
        axes.legend(fontsize=7)
    return figure


def overfitting(measured: Mapping, *, over: str = "") -> Figure:
    """Draws the leakage of each target against its gap, one panel per metric.

    `measured` is what measures.overfitting.measure returns; there is one color per attack, and a
    value of None is left out.
    """
    metrics, accuracy = measured["metrics"], measured["quality"] == "accuracy"
    figure, panels = _canvas(4.4 * len(metrics), 3.8, columns=len(metrics))
    for axes, metric in zip(np.atleast_1d(panels), metrics, strict=True):
        axes.axhline(
            float(metric.partition("@")[2] or 0.5),
            color="0.55",
            linewidth=1,
            label="random guessing",
        )
        for i, name in enumerate(measured["attacks"]):
            known = [
                (point["gap"], point["attacks"][name][metric]["value"])
                for point in measured["targets"]
                if point["attacks"][name][metric]["value"] is not None
            ]
            axes.plot(
                [gap for gap, _ in known],
                [value for _, value in known],
                color=COLORS[i % len(COLORS)],
                linestyle="none",
                marker="os^Dv"[i % 5],
                markersize=3.5,
                label=_name(name),
            )
        gap = (
            "accuracy on members - on non-members" if accuracy else "loss on non-members - members"
        )
        axes.set(xlabel=f"gap: {gap}", ylabel=tables.metric_name(metric))
        _title(axes, f"{tables.metric_name(metric)} against overfitting", over)
        axes.grid(True, color="0.9", linewidth=0.6)
        axes.legend(fontsize=7)
    return figure


def evasion(curves: Mapping[str, Mapping], *, over: str = "") -> Figure:
    """Draws the accuracy against the radius of an attack, non-members solid and members dashed.

    `curves` is what measures.evasion.measure returns.
    """
    figure, axes = _canvas(6.4, 4.2)
    for i, (name, curve) in enumerate(curves.items()):
        for side, dash, text in (("nonmembers", "-", "non-members"), ("members", "--", "members")):
            axes.plot(
                curve["epsilon"],
                curve[side],
                color=COLORS[i % len(COLORS)],
                linestyle=dash,
                marker="o",
                markersize=4,
                label=_name(f"{name}, {text}"),
            )
    axes.set_xscale("symlog", linthresh=1 / 255)
    axes.set(
        ylim=(0, 1.02), xlabel="epsilon: maximum perturbation per coordinate", ylabel="accuracy"
    )
    _title(axes, "Accuracy under evasion attacks", over)
    axes.grid(True, color="0.9", linewidth=0.6)
    axes.legend(fontsize=7)
    return figure


def adversarial(before, after, y, *, epsilon: float) -> Figure:
    """Draws examples [P,H,W,C] in the upper row, the adversarial ones in the lower."""
    figure = Figure(figsize=(1.25 * len(before), 3.0), dpi=130, layout="constrained")
    panels = figure.subplots(2, len(before), squeeze=False)
    for row, images in zip(panels, (before, after), strict=True):
        for axes, image, label in zip(row, np.asarray(images), y, strict=True):
            image = np.clip(image, 0, 1)
            axes.imshow(
                image[..., 0] if image.shape[-1] == 1 else image,
                cmap="gray",
                vmin=0,
                vmax=1,
                interpolation="nearest",
            )
            axes.set(xticks=[], yticks=[])
            if images is before:
                axes.set_title(f"class {label}", fontsize=8)
    panels[0, 0].set_ylabel("example", fontsize=8)
    panels[1, 0].set_ylabel(f"epsilon {epsilon:.3g}", fontsize=8)
    return figure


def weights(pictures) -> Figure:
    """Draws weights as pictures [C,H,W], one per class, on one scale.

    Red is positive, blue negative, white zero.
    """
    pictures = np.asarray(pictures, float)
    columns = min(len(pictures), 5)
    rows = -(-len(pictures) // columns)
    figure = Figure(
        figsize=(
            1.9 * columns,
            0.4 + 1.9 * rows * pictures.shape[1] / pictures.shape[2] + 0.25 * rows,
        ),
        dpi=130,
        layout="constrained",
    )
    panels, largest = (
        figure.subplots(rows, columns, squeeze=False).ravel(),
        np.abs(pictures).max() or 1,
    )
    for axes in panels:
        axes.set_axis_off()
    for c, (axes, picture) in enumerate(zip(panels, pictures)):
        image = axes.imshow(
            picture, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest"
        )
        axes.set_title(f"class {c}", fontsize=8)
    figure.colorbar(image, ax=list(panels), shrink=0.8).ax.tick_params(labelsize=7)
    return figure


def _canvas(width: float, height: float, rows: int = 1, columns: int = 1):
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    return figure, figure.subplots(rows, columns)


def _name(text: str) -> str:
    """Returns a name from data or a config so that matplotlib draws it letter by letter.

    Nothing between dollars is mathematics, and no legend entry is hidden.
    """
    text = tables.shown(text)
    text = text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…"
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def _title(axes, text: str, over: str) -> None:
    """Writes a title over as many lines as the width of its panel takes."""
    box = axes.get_position()
    inches = axes.figure.get_figwidth() * (box.x1 - box.x0)
    width = max(24, int(inches * 14))  # characters of 9 points
    lines = [line for part in (text, over) if part for line in textwrap.wrap(part, width)]
    axes.set_title("\n".join(lines), fontsize=9)


def legend_texts(rows: Sequence[Mapping], fpr: float = 0.01) -> dict[str, str]:
    """Returns {attack: 'lira: AUC 0.645, TPR at 1% FPR 9.6%'} from the pooled rows."""
    texts: dict[str, str] = {}
    for row in rows:
        if row["target"] == "pooled" and row["value"] is not None:
            if row["metric"] == "auc":
                texts[row["attack"]] = f"{row['attack']}: AUC {row['value']:.3f}"
            elif row["metric"] == f"tpr@{fpr:g}":
                texts[row["attack"]] = (
                    texts.get(row["attack"], row["attack"])
                    + f", TPR at {100 * fpr:g}% FPR {100 * row['value']:.1f}%"
                )
    return texts
