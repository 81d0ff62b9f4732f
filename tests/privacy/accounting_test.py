"""Tests accounting against published values and the table of the central-limit formula.

It also covers pairs without a bound, and budgets, which must never be exceeded.
"""

import dataclasses
import math

import pytest
from dp_accounting import NeighboringRelation, pld
from dp_accounting.pld import privacy_loss_distribution

from mia_jax.learners import _private
from mia_jax.privacy import accounting, guarantee, losses
from mia_jax.privacy.mechanism import OLDER, Mechanism, ledger
from mia_jax.report.sections import guarantee as report

DELTA = 1 / 2500


def mechanism(noise=1.0, steps=25, n=2500, batch=100, **changes):
    fields = dict(
        sampling="poisson",
        rate=batch / n,
        clip_norm=2.0,
        noise_multiplier=noise,
        expected_batch=batch,
        steps=steps,
    )
    return Mechanism(**fields | changes)


@pytest.mark.parametrize(
    ("noise", "epochs", "by_rdp", "by_pld"),
    [(1.1, 60, 2.597, 2.382), (1.3, 15, 0.954, 0.864), (0.7, 45, 6.319, 5.639)],
)
def test_the_mnist_tutorials_of_tensorflow_privacy(noise, epochs, by_rdp, by_pld):
    """n = 60,000, batch 256, delta 1e-5, with today's conversion from RDP.

    Their READMEs print the older 3.01, 1.19 and 7.10.
    """
    declared = mechanism(noise, steps=epochs * 60000 // 256, n=60000, batch=256)
    assert accounting.epsilon(declared, delta=1e-5, accountant="rdp") == pytest.approx(
        by_rdp, abs=6e-4
    )
    assert accounting.epsilon(declared, delta=1e-5, accountant="pld") == pytest.approx(
        by_pld, abs=6e-4
    )


CENTRAL_LIMIT = {  # n = 2500, batch 100, delta = 1/n, after 1, 2, 10, 50 and 100 epochs
    0.5: (5.466, 8.497, 25.495, 87.447, 155.389),
    1.0: (0.7064, 1.0562, 2.7259, 7.3674, 11.5869),
    1.1: (0.5971, 0.8922, 2.2919, 6.1254, 9.5630),
    2.0: (0.2487, 0.3721, 0.9454, 2.4323, 3.6933),
}


@pytest.mark.parametrize("noise", CENTRAL_LIMIT)
def test_the_published_table_of_the_central_limit_accountant(noise):
    actual = [
        accounting.epsilon(mechanism(noise, 25 * e), delta=DELTA, accountant="gdp")
        for e in (1, 2, 10, 50, 100)
    ]
    assert actual == pytest.approx(CENTRAL_LIMIT[noise], rel=2e-4)


def test_the_central_limit_lies_below_the_bounds_it_stands_for():
    """One epoch at multiplier 1: 0.706, tight bound 1.056, RDP 1.48.

    At multiplier 0.5 epsilon is 6.5 after one epoch, so no epoch fits a budget of 1.
    """
    actual = {
        a: accounting.epsilon(mechanism(), delta=DELTA, accountant=a)
        for a in accounting.ACCOUNTANTS
    }
    assert actual == pytest.approx(dict(gdp=0.706, pld=1.056, rdp=1.477), abs=2e-3)
    assert accounting.epsilon(mechanism(0.5), delta=DELTA) == pytest.approx(6.5, abs=0.05)
    assert accounting.epochs_for(1.0, mechanism(0.5), delta=DELTA, most=100) == 0


def test_a_budget_by_the_central_limit_fits_the_printed_epochs():
    fit = [
        accounting.epochs_for(budget, mechanism(), delta=DELTA, accountant="gdp", most=1000)
        for budget in (1.0, 3.0, 8.0)
    ]
    assert fit == [1, 11, 56]


def test_two_phases_cost_what_one_run_does():
    declared = mechanism(steps=60)
    whole, first, second = (accounting.event(declared.after(n)) for n in (60, 25, 35))
    phases = pld.PLDAccountant().compose(first).compose(second)
    assert phases.get_epsilon(DELTA) == pytest.approx(
        pld.PLDAccountant().compose(whole).get_epsilon(DELTA), rel=1e-3
    )
    assert accounting.epsilon(declared, delta=DELTA) == pytest.approx(
        phases.get_epsilon(DELTA), rel=1e-3
    )


@pytest.mark.parametrize(
    "adjacency",
    [
        pytest.param("add_remove", marks=pytest.mark.slow),
        pytest.param("zero_out", marks=pytest.mark.slow),
        "replace_one",
    ],
)
def test_a_kept_release_costs_what_dp_accounting_says(adjacency):
    for steps in (1, 50):
        declared = mechanism(steps=steps, adjacency=adjacency)
        accountant = pld.PLDAccountant(
            neighboring_relation=getattr(NeighboringRelation, accounting.RELATIONS[adjacency])
        )
        assert accounting.epsilon(declared, delta=DELTA) == pytest.approx(
            accountant.compose(accounting.event(declared)).get_epsilon(DELTA), rel=1e-9
        )


def test_mu_of_the_table():
    actual = [accounting.gdp_mu(mechanism(noise)) for noise in (0.5, 1.0, 1.1, 2.0)]
    assert actual == pytest.approx([1.4642, 0.2622, 0.2267, 0.1066], abs=5e-5)


def test_gaussian_epsilon_survives_what_broke_the_original():
    """The original had a bracket that ended at 500 and an exp(epsilon) that overflowed.

    This covers 500 epochs at multiplier 0.5, and a mu so large that no float holds epsilon.
    """
    assert 500 < accounting.epsilon(mechanism(0.5, 25 * 500), delta=DELTA, accountant="gdp") < 1000
    assert accounting.gaussian_epsilon(1e9, 1e-5) == math.inf
    assert accounting.gaussian_epsilon(0.0, 1e-5) == accounting.gaussian_epsilon(1e-9, 1e-5) == 0.0
    for mu, delta in ((0.3, 1e-5), (1.0, 1e-3), (20.0, 1e-6)):
        assert accounting.gaussian_delta(
            accounting.gaussian_epsilon(mu, delta), mu
        ) == pytest.approx(delta, rel=1e-6)


def test_edges_are_zero_and_infinite():
    for accountant in accounting.ACCOUNTANTS:
        assert accounting.epsilon(mechanism(steps=0), delta=DELTA, accountant=accountant) == 0
        assert accounting.epsilon(mechanism(0.0), delta=DELTA, accountant=accountant) == math.inf
    assert math.isinf(
        accounting.epsilon(mechanism(0.0, sampling="shuffle", adjacency="zero_out"), delta=DELTA)
    )


@pytest.mark.parametrize("accountant", accounting.ACCOUNTANTS)
def test_epsilon_is_monotone(accountant):
    def declared(delta=DELTA, **changes):
        return accounting.epsilon(mechanism(**changes), delta=delta, accountant=accountant)

    assert (
        declared() < declared(steps=50)
        and declared() < declared(noise=0.8)
        and declared() < declared(batch=200)
        and declared() < declared(delta=DELTA / 10)
    )
    if accountant != "gdp":
        return
    assert accounting.epsilon(mechanism(), delta=DELTA, accountant="pld") <= accounting.epsilon(
        mechanism(), delta=DELTA, accountant="rdp"
    )


def test_replace_one_means_the_same_to_both_accountants():
    """Multiplier x sensitivity is the noise.

    At rate 1, adding 1 x C and replacing 1 x 2C cost the same. dp_accounting's PLD counts in C.
    """
    for sampling in ("poisson", "balls_in_bins"):
        common = dict(sampling=sampling, batch=2500, noise=4.0, steps=3)
        values = [
            accounting.epsilon(
                mechanism(adjacency=adjacency, **common), delta=DELTA, accountant=accountant
            )
            for adjacency, accountant in (
                ("add_remove", "pld"),
                ("zero_out", "pld"),
                ("replace_one", "pld"),
            )
        ]
        assert values == pytest.approx([values[0]] * 3, rel=1e-3)
    kinds = [mechanism(adjacency=a, sampling="shuffle") for a in ("zero_out", "replace_one")]
    assert [m.noise_std_of_sum() for m in kinds] == [2.0, 4.0] and kinds[1].noise_std() == 4.0 / 100
    rdp = [accounting.epsilon(m, delta=DELTA, accountant="rdp") for m in kinds]
    pld = [accounting.epsilon(m, delta=DELTA, accountant="pld") for m in kinds]
    assert rdp[0] == rdp[1] and pld[0] == pytest.approx(pld[1], rel=1e-3) and pld[0] < rdp[0]


def test_shuffled_batches_have_no_amplification():
    """30 epochs at multiplier 1: Poisson below 3, one participation per epoch 37.6.

    n = 60,000, batch 256, delta 1e-5.
    """
    common = dict(n=60000, batch=256, steps=30 * 235)
    poisson = accounting.epsilon(mechanism(**common), delta=1e-5, accountant="pld")
    declared = mechanism(sampling="shuffle", adjacency="zero_out", **common)
    shuffled = accounting.epsilon(declared, delta=1e-5, accountant="pld")
    assert (
        declared.epochs == 30
        and poisson < 3
        and shuffled == pytest.approx(accounting.gaussian_epsilon(math.sqrt(30), 1e-5), rel=1e-3)
    )


@pytest.mark.parametrize(
    ("changes", "accountant", "words"),
    [
        (dict(sampling="shuffle"), "pld", "add_remove"),
        (dict(sampling="without_replacement"), "rdp", "replace_one"),
        (
            dict(sampling="without_replacement", adjacency="replace_one"),
            "pld",
            "does not support SampledWithoutReplacement",
        ),
        (dict(adjacency="replace_one"), "rdp", "does not support PoissonSampled"),
        (dict(cap=140), "rdp", "does not support TruncatedSubsampledGaussian"),
        (dict(microbatch=2, adjacency="replace_one"), "pld", "microbatch"),
    ],
)
def test_a_pair_without_a_bound_is_refused(changes, accountant, words):
    with pytest.raises(ValueError, match=words):
        accounting.epsilon(mechanism(**changes), delta=DELTA, accountant=accountant)


@pytest.mark.slow
def test_a_cap_is_accounted():
    free, capped, tight = (
        accounting.epsilon(mechanism(cap=cap), delta=DELTA) for cap in (None, 140, 100)
    )
    assert free < capped < 1.01 * free < tight


@pytest.mark.parametrize(
    "accountant",
    [pytest.param(a, marks=pytest.mark.slow) if a == "pld" else a for a in accounting.ACCOUNTANTS],
)
def test_budgets_are_met_and_not_exceeded(accountant):
    declared = mechanism(steps=50)
    multiplier = accounting.noise_for(2.0, declared, delta=DELTA, accountant=accountant)
    actual = accounting.epsilon(
        dataclasses.replace(declared, noise_multiplier=multiplier),
        delta=DELTA,
        accountant=accountant,
    )
    assert 1.98 < actual <= 2.0
    steps = accounting.steps_for(2.0, declared, delta=DELTA, accountant=accountant)
    after = [
        accounting.epsilon(declared.after(steps + more), delta=DELTA, accountant=accountant)
        for more in (0, 1)
    ]
    assert after[0] <= 2.0 < after[1]
    epochs = accounting.epochs_for(2.0, declared, delta=DELTA, accountant=accountant, most=10**4)
    assert epochs == steps // 25


def test_a_ledger_that_differs_is_found():
    declared = mechanism(steps=50)
    assert mechanism(0.5).noise_std() == 0.01
    assert (
        declared.differences(ledger(declared)) == []
        and Mechanism.from_json(declared.to_json()) == declared
    )
    assert declared.differences(ledger(declared) | dict(steps=49)) == ["steps: declared 50, ran 49"]
    assert "noise_std: declared 0.02, ran 0.0002" in declared.differences(
        ledger(declared) | dict(noise_std=0.0002)
    )
    assert len(declared.differences({})) == len(set(ledger(declared)) - set(OLDER))


def test_the_private_count_takes_its_share_of_the_noise():
    declared = mechanism(count_std=5.0)
    assert declared.gradient_multiplier**-2 + (2 * 5.0) ** -2 == pytest.approx(1.0)
    assert (
        declared.noise_std_of_sum() == pytest.approx(2 * declared.gradient_multiplier)
        and declared.gradient_multiplier > 1
    )


@pytest.mark.parametrize(
    "changes",
    [
        dict(rate=1.5),
        dict(rate=0.0),
        dict(clip_norm=0.0),
        dict(clip_norm=-1.0),
        dict(noise=-1.0),
        dict(clip_norm=math.inf),
        dict(sampling="bernoulli"),
        dict(adjacency="add"),
        dict(count_std=0.5),
        dict(microbatch=0),
        dict(expected_batch=0),
    ],
)
def test_a_mechanism_that_cannot_be_is_refused(changes):
    with pytest.raises(
        ValueError, match=next(k if k != "noise" else "noise_multiplier" for k in changes)
    ):
        mechanism(**changes)


def test_bad_deltas_and_budgets_are_refused():
    for delta in (0.0, 1.0, 2.0):
        with pytest.raises(ValueError, match="delta"):
            accounting.epsilon(mechanism(), delta=delta)
    with pytest.raises(ValueError, match="epsilon"):
        accounting.noise_for(0.0, mechanism(), delta=DELTA)
    with pytest.raises(ValueError, match="accountant"):
        accounting.epsilon(mechanism(), delta=DELTA, accountant="prv")


# Small deltas, little noise: bounded time and memory
# --------------------------------------------------------------------------------


@pytest.mark.parametrize("delta", [1e-5, 1e-15, 1e-18, 1e-30, 1e-250])
@pytest.mark.parametrize(
    ("noise", "steps"), [(1.0, 1), (20.0, 400), (0.02, 100), (5.0, 10**5), (1e3, 10)]
)
def test_composed_losses_bound_a_gaussian_from_above_and_tightly_at_any_delta(noise, steps, delta):
    """At rate 1 the answer has a closed form, and the composed losses must not be below it."""
    exact = accounting.gaussian_epsilon(math.sqrt(steps) / noise, delta)
    actual = losses.epsilon(
        rate=1.0, multiplier=noise, relation="ADD_OR_REMOVE_ONE", steps=steps, delta=delta
    )
    assert exact * (1 - 1e-11) <= actual <= exact * (1 + 1e-4)


def test_full_batches_have_the_closed_form_at_any_delta():
    for sampling, adjacency in (
        ("poisson", "add_remove"),
        ("poisson", "replace_one"),
        ("shuffle", "zero_out"),
        ("balls_in_bins", "add_remove"),
    ):
        declared = mechanism(
            20.0, 400, batch=2500, sampling=sampling, adjacency=adjacency, epoch_steps=1
        )
        for delta in (1e-5, 1e-15, 1e-30):
            assert accounting.epsilon(declared, delta=delta) == pytest.approx(
                accounting.gaussian_epsilon(1.0, delta), rel=1e-12
            )


@pytest.mark.parametrize(
    ("rate", "noise", "steps"),
    [(0.04, 1.0, 1), (0.04, 0.5, 200), (0.1, 2.0, 100), (0.001, 1.0, 10**5), (0.5, 5.0, 1000)],
)
@pytest.mark.parametrize(
    "relation", ["ADD_OR_REMOVE_ONE", pytest.param("REPLACE_ONE", marks=pytest.mark.slow)]
)
def test_composed_losses_are_those_of_dp_accounting(rate, noise, steps, relation):
    release = privacy_loss_distribution.from_gaussian_mechanism(
        noise, sampling_prob=rate, neighboring_relation=NeighboringRelation[relation]
    )
    actual = losses.epsilon(rate=rate, multiplier=noise, relation=relation, steps=steps, delta=1e-5)
    assert actual == pytest.approx(
        release.self_compose(steps).get_epsilon_for_delta(1e-5), rel=1e-5
    )


def test_the_tilt_changes_no_epsilon(monkeypatch):
    """The tilt is a choice that must not change the bound."""
    declared = losses.releases(
        rate=0.001,
        multiplier=1.0,
        relation="ADD_OR_REMOVE_ONE",
        floor=losses.FLOOR,
        units=0,
        cap=0,
        interval=losses.FINE,
    )[0]
    best, choose = losses.composed(declared, steps=10**4, delta=1e-10), losses._smallest
    for shift in (-0.3, -0.1, 0.03):
        monkeypatch.setattr(
            losses,
            "_smallest",
            lambda function, orders, shift=shift: choose(function, orders) + shift,
        )
        assert losses.composed(declared, steps=10**4, delta=1e-10) == pytest.approx(
            best, rel=3e-5
        )  # of the margin for rounding errors


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, dict(adjacency="zero_out"), dict(adjacency="replace_one")])
@pytest.mark.parametrize("noise", [0.01, 0.05, 0.3, 2.6])
def test_every_epsilon_is_finite_and_falls_with_delta(noise, changes):
    declared = mechanism(noise, 30, **changes)
    actual = [
        accounting.epsilon(declared, delta=delta) for delta in (1e-30, 1e-18, 1e-15, 1e-12, 1e-5)
    ]
    assert (
        all(map(math.isfinite, actual))
        and sorted(actual, reverse=True) == actual
        and actual[0] > actual[-1]
    )
    if "adjacency" not in changes:
        assert all(
            value <= accounting.epsilon(declared, delta=delta, accountant="rdp")
            for value, delta in zip(actual, (1e-30, 1e-18, 1e-15, 1e-12, 1e-5))
        )


