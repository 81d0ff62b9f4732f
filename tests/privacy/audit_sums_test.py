"""Tests bounds from sums of scores: their formulas, their level in easy and hard cases, their
power.
"""

import numpy as np
import pytest
from scipy import stats

from mia_jax.privacy import audit, audit_sums

MU = {3: 0.719146, 8: 1.666031}  # mu-Gaussian DP is (epsilon, 1e-5)-DP for these epsilons


def canaries(rng, *, count, mu, kind="normal"):
    """Returns (score_N, inside_N) of a mechanism that is exactly mu-Gaussian DP.

    The kinds are monotone transforms of its normal scores, of which the attacker may choose any;
    shifts that are common to all canaries or differ between them; and 'r directions': a Gaussian
    mechanism that adds up gradients of norm mu that lie in r dimensions, scored by their inner
    products with its output.
    """
    inside_N = rng.random(count) < 0.5
    if kind.endswith("directions"):
        directions = int(kind.split()[0])
        gradient = rng.normal(size=(count, directions))
        gradient *= mu / np.linalg.norm(gradient, axis=1, keepdims=True)
        return gradient @ (gradient.T @ inside_N + rng.normal(size=directions)), inside_N
    x = rng.normal(size=count) + mu * (inside_N - 0.5)
    transform = dict(
        normal=lambda: x,
        saturated=lambda: np.tanh(mu * x / 2),
        steps=lambda: np.sign(x),
        heavy=lambda: np.exp(3 * x),
        scales=lambda: np.exp(rng.normal(size=count)) * x,
        shifts=lambda: x + rng.normal(size=count),
        common=lambda: x + 10 * rng.normal(),
    )
    return transform[kind](), inside_N


KINDS = ("saturated", "steps", "heavy", "scales", "shifts", "common")
KINDS += ("1 directions", "5 directions", "20 directions")


def refuted(method, *, mu, kind="normal", count=1000, runs=200, alpha=0.05):
    """Returns the share of runs that refute the true mu."""
    values = [
        audit_sums.p_value(
            audit_sums.sums(
                *canaries(np.random.default_rng([count, s]), count=count, mu=mu, kind=kind)
            ),
            mu=mu,
            method=method,
        )
        for s in range(runs)
    ]
    return np.mean(np.array(values) <= alpha)


def allowed(runs, alpha=0.05):
    """Returns the share that a test of level alpha exceeds in 1 of 1,000 repetitions."""
    return stats.binom.isf(1e-3, runs, alpha) / runs


def test_statistics_by_hand():
    score = np.arange(40.0)
    inside = score >= 20
    observed = audit_sums.sums(score, inside)
    spread = np.sqrt(np.square(np.arange(20) - 9.5).sum() * 2 / 38)
    assert observed.difference == pytest.approx(20 / spread) and observed.ranked == pytest.approx(1)
    assert (observed.canaries, observed.members, observed.paired) == (40, 20, False)
    opposite = audit_sums.sums(-score, inside)
    assert opposite.difference == -observed.difference and opposite.ranked == pytest.approx(-1)
    moved = audit_sums.sums(np.exp(score / 9), inside)
    assert moved.ranked == observed.ranked and moved.difference < observed.difference
    pairs = audit_sums.sums_of_pairs(np.stack([score - 19.5, np.zeros(40)], 1), inside)
    gap = np.abs(score - 19.5)
    assert pairs.difference == pytest.approx(2 * gap.mean() / gap.std(ddof=1)) and pairs.paired
    assert pairs.ranked == pytest.approx(1)


def test_scores_without_spread_refute_everything_or_nothing():
    inside = np.arange(40) % 2 == 0
    exact = audit_sums.sums(np.where(inside, 1.0, 0.0), inside)
    assert audit.one_run(exact, delta=1e-5, method="sum") > 1e5
    assert audit.one_run(exact, delta=1e-5, method="rank_sum") == audit.ceiling(
        canaries=40, delta=1e-5, method="rank_sum"
    )
    constant = audit_sums.sums(np.zeros(40), inside)
    assert constant.difference == 0 and audit_sums.mu(constant, alpha=0.05, method="sum") == 0
    assert audit_sums.mu(constant, alpha=0.05, method="rank_sum") == 0


