"""Tests audited lower bounds: exact values by hand, by enumeration and by another implementation.

It measures their level on null scores and their power on Gaussian canaries.
"""

import itertools

import numpy as np
import pytest
from jax_privacy import auditing
from scipy import special, stats

from mia_jax.privacy import audit
from mia_jax.privacy.audit import Guesses

MU = {
    2: 0.501552,
    4: 0.924931,
    8: 1.666031,
}  # mu-Gaussian DP is (epsilon, 1e-5)-DP for these epsilons


def by_enumeration(canaries, guesses, correct, epsilon, delta):
    """Returns the p-value from all 2^m outcomes of the canaries' randomized responses.

    A response is right with probability e^epsilon / (1 + e^epsilon).
    """
    right = np.exp(epsilon) / (1 + np.exp(epsilon))
    probability = np.zeros(guesses + 1)
    for outcome in itertools.product((0, 1), repeat=canaries):  # the last ones are abstained from
        k = sum(outcome)
        probability[sum(outcome[:guesses])] += right**k * (1 - right) ** (canaries - k)
    tail = [probability[v:].sum() for v in range(guesses + 1)]
    steepest = max(
        ((tail[correct - i] - tail[correct]) / i for i in range(1, correct + 1)), default=0.0
    )
    return min(1.0, tail[correct] + 2 * canaries * delta * steepest)


@pytest.mark.parametrize("guesses", [1, 4, 6])
@pytest.mark.parametrize("epsilon, delta", [(0.0, 0.0), (0.7, 0.0), (1.5, 0.01), (3.0, 0.001)])
def test_p_value_is_the_enumeration_at_six_canaries(guesses, epsilon, delta):
    for correct in range(guesses + 1):
        actual = audit.p_value(
            canaries=6, guesses=guesses, correct=correct, epsilon=epsilon, delta=delta
        )
        assert actual == pytest.approx(
            by_enumeration(6, guesses, correct, epsilon, delta), abs=1e-12
        )


def test_p_value_rises_with_epsilon_and_delta_and_falls_with_success():
    values = [
        audit.p_value(canaries=400, guesses=60, correct=50, epsilon=e, delta=d)
        for d in (0, 1e-5, 1e-3)
        for e in np.linspace(0, 6, 40)
    ]
    table = np.reshape(values, (3, 40))
    assert (np.diff(table, axis=0) >= 0).all() and (np.diff(table, axis=1) >= -1e-15).all()
    ways = [
        audit.p_value(canaries=400, guesses=60, correct=v, epsilon=1.0, delta=1e-5)
        for v in range(61)
    ]
    assert (np.diff(ways) <= 1e-15).all() and ways[0] == 1


@pytest.mark.parametrize(
    "counts", [(1000, 100, 80), (1000, 100, 95), (200, 200, 150), (50, 10, 10), (300, 40, 18)]
)
@pytest.mark.parametrize("delta", [1e-5, 1e-3])
def test_bounds_equal_an_independent_implementation(counts, delta):
    guesses = Guesses(*counts)
    assert audit.one_run(guesses, delta=delta) == pytest.approx(
        auditing._epsilon_one_run(0, *counts, 0.05, delta), abs=1e-5
    )
    assert audit.one_run(guesses, delta=delta, method="gdp") == pytest.approx(
        auditing._epsilon_one_run_fdp(0, *counts, 0.05, delta), abs=1e-4
    )


def test_ceilings():
    assert audit.ceiling(canaries=100) == pytest.approx(3.49, abs=0.005)
    assert audit.ceiling(canaries=1000) == pytest.approx(5.81, abs=0.005)
    assert audit.ceiling(canaries=1000, guesses=100, delta=1e-5) == pytest.approx(3.46, abs=0.01)
    q = special.expit(audit.ceiling(canaries=100))
    assert q**100 == pytest.approx(
        0.05, rel=1e-4
    )  # by hand: all 100 right with probability q^100 = alpha


