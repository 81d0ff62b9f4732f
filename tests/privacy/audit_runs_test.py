"""Tests audits of many runs: bounds that hold whenever one looks, and trials of one canary."""

import numpy as np
import pytest
from scipy import special, stats

from mia_jax.privacy import audit, audit_order, audit_runs, audit_sums

COUNT = 100  # canaries of a run


def runs_of(seed, *, runs, mu):
    """Returns (guesses, sums) of independent runs of a Gaussian mechanism."""
    guesses, sums = [], []
    for r in range(runs):
        rng = np.random.default_rng([seed, r])
        inside = rng.random(COUNT) < 0.5
        score = rng.normal(size=COUNT) + mu * inside
        guesses.append(audit.guess(score, inside, high=27, low=27))
        sums.append(audit_sums.sums(score, inside))
    return guesses, sums


def test_e_values_by_hand():
    """Of one run without delta: exp(tilt right), divided by its expectation for Binomial counts."""
    guesses = audit.Guesses(9, 9, 7)
    rate, tilt = special.expit(0.8), np.array(audit_runs.ODDS)
    expected = np.mean(np.exp(7 * tilt) / (1 - rate + rate * np.exp(tilt)) ** 9)
    for method in ("one_run", "order_dp"):
        value = audit_runs.log_e_value([guesses], parameter=0.8, delta=0.0, method=method)
        assert value == pytest.approx(np.log(expected))
    twice = [guesses, guesses]
    both = audit_runs.log_e_value(twice, parameter=0.8, delta=0.0, method="one_run")
    assert both > 2 * value - 1e-9  # The mean of squares is at least the square of the mean.


@pytest.mark.parametrize("method", ["one_run", "order_dp", "order"])
@pytest.mark.parametrize("delta", [0.0, 1e-3])
def test_tables_of_tails_are_the_p_values(method, delta):
    common = dict(canaries=60, guesses=20)
    if method == "order":
        table, p = audit_order.tail(**common, mu=0.9), audit_order.p_value
        claim = dict(mu=0.9)
    else:
        claim = dict(epsilon=0.9, delta=delta)
        table = (audit.tail if method == "one_run" else audit_order.tail_dp)(**common, **claim)
        p = audit.p_value if method == "one_run" else audit_order.p_value_dp
    each = [p(**common, correct=v, **claim) for v in range(21)]
    np.testing.assert_allclose(table, each, rtol=1e-9)


@pytest.mark.parametrize("method", ["order", "rank_sum"])
def test_no_bound_of_a_growing_audit_exceeds_the_truth_and_repeated_tests_do(method):
    mu, runs, repeats, ever, repeated = 0.719, 12, 120, 0, 0
    for s in range(repeats):
        counts = runs_of(s, runs=runs, mu=mu)[method == "rank_sum"]
        values = [
            audit_runs.log_e_value(counts[:end], parameter=mu, delta=1e-5, method=method)
            for end in range(1, runs + 1)
        ]
        ever += max(values) >= np.log(1 / 0.05)
        if method == "rank_sum":
            z = [-special.ndtri(audit_sums.p_value(c, mu=mu, method=method)) for c in counts]
            repeated += (np.cumsum(z) / np.sqrt(np.arange(1, runs + 1)) > 1.645).any()
    assert ever / repeats <= stats.binom.isf(1e-3, repeats, 0.05) / repeats
    assert method == "order" or repeated / repeats > 0.08


@pytest.mark.slow
@pytest.mark.parametrize("method", audit_runs.METHODS)
@pytest.mark.parametrize("mu", [0.0, 0.719, 1.666])
def test_the_level_holds_over_40_runs(method, mu):
    claim = mu if method in ("order", "rank_sum") else audit.gdp_epsilon(mu, 1e-5)
    ever = 0
    for s in range(300):
        counts = runs_of([1, s], runs=40, mu=mu)[method == "rank_sum"]
        ever += any(
            audit_runs.log_e_value(counts[:end], parameter=claim, delta=1e-5, method=method)
            >= np.log(20)
            for end in range(1, 41)
        )
    assert ever / 300 <= stats.binom.isf(1e-3, 300, 0.05) / 300


