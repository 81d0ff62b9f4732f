"""Curves and histograms of report.json: exact counts; no vertex moves by a pixel or more."""

import itertools
import json
import math

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from mia_jax.measures import curves
from mia_jax.metrics import bootstrap, outcomes, roc, summary
from mia_jax.report import figures


def study(targets=6, records=3000, seed=0, gain=1.0):
    rng = np.random.default_rng(seed)
    member = rng.random((targets, records)) < 0.5
    evaluated = rng.random(member.shape) < 0.9
    score = np.where(evaluated, rng.normal(size=member.shape) + gain * member, np.nan)
    return score, member, evaluated, bootstrap.make(records, np.arange(targets), draws=50)


def test_the_vertices_are_counts_of_the_whole_curve_and_none_moves_by_a_pixel():
    score, member, evaluated, draws = study()
    curve = curves.curve(score, member, evaluated, draws)
    whole = roc.roc(score[evaluated], member[evaluated])
    kept = set(zip(curve["false"], curve["true"], strict=True))
    vertices = list(zip(whole.false_V.astype(int), whole.true_V.astype(int), strict=True))
    assert kept <= set(vertices) and len(kept) < len(vertices) / 5
    assert (curve["n_member"], curve["n_nonmember"]) == (whole.n_member, whole.n_nonmember)
    assert curve["false"] == sorted(curve["false"]) and curve["true"] == sorted(curve["true"])

    def place(vertex):
        shorter = min(whole.n_member, whole.n_nonmember)
        sizes = ((curves.WIDTH, whole.n_nonmember), (curves.HEIGHT, shorter))
        return [p * math.log(c) / math.log(n) if c else -1 for c, (p, n) in zip(vertex, sizes)]

    last = vertices[0]
    for vertex in vertices:
        if vertex in kept:
            last = vertex
        moved = max(abs(a - b) for a, b in zip(place(vertex), place(last), strict=True))
        assert moved < 1


def drawn(false, true, n_member, n_nonmember):
    """The corners of the steps as they are drawn, in rates."""
    band = dict(fpr=[1.0], low=[1.0], high=[1.0])
    curve = dict(false=false, true=true, n_member=n_member, n_nonmember=n_nonmember, band=band)
    shown = figures.of_counts(curve)
    x, y = np.repeat(shown["fpr"], 2)[1:], np.repeat(shown["tpr"], 2)[:-1]
    return np.stack([x, y], 1)