def test_delta_counts_all_canaries_and_not_only_the_guesses():
    few, many = (audit.one_run(Guesses(m, 50, 45), delta=1e-4) for m in (50, 2000))
    assert many < few - 0.1


def test_gaussian_dp_by_hand():
    mu, delta = 1.0, 0.1269  # epsilon = 1: Phi(-1/2) - e Phi(-3/2)
    assert stats.norm.cdf(-0.5) - np.e * stats.norm.cdf(-1.5) == pytest.approx(delta, abs=1e-4)
    assert audit.gdp_epsilon(mu, delta) == pytest.approx(1.0, abs=1e-3)
    assert audit.gdp_epsilon(0.0, 1e-5) == audit.gdp_epsilon(1e-6, 1e-5) == 0.0
    for epsilon, mu in MU.items():
        assert audit.gdp_epsilon(mu, 1e-5) == pytest.approx(epsilon, abs=1e-4)


@pytest.mark.parametrize("curve", [audit.gaussian(0.8), audit.approximate(1.2, 0.05)])
def test_blow_up_inverse_undoes_the_trade_off_curve(curve):
    r = np.linspace(0, 1, 101)
    t = np.array([curve(rate) for rate in r])
    assert t[0] == 0 and t[-1] <= 1 and (np.diff(t) >= 0).all() and (t <= r).all()
    # the most probable event of null probability t has probability r, and of its complement 1 - t
    # from 1 - r
    back = np.array([1 - curve(1 - rate) for rate in t])
    np.testing.assert_allclose(back[5:-5], r[5:-5], atol=0.06)


def canaries(rng, count=1000, mu=0.0):
    """Returns the scores of Gaussian canaries, N(mu, 1) for members: exactly mu-Gaussian DP."""
    inside_N = rng.random(count) < 0.5
    return rng.normal(size=count) + mu * inside_N, inside_N


def test_guesses_by_hand():
    score, inside = [3.0, 0.5, -1.0, 2.0, 0.0], np.array([True, True, False, False, True])
    assert audit.guess(score, inside, high=2, low=1) == Guesses(
        5, 3, 2
    )  # 3.0 right, 2.0 wrong, -1.0 right
    assert audit.guess(score, inside, high=0, low=2) == Guesses(5, 2, 1)
    assert audit.guess(np.zeros(5), inside, high=2, low=0) == Guesses(
        5, 2, 2
    )  # ties: the earlier rows
    pairs = [[1.0, 0.0], [0.0, 5.0], [2.0, 2.0], [0.0, 3.0]]
    assert audit.guess_pairs(pairs, [True, False, True, True], guesses=2) == Guesses(4, 2, 1)
    assert audit.guess_pairs(pairs, [True, False, True, True], guesses=4) == Guesses(4, 4, 3)


@pytest.mark.parametrize("method", audit.COUNTING)
def test_one_run_power_on_gaussian_canaries(method):
    least = {2: 0.6, 4: 1.4, 8: 2.2}
    for epsilon, mu in MU.items():
        bounds = [
            audit.one_run(
                audit.guess(*canaries(np.random.default_rng(s), mu=mu), high=50, low=50),
                delta=1e-5,
                method=method,
            )
            for s in range(12)
        ]
        assert np.mean(bounds) >= least[epsilon]
        assert np.mean(np.array(bounds) > epsilon) <= 0.1