def test_bounds_rise_with_the_runs():
    guesses, sums = runs_of(7, runs=12, mu=1.666)
    for method, counts, least in (("order", guesses, 4.5), ("rank_sum", sums, 4.5)):
        bounds = audit_runs.running(counts, delta=1e-5, method=method)
        assert len(bounds) == 12 and bounds == sorted(bounds)
        assert 8 > bounds[-1] > least and bounds[-1] > bounds[0]
        assert audit_runs.running(counts[:5], delta=1e-5, method=method) == bounds[:5]
    one = audit_runs.running(guesses, delta=1e-5, method="one_run")
    assert 8 > one[-1] > audit.one_run(guesses[0], delta=1e-5)


@pytest.mark.parametrize("method", ["one_run", "order_dp"])
def test_a_bound_ends_where_the_evidence_reaches_one_in_alpha(method):
    counts = [audit.Guesses(100, 54, 50), audit.Guesses(100, 54, 49)]
    bound = audit_runs.running(counts, delta=1e-5, alpha=0.01, method=method)[-1]
    evidence = audit_runs.log_e_value(counts, parameter=bound, delta=1e-5, method=method)
    assert bound > 0 and evidence == pytest.approx(np.log(100), abs=0.01)


def test_independent_trials_by_hand_and_their_level():
    low, high = 0.05 / 2, None
    high = 1 - low ** (1 / 20)  # 0 of 20.
    assert audit_runs.independent_trials(
        true=20, inside=20, false=0, outside=20, delta=0.0
    ) == pytest.approx(np.log((1 - high) / high))
    assert audit_runs.independent_trials(
        true=20, inside=20, false=0, outside=20, delta=0.1
    ) == pytest.approx(np.log((1 - high - 0.1) / high))
    assert audit_runs.independent_trials(true=1, inside=20, false=0, outside=20, delta=0.5) == 0
    # A Gaussian's curve: the distance of the quantiles, at the same limits of the rates.
    counts = dict(true=20, inside=20, false=0, outside=20, delta=1e-5, curve="gaussian")
    mu = stats.norm.ppf(1 - high) - stats.norm.ppf(high)
    assert audit_runs.independent_trials(**counts) == pytest.approx(audit.gdp_epsilon(mu, 1e-5))
    assert audit_runs.independent_trials(**counts | dict(false=20)) == 0
    wrong = 0
    for s in range(200):
        rng = np.random.default_rng(s)
        inside = rng.random(400) < 0.5
        right = rng.random(400) < special.expit(1.0)  # Randomized response at epsilon 1.
        score = np.where(right, inside, ~inside) + rng.uniform(0, 1e-3, size=400)
        epsilon, threshold = audit_runs.best_threshold(score, inside, delta=0.0)
        wrong += epsilon > 1
        assert 0 <= threshold <= 1.01
    assert wrong <= stats.binom.isf(1e-3, 200, 0.05)


def test_a_threshold_on_gaussian_scores_keeps_its_level_and_shows_most_of_epsilon():
    """One canary per run, N(mu coin, 1): the claim of the mechanism is refuted in 5% of audits."""
    mu, bounds = audit.gaussian_mu(8.0, 1e-5), []
    for s in range(100):
        rng = np.random.default_rng(s)
        inside = rng.random(600) < 0.5
        score = rng.normal(size=600) + mu * inside
        bounds.append(audit_runs.best_threshold(score, inside, delta=1e-5, curve="gaussian")[0])
        assert 0 < bounds[-1] < audit_runs.ceiling_of_trials(600, delta=1e-5, curve="gaussian")
    assert np.sum(np.array(bounds) > 8) <= stats.binom.isf(1e-3, 100, 0.05)
    assert 4.5 < np.median(bounds) < 7
    with pytest.raises(ValueError, match="curve='normal' is not one of"):
        audit_runs.best_threshold(score, inside, delta=1e-5, curve="normal")


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: audit_runs.running([], delta=1e-5), "counts_R is empty"),
        (
            lambda: audit_runs.running([audit.Guesses(9, 9, 9)], delta=1e-5, method="sum"),
            "method='sum' is not one of",
        ),
        (
            lambda: audit_runs.best_threshold([0.0, 1.0], [True, True], delta=0.0),
            "2 of 2 runs hold the canary",
        ),
        (
            lambda: audit_runs.best_threshold([0.0, np.nan], [True, False], delta=0.0),
            "score has 1 NaN values of 2",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