def test_less_noise_costs_no_more_time_and_memory(monkeypatch):
    """The grid adapts to the width of the losses.

    It has at most CELLS cells per release and WINDOW per composition.
    """
    cells, windows = [], []
    make, power = losses.releases, losses.fft.irfft
    monkeypatch.setattr(
        losses,
        "releases",
        lambda **how: cells.extend(len(declared.prob) for declared in make(**how)) or make(**how),
    )
    monkeypatch.setattr(losses.fft, "irfft", lambda a, size: windows.append(size) or power(a, size))
    for noise, steps in ((1.0, 100), (0.05, 10**5), (0.01, 10**5), (1e-3, 10)):
        assert math.isfinite(
            losses.epsilon(
                rate=0.04, multiplier=noise, relation="ADD_OR_REMOVE_ONE", steps=steps, delta=1e-5
            )
        )
    assert (
        max(cells) <= 1.01 * losses.CELLS
        and max(windows) <= 1.01 * losses.WINDOW
        and len(windows) == 8
    )


def test_where_floats_end_the_number_is_rdps_or_infinite_and_never_0():
    """dp_accounting's RDP turns NaN into an epsilon of 0."""
    tiny = mechanism(1e-5, 10)
    actual = accounting.bound(tiny, delta=1e-5)
    assert actual.accountant == "rdp" and 1e9 < actual.epsilon < math.inf
    assert actual.epsilon == accounting.epsilon(tiny, delta=1e-5, accountant="rdp")
    for accountant in ("pld", "rdp"):
        assert accounting.epsilon(mechanism(1e-160), delta=1e-5, accountant=accountant) == math.inf
    assert (
        accounting.epsilon(mechanism(1e-5, adjacency="replace_one"), delta=1e-5) > 1e9
    )  # RDP has none here; PLD's grid, at its coarsest, has


