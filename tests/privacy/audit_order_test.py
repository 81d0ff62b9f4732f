"""Tests bounds from order statistics of guesses: by hand, by simulation, their level and power."""

import numpy as np
import pytest
from scipy import special, stats

from mia_jax.privacy import audit, audit_order


def attacker(rng, *, runs, canaries, mu):
    """Returns whether each guess of the ideal attacker is right, the surest first, [runs,N]."""
    x = rng.normal(mu / 2, 1, size=(runs, canaries))
    return np.take_along_axis(x, np.argsort(-np.abs(x), 1), 1) > 0


def test_p_values_by_hand():
    p = audit_order.p_value(canaries=5, guesses=5, correct=4, mu=1.2)
    assert p == pytest.approx(stats.binom.sf(3, 5, stats.norm.cdf(0.6)))
    two = audit_order.p_value(canaries=2, guesses=1, correct=1, mu=3.0)
    once = audit_order.p_value(canaries=1, guesses=1, correct=1, mu=3.0)
    assert two > once == pytest.approx(stats.norm.cdf(1.5))
    assert audit_order.p_value(canaries=9, guesses=3, correct=0, mu=1.0) == 1
    # One canary of two is guessed; with probability 1 - (1 - delta)^2 a coin is revealed.
    p = audit_order.p_value_dp(canaries=2, guesses=1, correct=1, epsilon=1.0, delta=0.1)
    assert p == pytest.approx(0.19 + 0.81 * special.expit(1.0))
    table = audit_order.tail(canaries=30, guesses=8, mu=0.7)
    assert table[0] == 1 and (np.diff(table) < 0).all()
    assert table[5] == pytest.approx(audit_order.p_value(canaries=30, guesses=8, correct=5, mu=0.7))


@pytest.mark.parametrize("canaries, guesses, mu", [(20, 3, 1.0), (200, 20, 0.719), (50, 50, 2.0)])
def test_p_values_are_those_of_the_simulated_attacker(canaries, guesses, mu):
    rng, runs = np.random.default_rng(0), 20_000
    right = attacker(rng, runs=runs, canaries=canaries, mu=mu)[:, :guesses].sum(1)
    table = audit_order.tail(canaries=canaries, guesses=guesses, mu=mu)
    actual = (right[:, None] >= np.arange(guesses + 1)).mean(0)
    assert np.abs(actual - table).max() < 4 * 0.5 / np.sqrt(runs)
    accuracy = audit_order.accuracy(mu, canaries=canaries, guesses=guesses)
    assert accuracy == pytest.approx(right.mean() / guesses, abs=0.006)


def test_revealing_with_probability_delta_is_the_worst_of_epsilon_delta():
    """The mechanism that attains (epsilon, delta)-DP is simulated: the level is attained too."""
    rng, runs, canaries, guesses = np.random.default_rng(1), 4000, 200, 40
    revealed = rng.random((runs, canaries)) < 0.02
    right = revealed | (rng.random((runs, canaries)) < special.expit(1.0))
    order = np.argsort(~revealed, axis=1, kind="stable")[:, :guesses]
    correct = np.take_along_axis(right, order, 1).sum(1)
    p = [
        audit_order.p_value_dp(
            canaries=canaries, guesses=guesses, correct=c, epsilon=1.0, delta=0.02
        )
        for c in range(guesses + 1)
    ]
    rejected = (np.array(p)[correct] <= 0.05).mean()
    assert 0.015 < rejected <= 0.05 + 3 * np.sqrt(0.05 / runs)


@pytest.mark.parametrize("mu", [0.719, 1.666])
def test_level_and_power_of_guesses_high_and_low(mu):
    epsilon, bounds = audit.gdp_epsilon(mu, 1e-5), []
    for s in range(200):
        rng = np.random.default_rng([2, s])
        inside = rng.random(1000) < 0.5
        score = rng.normal(size=1000) + mu * inside
        guesses = audit.guess(score, inside, high=270, low=270)
        p = audit_order.p_value(**guesses._asdict(), mu=mu)
        bounds.append(p <= 0.05)
        if s < 9:
            assert audit.one_run(guesses, delta=1e-5, method="order") > 0.6 * epsilon
    assert np.mean(bounds) <= stats.binom.isf(1e-3, 200, 0.05) / 200


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: audit_order.p_value(canaries=5, guesses=6, correct=1, mu=1.0),
            "guesses=6 must be 1 to 5",
        ),
        (lambda: audit_order.p_value(canaries=5, guesses=5, correct=1, mu=-1.0), "mu=-1.0"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