def far(points, corners) -> float:
    """The largest distance of points from the line through the corners."""
    start, step = corners[:-1], np.diff(corners, axis=0)
    length = np.maximum((step**2).sum(1), 1e-18)
    largest = 0.0
    for part in np.array_split(points, -(-len(points) // 200)):
        off = part[:, None] - start
        along = np.clip((off * step).sum(2) / length, 0, 1)
        largest = max(largest, np.sqrt(((off - along[..., None] * step) ** 2).sum(2)).min(1).max())
    return float(largest)


def between(corners):
    """The corners, and points on the line every pixel."""
    parts = [
        np.linspace(a, b, 2 + int(np.abs(b - a).max())) for a, b in itertools.pairwise(corners)
    ]
    return np.concatenate(parts)


@pytest.mark.parametrize(
    "members, others, gain, decimals",
    [(300, 300, 1.0, 9), (300, 400, 0.0, 9), (300, 400, 2.5, 1), (500, 80, 1.0, 9),
     (60, 500, 3.0, 9), (700, 700, 1.0, 0), (30, 20, 1.0, 9),
     pytest.param(2500, 2500, 1.0, 9, marks=pytest.mark.slow)],
)  # fmt: skip
def test_the_thinned_line_and_the_whole_one_are_nowhere_more_than_a_pixel_apart(
    members, others, gain, decimals
):
    """On the log-log axes of report.html, and on those of figures/roc.png as matplotlib places
    them: the distance of what is seen of the lines, not of their vertices alone, both ways.
    """
    rng = np.random.default_rng(members)
    member = np.arange(members + others) < members
    whole = roc.roc(np.round(rng.normal(size=len(member)) + gain * member, decimals), member)
    kept = curves.thinned(whole)
    sizes = dict(n_member=members, n_nonmember=others)
    full, thin = (drawn(whole.false_V[at], whole.true_V[at], **sizes) for at in (slice(None), kept))
    figure = figures.roc(
        dict(a=figures.of_counts(dict(
            false=whole.false_V, true=whole.true_V,
            band=dict(fpr=[1 / others, 1.0], low=[0.5, 1.0], high=[0.5, 1.0]), **sizes,
        )))
    )  # fmt: skip
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    floor = axes.get_ylim()[0]
    png = lambda line: axes.transData.transform(np.maximum(line, floor))  # noqa: E731
    size = np.array([curves.WIDTH, curves.HEIGHT])
    down = -np.log([min(1 / others, 1e-3), min(1 / members, 1e-3)])
    html = lambda line: size * (1 + np.log(np.maximum(line, np.exp(-down))) / down)  # noqa: E731
    for place in (png, html):
        a, b = place(full), place(thin)
        assert far(between(a), b) <= 1 and far(between(b), a) <= 1


def test_the_tpr_at_every_rate_of_the_band_is_that_of_the_whole_curve():
    score, member, evaluated, draws = study()
    curve = curves.curve(score, member, evaluated, draws, fprs=(0.0123,))
    whole = roc.roc(score[evaluated], member[evaluated])
    band = curve["band"]
    assert 0.0123 in band["fpr"] and 1.0 in band["fpr"] and band["fpr"] == sorted(band["fpr"])
    for fpr, low, high in zip(band["fpr"], band["low"], band["high"], strict=True):
        allowed = outcomes.allowed(fpr, curve["n_nonmember"])
        at = np.searchsorted(curve["false"], allowed, side="right") - 1
        point = roc.tpr_at_fpr(whole, fpr)
        assert (curve["true"][at], curve["false"][at]) == (
            point.true_positives,
            point.false_positives,
        )
        assert low <= round(point.tpr, 6) <= high
    old = summary.band(score, member, evaluated, draws, points=10_000)
    at = list(old["band_fpr"]).index(
        outcomes.allowed(0.01, curve["n_nonmember"]) / whole.n_nonmember
    )
    place = band["fpr"].index(0.01)
    assert (band["low"][place], band["high"][place]) == pytest.approx(
        (old["low"][at], old["high"][at]), abs=1e-6
    )


def test_a_histogram_counts_every_score_once_and_keeps_tails_in_the_outermost_bins():
    score = np.array([0.0, 1.0, 2.0, 3.0, np.inf, -np.inf])
    member = np.array([True, False, True, False, True, False])
    histogram = curves.histogram(score, member, bins=3)
    assert sum(histogram["member"]) == 3 and sum(histogram["nonmember"]) == 3
    assert histogram["member"][-1] >= 1 and histogram["nonmember"][0] >= 1
    assert math.isfinite(histogram["low"]) and histogram["low"] < histogram["high"]
    json.dumps(histogram, allow_nan=False)


@pytest.mark.parametrize("constant", [1.0, np.inf])
def test_scores_that_are_all_equal_have_a_curve_and_a_histogram(constant):
    member = np.arange(40)[None] % 2 < 1
    score, evaluated = np.full(member.shape, constant), np.ones(member.shape, bool)
    draws = bootstrap.make(40, np.arange(1), draws=50)
    drawn, histograms = curves.of(dict(a=dict(score_TN=score)), member, evaluated, draws)
    assert drawn["a"]["false"] == [0, 20] and drawn["a"]["true"] == [0, 20]
    assert sum(histograms["a"]["member"]) == sum(histograms["a"]["nonmember"]) == 20
    json.dumps([drawn, histograms], allow_nan=False)


def test_what_is_kept_of_a_large_study_is_small():
    score, member, evaluated, draws = study(targets=16, records=20_000)
    curve = curves.curve(score, member, evaluated, draws)
    assert len(curve["false"]) <= 1500 and len(json.dumps(curve)) < 30_000