def test_a_claim_says_which_accountant_answered():
    declared = guarantee.Guarantee(mechanism=mechanism(1e-5, 10), delta=1e-5, accountant="pld")
    actual = declared.claim([ledger(declared.mechanism)])
    assert (
        actual["accountant"] == "rdp" and actual["epsilon"] > 1e9 and "rdp" not in actual["others"]
    )
    assert "no finite epsilon" in actual["notes"][-1]
    assert "by the accountant `rdp`" in report.text(guarantee=actual)
    none = guarantee.Guarantee(mechanism=mechanism(1e-160, 10), delta=1e-5, accountant="pld")
    actual = none.claim([ledger(none.mechanism)])
    assert actual["epsilon"] is None and "Raise noise_multiplier" in actual["notes"][-1]
    gdp = guarantee.Guarantee(mechanism=mechanism(0.01, 10), delta=1e-5, accountant="gdp")
    text = report.text(guarantee=gdp.claim([ledger(gdp.mechanism)]))
    assert (
        "the epsilon of `gdp` is not finite" in text
        and "`pld`" in text
        and "none is finite" not in text
    )


def test_a_budget_out_of_reach_is_refused_with_what_can_be_reached():
    with pytest.raises(ValueError, match=r"1e6 gives .*Raise epsilon or delta"):
        accounting.noise_for(1e-8, mechanism(steps=10**5), delta=1e-30, accountant="rdp")


def test_noise_that_dominates_is_said():
    common = dict(num_rows=800, batch_size=32, epochs=4)
    assert not [
        note
        for note in _private.make(**common, noise_multiplier=1.0).guarantee.notes
        if "dominates" in note
    ]
    assert not [
        note
        for note in _private.make(**common, noise_multiplier=31.0).guarantee.notes
        if "dominates" in note
    ]
    notes = _private.make(
        **common, noise_multiplier=None, epsilon=0.01, accountant="rdp"
    ).guarantee.notes
    assert any("noise dominates" in note and "expected batch 32" in note for note in notes)
    assert any(
        "dominates" in note
        for note in _private.make(**common, noise_multiplier=33.0).guarantee.notes
    )
