"""Coins that are fair up to a shift: what is left of a bound, for every method."""

import math

import numpy as np
import pytest
from scipy import special, stats

from mia_jax.privacy import audit, audit_shift, audit_sums
from mia_jax.privacy.audit_shift import Shift


def test_without_a_shift_nothing_changes_and_a_shift_is_subtracted():
    guesses, delta = audit.Guesses(1000, 200, 180), 1e-6
    scores = np.random.default_rng(0).normal(size=(1000, 2)) + [2.0, 0.0]
    counts = {m: guesses for m in audit.COUNTING}
    counts |= {m: audit_sums.sums_of_pairs(scores, np.ones(1000, bool)) for m in audit_sums.METHODS}
    for method in audit.METHODS:
        plain, shifted, beyond = (
            audit.one_run(counts[method], delta=delta, method=method, shift=Shift(odds))
            for odds in (0.0, 0.4, 50.0)
        )
        assert plain == audit.one_run(counts[method], delta=delta, method=method)
        assert beyond == 0.0 < shifted < plain
        if method not in audit.GAUSSIAN:
            assert shifted == pytest.approx(plain - 0.4)


def test_slack_is_a_delta_of_its_own():
    guesses = audit.Guesses(1000, 200, 180)
    for method in ("one_run", "fdp", "order_dp"):
        both = audit.one_run(guesses, delta=1e-6, method=method, shift=Shift(slack=1e-5))
        assert both == audit.one_run(guesses, delta=1e-6 + 1e-5, method=method)


def test_the_gaussian_of_a_shift_hides_less_than_the_shift():
    """Its trade-off curve is below the lines of the shift, and meets them in the vertex."""
    odds = 0.7
    mu = math.sqrt(1.0 - audit_shift.left_of_mu(1.0, Shift(odds)) ** 2)
    fpr = np.linspace(1e-6, 1 - 1e-6, 999)
    lines = np.maximum(1 - np.exp(odds) * fpr, np.exp(-odds) * (1 - fpr))
    gaussian = stats.norm.cdf(stats.norm.ppf(1 - fpr) - mu)
    assert (gaussian <= lines + 1e-12).all()
    vertex = special.expit(-odds)
    assert stats.norm.cdf(stats.norm.ppf(1 - vertex) - mu) == pytest.approx(vertex)


@pytest.mark.parametrize(
    "shift, method, message",
    [
        (Shift(odds=-0.1), "one_run", "shift=-0.1 must be at least 0"),
        (Shift(slack=1.0), "one_run", r"slack=1.0 must lie in \[0, 1\)"),
        (Shift(slack=0.1), "order", "no Gaussian's trade-off curve: use 'one_run' or 'fdp'"),
        (Shift(0.1, estimated=True), "fdp", "pass a known shift, or use 'one_run'"),
    ],
)
def test_a_shift_under_which_a_method_has_no_bound_is_refused(shift, method, message):
    with pytest.raises(ValueError, match=message):
        audit.one_run(audit.Guesses(100, 50, 40), delta=0.0, method=method, shift=shift)


def test_an_estimate_is_the_upper_limit_of_the_guesses():
    odds = audit_shift.estimated(guesses=400, correct=260, alpha=0.025)
    assert special.expit(odds) == pytest.approx(stats.beta.ppf(0.975, 261, 140))
    assert audit_shift.estimated(guesses=400, correct=120, alpha=0.025) == 0.0
    # of guesses with unequal priors, no more are right than if all had the mean one
    prior = np.random.default_rng(1).uniform(0.3, 0.9, 2000)
    right = special.expit(special.logit(prior) + 1.5)
    assert right.mean() <= special.expit(special.logit(prior.mean()) + 1.5)