@pytest.mark.parametrize(
    "method",
    [pytest.param(m, marks=[pytest.mark.slow] * (m == "order_dp")) for m in audit.COUNTING],
)
def test_an_honest_mechanism_is_flagged_in_at_most_5_percent(method):
    """Tests 2,000 null scores against a claim of epsilon = 0, and 200 sets of Gaussian canaries.

    The latter are tested against their true epsilon.
    """
    nulls = [
        audit.guess(*canaries(np.random.default_rng([0, s])), high=50, low=50) for s in range(2000)
    ]
    bound = {guesses: audit.one_run(guesses, delta=1e-5, method=method) for guesses in set(nulls)}
    assert np.mean([bound[guesses] > 0 for guesses in nulls]) <= 0.05
    true = [
        audit.guess(*canaries(np.random.default_rng([0, s]), mu=MU[2]), high=50, low=50)
        for s in range(200)
    ]
    assert (
        np.mean([audit.one_run(guesses, delta=1e-5, method=method) > 2 for guesses in true])
        <= stats.binom.isf(1e-3, 200, 0.05) / 200  # 'order' attains its level.
    )


def test_guesses_chosen_afterwards_without_correction_are_no_bound():
    grid = [(k, k) for k in (5, 10, 20, 40, 80, 160, 320, 500)]
    alone, shared = [], []
    for s in range(200):
        evidence = canaries(np.random.default_rng([7, s]))
        tries = [(0, audit.guess(*evidence, high=high, low=low)) for high, low in grid]
        refuted = [
            audit.p_value(**guesses._asdict(), epsilon=0.0, delta=1e-5) for _, guesses in tries
        ]
        alone.append(min(refuted) <= 0.05)
        shared.append(min(refuted) <= 0.05 / 8)
    assert np.mean(alone) > 0.08 and np.mean(shared) <= 0.05


def test_pairs_have_level_and_power():
    bounds = []
    for mu in (0.0, MU[8]):
        values = []
        for s in range(100):
            rng = np.random.default_rng([3, s])
            first = rng.random(500) < 0.5
            score = rng.normal(size=(500, 2)) + mu * np.stack([first, ~first], 1)
            values.append(audit.one_run(audit.guess_pairs(score, first, guesses=100), delta=1e-5))
        bounds.append(np.array(values))
    assert (bounds[0] > 0).mean() <= 0.05 and bounds[1].mean() > 2.2


def test_best_shares_alpha_over_models_and_prints_its_ceiling():
    tries = [(3, Guesses(100, 20, 12)), (5, Guesses(100, 20, 20)), (8, Guesses(100, 20, 15))]
    bound = audit.best(tries, delta=1e-5, alpha=0.05)
    assert (bound.model, bound.tests, bound.level) == (5, 3, 0.95) and bound.counts == Guesses(
        100, 20, 20
    )
    assert (
        bound.epsilon
        == audit.one_run(tries[1][1], delta=1e-5, alpha=0.05 / 3)
        == bound.ceiling
        < audit.one_run(tries[1][1], delta=1e-5)
    )
    assert audit.best(tries, delta=1e-5, tests=30).epsilon < bound.epsilon
    with pytest.raises(ValueError, match="3 tries with tests=2"):
        audit.best(tries, delta=1e-5, tests=2)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: audit.guess([1.0, np.nan], np.array([True, False]), high=1, low=0),
            "score has 1 of 2 values",
        ),
        (
            lambda: audit.guess(np.zeros(4), np.zeros(4, bool), high=3, low=2),
            "high=3 and low=2 are 5 guesses; .* 1 to 4",
        ),
        (lambda: audit.guess(np.zeros(4), np.zeros(3, bool), high=1, low=1), "axis N has length 3"),
        (
            lambda: audit.guess_pairs(np.zeros((3, 2)), np.zeros(3, bool), guesses=4),
            "guesses=4 must be 1 to 3",
        ),
        (
            lambda: audit.p_value(canaries=5, guesses=6, correct=1, epsilon=1.0),
            "correct=1, guesses=6, canaries=5",
        ),
        (lambda: audit.p_value(canaries=5, guesses=5, correct=1, epsilon=-1.0), "epsilon=-1.0"),
        (lambda: audit.one_run(Guesses(5, 5, 5), delta=1.0), "delta=1.0"),
        (
            lambda: audit.one_run(Guesses(5, 5, 5), delta=0.1, method="pooled"),
            "method='pooled' is not one of",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
