"""Tests what a mechanism proves about attacks: closed forms, twins, riskcal, and refusals."""

import dataclasses
import importlib.util
import math

import numpy as np
import pytest
from scipy import stats

from mia_jax.learners import _private
from mia_jax.pipeline import experiment
from mia_jax.privacy import accounting, audit, losses, risk
from mia_jax.privacy.mechanism import Mechanism
from mia_jax.report import plots
from mia_jax.report.sections import guarantee as section

FPRS = np.array([0.001, 0.01, 0.1, 0.5])


def mechanism(noise=1.0, rate=0.1, steps=100, **fields):
    fields = dict(sampling="poisson", clip_norm=1.0, expected_batch=1000 * rate) | fields
    return Mechanism(rate=rate, noise_multiplier=noise, steps=steps, **fields)


def test_without_sampling_it_is_the_gaussian_trade_off_curve():
    for fields in (dict(rate=1.0, steps=9), dict(sampling="balls_in_bins", steps=90)):
        proven = risk.proven(mechanism(noise=2.0, **fields))
        expected = stats.norm.cdf(stats.norm.ppf(FPRS) + 1.5)  # mu = sqrt(9) / 2
        np.testing.assert_allclose(proven.tpr(FPRS), expected, rtol=1e-4)
        assert (proven.tpr(FPRS) >= expected - 1e-12).all()
        assert proven.advantage == pytest.approx(2 * stats.norm.cdf(0.75) - 1)
        assert proven.tpr(0.0) < 1e-4 and proven.tpr(1.0) == 1
    for mu in (30.0, 900.0):  # e^epsilon overflows at the ends of the grid.
        ends = risk.gaussian(mu).tpr(np.array([0.0, 0.01]))
        np.testing.assert_allclose(ends, [0, 1], atol=1e-12)


def test_delta_is_that_of_dp_accounting_and_epsilons_agree():
    from dp_accounting.pld import privacy_loss_distribution as pld

    theirs = pld.from_gaussian_mechanism(1.0, sampling_prob=0.1).self_compose(100)
    total = losses.totals(rate=0.1, multiplier=1.0, relation="ADD_OR_REMOVE_ONE", steps=100)
    epsilon = np.array([-1.0, 0.0, 0.5, 2.0, 5.0])
    for ours, other in zip(total, (theirs._pmf_remove, theirs._pmf_add), strict=True):
        expected = other.get_delta_for_epsilon(epsilon)
        np.testing.assert_allclose(ours.delta(epsilon), expected, rtol=2e-4, atol=1e-11)
    spent = accounting.epsilon(mechanism(), delta=1e-5)
    assert max(part.delta(spent) for part in total) == pytest.approx(1e-5, rel=1e-3)


def test_losses_of_releases_add_up_and_an_infinite_one_stays_infinite():
    release = losses.Release(low=-1, prob=np.array([0.4, 0.19, 0.4]), infinite=0.01, interval=1.0)
    total = losses._total(release, steps=3)
    at = {round(float(loss)): prob for loss, prob in zip(total.loss, total.prob, strict=True)}
    assert total.infinite == pytest.approx(1 - 0.99**3) and total.infinite > 1 - 0.99**3
    assert at[3] == pytest.approx(0.4**3) and at[-3] == pytest.approx(0.4**3)
    assert at[0] == pytest.approx(0.19**3 + 6 * 0.4 * 0.4 * 0.19)
    assert float(total.delta(np.array(2.5))) == pytest.approx(
        total.infinite + 0.4**3 * (1 - np.exp(-0.5))
    )


def test_an_optimal_attack_on_one_release_has_this_rate():
    # P = .7 N(0,1) + .3 N(1,1) against Q = N(0,1), by thresholds on x
    proven = risk.proven(mechanism(rate=0.3, steps=1))
    at = stats.norm.isf(FPRS)
    expected = 0.7 * FPRS + 0.3 * stats.norm.sf(at - 1)
    np.testing.assert_allclose(proven.tpr(FPRS), expected, rtol=2e-3)
    assert (proven.tpr(FPRS) >= expected - 1e-9).all()
    assert proven.advantage == pytest.approx(0.3 * (2 * stats.norm.cdf(0.5) - 1), rel=1e-3)
    posterior = 0.1 * expected[1] / (0.1 * expected[1] + 0.9 * 0.01)
    assert proven.posterior(prior=0.1, fpr=0.01) == pytest.approx(posterior, rel=2e-3)