@pytest.mark.parametrize("canaries", [30, 1000])
@pytest.mark.parametrize("difference", [0.9, 2.5])
@pytest.mark.parametrize("paired", [False, True])
def test_sum_inverts_the_noncentral_t_distribution(canaries, difference, paired):
    """The t statistic of P signed gaps N(mu/2, 1) is that of n coins with as many on each side."""
    observed = audit_sums.Sums(canaries, canaries // 2, difference, 0.0, paired=paired)
    bound = audit_sums.mu(observed, alpha=0.05, method="sum")
    scale = np.sqrt(canaries) / 2
    tail = stats.nct.sf(difference * scale, canaries - (1 if paired else 2), bound * scale)
    assert tail == pytest.approx(0.05, abs=0.002)


@pytest.mark.parametrize("mu", [0.0, 0.719, 1.666])
def test_the_largest_sum_of_ranks_has_the_computed_moments_and_no_upper_tail(mu):
    """The ideal attacker is simulated: it ranks by |x| and is right where x has mu's sign."""
    rng, count = np.random.default_rng(3), 100
    x = rng.normal(mu / 2, 1, size=(20_000, count))
    right = np.take_along_axis(x, np.argsort(-np.abs(x), 1), 1) > 0
    total = np.where(right, 1, -1) @ audit_sums.weights(count)
    mean, variance = audit_sums.moments(mu, count)
    assert mean >= total.mean() - 0.1 and mean == pytest.approx(total.mean(), abs=0.2)
    assert total.var() == pytest.approx(variance, rel=0.03)
    for alpha in (0.05, 0.005):
        limit = mean - stats.norm.ppf(alpha) * np.sqrt(variance)
        assert (total > limit).mean() <= alpha + 3 * np.sqrt(alpha / 20_000)


@pytest.mark.parametrize("method", audit_sums.METHODS)
@pytest.mark.parametrize("mu", [0.0, 0.719])
def test_the_level_holds_at_100_canaries(method, mu):
    assert refuted(method, mu=mu, count=100, runs=400) <= allowed(400)


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_keep_the_level_for_any_scores_and_shared_directions(kind):
    assert refuted("rank_sum", mu=1.666, kind=kind, count=100, runs=200) <= allowed(200)


@pytest.mark.slow
@pytest.mark.parametrize("method", audit_sums.METHODS)
@pytest.mark.parametrize("mu", [0.0, 0.05, 0.719, 1.666, 3.0])
@pytest.mark.parametrize("count", [100, 1000, 5000])
def test_the_level_holds_at_every_size(method, mu, count):
    assert refuted(method, mu=mu, count=count, runs=600) <= allowed(600)


@pytest.mark.slow
@pytest.mark.parametrize("mu", [0.02, 0.1, 0.719, 1.666, 3.0])
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_keep_the_level_at_1000_canaries(kind, mu):
    assert refuted("rank_sum", mu=mu, kind=kind, runs=600) <= allowed(600)


def test_the_normal_sum_is_no_bound_for_saturated_scores_and_ranks_are():
    """That is why there are ranks: tanh(mu x / 2) has a standardized difference of 1.77 here."""
    assert refuted("sum", mu=1.666, kind="saturated", runs=60) > 0.2
    assert refuted("rank_sum", mu=1.666, kind="saturated", runs=60) <= allowed(60)


def test_a_leak_that_all_canaries_share_at_random_is_not_covered():
    """A mechanism that reveals every coin to 78% with probability 1/5, and else nothing, is
    0.719-Gaussian DP; methods for 'any mechanism' refute it as rarely as they promise.
    """
    sums, counts = [], []
    for s in range(100):
        rng = np.random.default_rng([5, s])
        inside = rng.random(1000) < 0.5
        told = np.where(rng.random(1000) < (0.78 if s % 5 == 0 else 0.5), inside, ~inside)
        score = told + 0.01 * rng.normal(size=1000)
        observed = audit_sums.sums(score, inside)
        sums.append(audit_sums.p_value(observed, mu=0.7192, method="rank_sum"))
        if s % 5 == 0:
            guesses = audit.guess(score, inside, high=50, low=50)
            counts.append(audit.gdp_mu(guesses, alpha=0.05))
    assert np.mean(np.array(sums) <= 0.05) > 0.15 and max(counts) < 0.7192


@pytest.mark.parametrize("method, least", [("sum", (2.2, 6.9)), ("rank_sum", (2.2, 6.9))])
def test_power_at_1000_canaries(method, least):
    for (epsilon, mu), power in zip(MU.items(), least, strict=True):
        bounds = [
            audit.one_run(
                audit_sums.sums(*canaries(np.random.default_rng([9, s]), count=1000, mu=mu)),
                delta=1e-5,
                method=method,
            )
            for s in range(15)
        ]
        assert power < np.median(bounds) < epsilon
        ideal = audit.ideal(mu, canaries=1000, delta=1e-5, method=method)
        assert np.median(bounds) == pytest.approx(ideal, rel=0.08)


@pytest.mark.parametrize("method", audit_sums.METHODS)
@pytest.mark.parametrize("mu", [0.0, MU[8]])
def test_pairs_have_level_and_power(method, mu):
    p_values = []
    for s in range(60):
        rng = np.random.default_rng([3, s])
        first = rng.random(500) < 0.5
        # The gap of a pair is N(+-mu/2, 1), as the privacy loss divided by mu.
        score = rng.normal(size=(500, 2)) / np.sqrt(2) + mu / 2 * np.stack([first, ~first], 1)
        observed = audit_sums.sums_of_pairs(score, first)
        p_values.append(audit_sums.p_value(observed, mu=mu, method=method))
        if mu and s < 5:
            assert audit_sums.mu(observed, alpha=0.05, method=method) > 0.8 * mu
    assert np.mean(np.array(p_values) <= 0.05) <= allowed(60)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: audit_sums.sums(np.zeros(9), np.zeros(9, bool)), "9 canaries are too few"),
        (lambda: audit_sums.sums(np.zeros(40), np.ones(40, bool)), "40 of 40 coins came up IN"),
        (lambda: audit_sums.sums([np.nan] * 40, np.zeros(40)), "score has 40 of 40 values"),
        (
            lambda: audit.one_run(audit.Guesses(50, 5, 5), delta=0.1, method="sum"),
            "reads sums of scores, and counts is Guesses: make it with audit_sums.sums",
        ),
        (
            lambda: audit.one_run(audit_sums.perfect(50), delta=0.1),
            "reads counts of guesses, and counts is Sums: make it with audit.guess",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
