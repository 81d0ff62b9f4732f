"""Curves and histograms of report.json: exact counts; no vertex moves by a pixel or more."""

import json
import math

import numpy as np
import pytest

from mia_jax.measures import curves
from mia_jax.metrics import bootstrap, outcomes, roc, summary


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
        sizes = ((900, whole.n_nonmember), (600, whole.n_member))
        return [p * math.log(max(c, 1)) / math.log(n) for c, (p, n) in zip(vertex, sizes)]

    last = vertices[0]
    for vertex in vertices:
        if vertex in kept:
            last = vertex
        moved = max(abs(a - b) for a, b in zip(place(vertex), place(last), strict=True))
        assert moved < 1


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