def test_kept_pairs_prove_nearly_the_same_and_never_more():
    proven = risk.proven(mechanism())
    kept = risk.from_json(risk.to_json(proven))
    rates = np.geomspace(1e-4, 1, 50)
    assert len(kept.epsilon) <= 201 and kept.advantage == proven.advantage
    assert (kept.tpr(rates) >= proven.tpr(rates)).all()
    np.testing.assert_allclose(kept.tpr(rates), proven.tpr(rates), rtol=1e-3)


def test_nothing_is_proven_without_noise_and_nothing_is_learned_without_steps():
    assert risk.proven(mechanism(noise=0.0)).tpr(0.01) == 1
    assert risk.proven(mechanism(steps=0)).tpr(0.01) == 0.01
    with pytest.raises(ValueError, match="which has no trade-off curve"):
        risk.proven(mechanism(sampling="without_replacement", adjacency="replace_one"))


def test_the_curve_of_the_report_is_below_that_of_one_epsilon():
    claimed = mechanism()
    epsilon = accounting.epsilon(claimed, delta=1e-5)
    pairs = risk.to_json(risk.proven(claimed))
    one, envelope = plots.bound(epsilon, 1e-5), plots.bound(epsilon, 1e-5, proven=pairs)
    assert one["fpr"] == envelope["fpr"]
    assert np.less_equal(envelope["tpr"], one["tpr"]).all()
    at = np.searchsorted(one["fpr"], 0.01)
    assert envelope["tpr"][at] < 0.2 < 0.9 < one["tpr"][at]


@pytest.mark.parametrize(
    ("wanted", "batch_size"),
    [
        (dict(max_tpr=0.05, at_fpr=0.01), 1000),  # a rate of 1, in closed form
        (dict(max_advantage=0.2), 1000),
        pytest.param(dict(max_tpr=0.05, at_fpr=0.01), 100, marks=pytest.mark.slow),
        pytest.param(dict(max_advantage=0.2), 100, marks=pytest.mark.slow),
    ],
)
def test_noise_for_a_risk_is_the_least_that_is_enough(wanted, batch_size):
    common = dict(num_rows=1000, batch_size=batch_size, epochs=2)
    made = _private.make(**common, noise_multiplier=None, **wanted)
    chosen = made.guarantee.mechanism

    def value(multiplier):
        proven = risk.proven(dataclasses.replace(chosen, noise_multiplier=multiplier))
        return proven.advantage if "max_advantage" in wanted else float(proven.tpr(0.01))

    limit = wanted.get("max_tpr", wanted.get("max_advantage"))
    assert value(chosen.noise_multiplier) <= limit < value(0.995 * chosen.noise_multiplier)
    assert any("was chosen for" in note for note in made.guarantee.notes)
    claim = made.guarantee.claim(
        [
            made.guarantee.ran(
                steps=chosen.steps, noise_multiplier=chosen.noise_multiplier, plan=made.plan
            )
        ]
    )
    assert claim["proven"]["advantage"] <= wanted.get("max_advantage", 1)
    text = section.text(guarantee=claim)
    assert "TPR - FPR is at most" in text and "not a guarantee" in text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (dict(max_tpr=0.05), "give max_tpr together with at_fpr"),
        (dict(max_tpr=0.05, at_fpr=0.01, max_advantage=0.1), "or max_advantage alone"),
        (dict(max_tpr=0.01, at_fpr=0.05), "must be above at_fpr"),
        (dict(max_advantage=1.0), "max_advantage"),
        (dict(max_advantage=0.1, epsilon=1.0), "set both to None"),
        (dict(max_advantage=0.1, noise_multiplier=1.0), "set both to None"),
        (dict(), "needs privacy.epsilon"),
    ],
)
def test_a_risk_that_contradicts_other_settings_is_refused(fields, words):
    common = dict(num_rows=1000, batch_size=100, epochs=2, noise_multiplier=None)
    with pytest.raises(ValueError, match=words):
        _private.make(**common | fields)


def test_older_workdirs_go_on():
    privacy = dict(epsilon=1.0, max_tpr=None, max_advantage=0.1, noise="gaussian", bands=1)
    learner = dict(epochs=1, privacy=privacy)
    recorded = experiment.as_recorded("learner", learner)
    assert recorded == dict(epochs=1, privacy=dict(epsilon=1.0, max_advantage=0.1))
    data = dict(name="idx", examples=None)
    assert experiment.as_recorded("data", data | dict(skip=0)) == data
    assert experiment.as_recorded("data", data | dict(skip=3))["skip"] == 3


def test_the_last_iterate_heuristic_is_that_of_one_gaussian_without_sampling():
    whole = mechanism(noise=3.0, rate=1.0, steps=9)
    expected = audit.gdp_epsilon(1.0, 1e-5)
    assert risk.last_iterate_epsilon(whole, delta=1e-5) == pytest.approx(expected, rel=1e-6)
    claimed = mechanism()
    assert risk.last_iterate_epsilon(claimed, delta=1e-5) < accounting.epsilon(claimed, delta=1e-5)
    assert risk.last_iterate_epsilon(mechanism(noise=0.0), delta=1e-5) == math.inf
    assert risk.last_iterate_epsilon(mechanism(sampling="balls_in_bins"), delta=1e-5) is None
    one = mechanism(steps=1)  # of one step it is the guarantee itself
    assert risk.last_iterate_epsilon(one, delta=1e-5) == pytest.approx(
        accounting.epsilon(one, delta=1e-5), rel=1e-3
    )


@pytest.mark.slow
def test_sampled_privacy_losses_of_a_mechanism_are_those_of_its_distribution():
    claimed = mechanism(noise=0.8, rate=0.2, steps=50)
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200_000, 50)).astype(np.float32)
    z += (rng.random(z.shape) < 0.2) / 0.8
    loss = np.log(0.8 + 0.2 * np.exp(z / 0.8 - 0.5 / 0.64)).sum(1, dtype=np.float64)
    part = losses.totals(rate=0.2, multiplier=0.8, relation="ADD_OR_REMOVE_ONE", steps=50)[0]
    for epsilon in (-1.0, 0.0, 1.0, 4.0):
        terms = np.maximum(-np.expm1(epsilon - loss), 0)
        error = terms.std() / math.sqrt(len(terms))
        assert part.delta(epsilon) == pytest.approx(terms.mean(), abs=4 * error + 1e-4)
    assert risk.proven(claimed).advantage == pytest.approx(
        np.maximum(-np.expm1(-loss), 0).mean(), abs=5e-3
    )


SETTINGS = [
    (noise, rate, steps)
    for noise, rate in ((0.7, 0.01), (1.0, 0.1), (2.0, 0.3), (4.0, 0.5), (1.0, 0.002))
    for steps in (1, 10, 100, 400)
]


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("riskcal"), reason="riskcal is not installed")
@pytest.mark.parametrize(("noise", "rate", "steps"), SETTINGS)
def test_rates_and_advantages_are_those_of_riskcal(noise, rate, steps):
    from riskcal.calibration import dpsgd

    common = dict(noise_multiplier=noise, sample_rate=rate, num_steps=steps)
    proven = risk.proven(mechanism(noise=noise, rate=rate, steps=steps))
    advantage = dpsgd.get_advantage_for_dpsgd(**common)
    assert proven.advantage == pytest.approx(advantage, rel=2e-3, abs=1e-6)
    # riskcal's curve is that of both directions together, the larger of the two at a rate
    low = FPRS[:3]
    theirs = 1 - dpsgd.get_beta_for_dpsgd(alpha=low, **common)
    assert (proven.tpr(low) <= theirs * 1.02 + 1e-6).all()
    if steps > 1:
        np.testing.assert_allclose(proven.tpr(low), theirs, rtol=0.05)
