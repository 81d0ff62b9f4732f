"""RMIA against the N x Z comparison written out, numbers by hand, few shadows, the tuned constant,
and its memory.
"""

import dataclasses
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import registry
from mia_jax.attacks import _inner, _probability, rmia
from mia_jax.designs import bernoulli, blocks, disjoint, halves
from mia_jax.metrics import roc
from mia_jax.threat_model import FleetSignals
from tests import planted, toys

KEY = jax.random.key(0)
ONE = dict(signal="confidence", temperature=1.0)


def confident(design, *, seed: int, query_views: int = 1, mu: float = 2.0) -> FleetSignals:
    """Probabilities sigmoid(N(d_n + mu * member, 1))."""
    fleet = planted.fleet(design, "rescaled_logit", mu=mu, seed=seed, query_views=query_views)
    return dataclasses.replace(
        fleet, signal=dict(confidence=1 / (1 + np.exp(-fleet.signal["rescaled_logit"])))
    )


# ---- against loops ----


def naive(
    fleet: FleetSignals,
    t: int,
    n: int,
    *,
    mode="online",
    gamma=2.0,
    a=0.33,
    population_p="offline",
    views="mean",
) -> float:
    d = fleet.design
    use = [m for m in range(len(d.member_MN)) if d.unit_M[m] != d.unit_M[t]]
    p_MAN = fleet.signal["confidence"].astype(np.float64)

    def ratio(n, v):
        out = np.mean([p_MAN[m, v, n] for m in use if not d.member_MN[m, n]])
        if d.population_N[n]:
            return p_MAN[t, v, n] / (
                ((1 + a) * out + (1 - a)) / 2 if population_p == "offline" else out
            )
        inside = (
            np.mean([p_MAN[m, v, n] for m in use if d.member_MN[m, n]])
            if mode == "online"
            else a * out + (1 - a)
        )
        return p_MAN[t, v, n] / ((inside + out) / 2)

    z, views_A = np.flatnonzero(d.population_N), range(p_MAN.shape[1])
    if views == "mean":
        return np.mean([[ratio(n, v) / ratio(k, v) >= gamma for k in z] for v in views_A])
    return np.mean(
        [np.mean([ratio(n, v) / ratio(k, 0) >= gamma for v in views_A]) > 0.5 for k in z]
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        dict(population_p="out"),
        dict(gamma=1.0),
        dict(mode="offline"),
        dict(mode="offline", a=0.7),
    ],
)
@pytest.mark.parametrize(
    "views, query_views", [("mean", 1), ("mean", 3), ("majority", 3), ("majority", 2)]
)
def test_rmia_equals_a_naive_loop(fields, views, query_views):
    fleet = confident(
        halves.make(num_examples=60, seed=0, models=8, population=0.3),
        seed=0,
        query_views=query_views,
    )
    attack = rmia.make(views=views, **ONE, **fields)
    all_TN = attack.score_all(fleet, KEY)
    for t in (0, 5):
        score_N = attack.score(fleet.evidence_against(t, attack.needs), KEY)
        np.testing.assert_array_equal(all_TN[t], score_N)
        e = np.flatnonzero(fleet.design.evaluated_MN[t])
        expected_N = [naive(fleet, t, n, views=views, **fields) for n in e]
        np.testing.assert_allclose(score_N[e], expected_N, atol=1e-12)
        assert (
            np.isnan(score_N[~fleet.design.evaluated_MN[t]]).all()
            and len(np.unique(expected_N)) > 1
        )


@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.7, 2.0])
def test_counts_are_those_of_the_full_comparison(gamma):
    rng = np.random.default_rng(0)
    for ratio_N, ratio_Z in (
        (rng.random(400), rng.random(300)),
        (rng.integers(1, 9, 400) / 4, rng.integers(1, 9, 300) / 4),
    ):
        share_N = rmia.share_dominated(
            np.log(ratio_N), np.log(ratio_Z), np.log(gamma), rounding=1e-12
        )
        np.testing.assert_array_equal(share_N, (ratio_N[:, None] >= gamma * ratio_Z).mean(1))


def test_numbers_by_hand():
    """Models 0, 1 | 2, 3 | 4, 5 are pairs; rows 0, 1 are evaluated, 2, 3, 4 population; the shadows
    of 0 are 2..5, on row 0: .9 .8 IN, .2 .1 OUT.
    """
    member_MN = np.zeros((6, 5), bool)
    member_MN[[0, 2, 4], 0] = member_MN[[0, 3, 5], 1] = True
    p = np.array(
        [[0.9, 0.3, 0.5, 0.2, 0.8], [0.1, 0.9, 0.5, 0.5, 0.5], *[[0.0] * 5] * 4], np.float32
    )
    p[2:, 0], p[2:, 1] = [0.9, 0.2, 0.8, 0.1], [0.3, 0.5, 0.3, 0.7]
    p[2:, 2:] = np.array([[0.5, 0.4, 0.2], [0.5, 0.4, 0.2], [0.5, 0.4, 0.2], [0.5, 0.4, 0.2]])
    design = halves.make(num_examples=5, seed=0, models=6, population=0.6)
    population_N = np.array([False, False, True, True, True])
    design = dataclasses.replace(
        design,
        member_MN=member_MN,
        evaluated_MN=np.tile(~population_N, (6, 1)),
        population_N=population_N,
    )
    fleet = FleetSignals(design=design, signal=dict(confidence=p[:, None]), num_classes=2)
    # online p(0) = ((.9+.8)/2 + (.2+.1)/2) / 2 = .5, ratio 1.8; p(1) = ((.5+.7)/2 + .3) / 2 = .45,
    # ratio 2/3; ratios of z with p(z) = out: 1, .5, 4
    attack = rmia.make(population_p="out", gamma=1.5, **ONE)
    np.testing.assert_allclose(
        attack.score(fleet.evidence_against(0, attack.needs), KEY)[:2], [2 / 3, 0]
    )
    # gamma 2: row 0 reaches 2 * .5 alone. gamma 1: row 1 reaches .5. Offline, a = .5: p(0) = (1.5 *
    # .15 + .5) / 2 = .3625, ratio 2.483
    np.testing.assert_allclose(
        rmia.make(population_p="out", **ONE).score(fleet.evidence_against(0, attack.needs), KEY)[
            :2
        ],
        [1 / 3, 0],
    )
    np.testing.assert_allclose(
        rmia.make(population_p="out", gamma=1.0, **ONE).score(
            fleet.evidence_against(0, attack.needs), KEY
        )[:2],
        [2 / 3, 1 / 3],
    )
    offline = rmia.make(mode="offline", a=0.5, population_p="out", **ONE)
    np.testing.assert_allclose(
        offline.score(fleet.evidence_against(0, offline.needs), KEY)[:2], [2 / 3, 0]
    )
    # p(z) by the offline map, a = .5: .625, .55, .4; ratios .8, .3636, 2: row 0 (2.483) reaches
    # twice .8 and .3636, row 1 (.3 / .475) none
    offline = rmia.make(mode="offline", a=0.5, **ONE)
    np.testing.assert_allclose(
        offline.score(fleet.evidence_against(0, offline.needs), KEY)[:2], [2 / 3, 0]
    )


# ---- probabilities ----


def test_log_softmax_is_exact_at_saturation():
    y = np.array([0, 0, 0, 1])
    z = np.array([[60.0, 0, 0], [0, 0, 0], [-2000, 0, 0], [1e6, -1e6, 0]])
    expected = [-2 * np.exp(-30.0), -np.log(3), -1000 - np.log(2 + np.exp(-1000)), -1e6]
    np.testing.assert_allclose(_probability.log_softmax_at(z, y, 2.0), expected, rtol=1e-12)


def measured(fleet: FleetSignals, attack) -> FleetSignals:
    """The fleet with the one signal that the attack reads, measured on its logits as models are."""
    asked = attack.needs[0]
    measure = jax.jit(
        jax.vmap(jax.vmap(registry.make("signals", asked).measure, (0, None)), (0, None))
    )
    value_MAN = measure(jnp.asarray(fleet.signal["logits"]), toys.examples(fleet.y))
    return dataclasses.replace(fleet, signal={asked: np.asarray(value_MAN)})


def noisy_logits(num_examples: int, seed: int, *, classes: int, scale: float) -> FleetSignals:
    design = halves.make(num_examples=num_examples, seed=seed, models=6, population=0.4, targets=2)
    fleet = planted.fleet(design, "logits", mu=3.0, seed=seed, query_views=2, classes=classes)
    z = fleet.signal["logits"]
    noise = np.random.default_rng(seed).normal(size=z.shape)
    return dataclasses.replace(fleet, signal=dict(logits=(scale * (z + noise)).astype(np.float32)))


@pytest.mark.parametrize(
    "fields, classes, scale",
    [
        ({}, 10, 1.0),
        (dict(gamma=1.0, temperature=1 / 3), 3, 30.0),  # saturated: many ratios are equal
        (dict(mode="offline", views="majority", gamma=1.0), 10, 1e-3),
    ],
)
def test_two_numbers_per_example_have_the_scores_of_logits_to_the_bit(fields, classes, scale):
    """Of 42,000 scores of 12,000 comparisons each, one float32 number changes about 20."""
    fleet = noisy_logits(1500, 0, classes=classes, scale=scale)
    attack = rmia.make(**fields)
    assert attack.needs[0].startswith("log_probability:temperature=") and "y" not in attack.needs
    expected = rmia.make(signal="logits", **fields).score_all(fleet, KEY)
    np.testing.assert_array_equal(attack.score_all(measured(fleet, attack), KEY), expected)
    assert attack.claimed == dict(signal="logits") and not rmia.make(signal="logits").claimed
    assert len(np.unique(expected)) > 50


def test_one_number_per_example_changes_few_comparisons():
    fleet = noisy_logits(2000, 0, classes=10, scale=1.0)
    attack, shown = rmia.make(signal="loss"), fleet.design.evaluated_MN[list(fleet.design.targets)]
    assert attack.needs[0] == "tempered_loss:temperature=2" and "y" not in attack.needs
    expected = rmia.make(signal="logits").score_all(fleet, KEY)
    scored = attack.score_all(measured(fleet, attack), KEY)
    assert np.abs(scored - expected)[shown].max() <= 3 / fleet.design.population_N.sum()
    assert (scored != expected)[shown].sum() < 20


def test_a_log_probability_is_exact_to_48_bits():
    y = np.array([0, 0, 0, 1, 2])
    z = np.array([[60.0, 0, 0], [0, 0, 0], [-2000, 0, 0], [1e6, -1e6, 0], [0.1, -0.2, 0.3]])
    z = z.astype(np.float32)
    measure = registry.make("signals", "log_probability").measure
    value_N2 = np.asarray(jax.jit(measure)(z, toys.examples(y)), np.float64)
    assert value_N2.shape == (5, 2)
    expected = _probability.log_softmax_at(z, y, 2.0)
    np.testing.assert_allclose(value_N2.sum(-1), expected, rtol=2.0**-46, atol=1e-30)
    np.testing.assert_array_equal(value_N2[:, 0], expected.astype(np.float32))
    assert jnp.zeros(1).dtype == jnp.float32  # the setting is as before


def test_logits_at_temperature_one_are_the_other_signals(monkeypatch):
    monkeypatch.setattr(_probability, "SIZE", 200)  # several blocks
    design = halves.make(num_examples=80, seed=0, models=8)
    fleet = planted.fleet(design, "logits", mu=3.0, seed=0, query_views=2)
    z = fleet.signal["logits"].astype(np.float64)
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    p = np.take_along_axis(p, fleet.y[None, None, :, None], -1)[..., 0]
    other = dataclasses.replace(fleet, signal=dict(loss=-np.log(p), confidence=p))
    one_TN = rmia.make(signal="logits", temperature=1.0).score_all(fleet, KEY)
    for signal in ("loss", "confidence"):
        np.testing.assert_allclose(
            rmia.make(signal=signal, temperature=1.0).score_all(other, KEY), one_TN, atol=1e-12
        )
    two_TN = rmia.make(signal="logits", temperature=2.0).score_all(fleet, KEY)
    assert (two_TN != one_TN)[design.evaluated_MN].any()
    with pytest.raises(ValueError, match=r"signal 'loss' has shape .* needs \[..,A,N\]"):
        wrong = dataclasses.replace(fleet, signal=dict(loss=fleet.signal["logits"]))
        rmia.make(signal="loss", temperature=1.0).score_all(wrong, KEY)


# ---- who may see what ----


def test_offline_never_sees_in_shadows():
    fleet = confident(halves.make(num_examples=80, seed=0, models=8), seed=0)
    attack, d = rmia.make(mode="offline", **ONE), fleet.design
    evidence = fleet.evidence_against(0, attack.needs)
    assert "shadow_in" not in attack.needs and not evidence.shadow_member_MN.any()
    assert np.isnan(evidence.shadow["confidence"][:, 0][d.member_MN[2:] & d.evaluated_MN[0]]).all()
    changed = np.where(
        d.member_MN[:, None] & (np.arange(8) > 1)[:, None, None], 0.123, fleet.signal["confidence"]
    ).astype(np.float32)
    changed_fleet = dataclasses.replace(fleet, signal=dict(confidence=changed))
    np.testing.assert_array_equal(
        attack.score_all(changed_fleet, KEY)[0], attack.score_all(fleet, KEY)[0]
    )


def test_both_sides_weigh_the_same_whatever_their_numbers():
    def average(*sides, a):
        return np.exp(rmia.average([np.log(side_N) for side_N in sides], a))

    in_N, out_N = np.array([0.9, 0.6]), np.array([0.1, np.nan])
    np.testing.assert_allclose(average(out_N, in_N, a=0.33)[0], 0.5)
    np.testing.assert_allclose(average(out_N, in_N, a=0.33)[1], (0.6 + 0.6 * 0.1 / 0.75) / 2)
    np.testing.assert_allclose(
        average(np.array([0.1, 0.4]), np.array([0.5, np.nan]), a=0.5)[1],
        (0.4 * 0.5 / 0.25 + 0.4) / 2,
    )


def test_examples_without_in_or_out_shadows_are_scored():
    design = bernoulli.make(num_examples=400, seed=0, models=4)
    fleet = confident(design, seed=0, mu=5.0)
    count_N = design.member_MN[1:].sum(0)[design.evaluated_MN[0]]
    assert {0, 3} <= set(count_N.tolist())
    for mode in ("online", "offline"):
        score_TN = rmia.make(mode=mode, gamma=1.2, **ONE).score_all(fleet, KEY)
        assert (
            np.isfinite(score_TN[design.evaluated_MN]).all()
            and planted.mean_auc(fleet, score_TN) > 0.8
        )


@pytest.mark.parametrize(
    "maker",
    [
        lambda: disjoint.make(num_examples=200, seed=0, models=10, targets=4),
        lambda: blocks.make(num_examples=200, seed=0, size=20, sources=3, population=0.2),
    ],
)
def test_offline_runs_where_no_shadow_is_in(maker):
    fleet = planted.fleet(maker(), "logits", mu=6.0, seed=0)
    attack = rmia.make(mode="offline", signal="logits")
    assert not fleet.refuse(attack, "rmia") and "shadow_in" in fleet.refuse(rmia.make(), "rmia")
    assert planted.mean_auc(fleet, attack.score_all(fleet, KEY)) > 0.9


# ---- the tuned constant ----


def test_twins_are_never_each_others_shadows():
    fleet = confident(halves.make(num_examples=60, seed=0, models=8), seed=0)
    evidence = fleet.evidence_against(0, ("confidence", "shadow_out", "shadow_own"))
    inner = _inner.evidence_of_shadows(evidence, ("confidence", "shadow_out"), limit=99)
    assert len(inner) == 6
    for j, (v, member_N) in enumerate(inner):
        others = [m for m in range(2, 8) if fleet.design.unit_M[m] != fleet.design.unit_M[j + 2]]
        np.testing.assert_array_equal(member_N, fleet.design.member_MN[j + 2])
        expected = fleet.signal["confidence"][others][:, 0]
        shown = ~fleet.design.member_MN[others] & fleet.design.evaluated_MN[0]
        np.testing.assert_array_equal(
            v.shadow["confidence"][:, 0], np.where(shown, expected, np.nan)
        )
        assert not v.shadow_member_MN.any() and (v.visible_MN == shown).all()


@pytest.mark.parametrize("mu, power, gamma", [(2.0, 1.0, 1.0), (4.0, 0.3, 2.0)])
def test_a_is_tuned_on_every_shadow_as_target(mu, power, gamma):
    fleet = confident(halves.make(num_examples=300, seed=0, models=8), seed=0, mu=mu)
    fleet = dataclasses.replace(fleet, signal=dict(confidence=fleet.signal["confidence"] ** power))
    attack, d = rmia.make(mode="offline", a="tuned", gamma=gamma, **ONE), fleet.design
    best, value = None, -1.0
    for a in rmia.GRID:
        auc = []
        for j in range(2, 8):
            rest = [m for m in range(2, 8) if d.unit_M[m] != d.unit_M[j]]
            only = dataclasses.replace(
                d,
                shadow_MM=np.isin(np.arange(8), rest)[None] & (np.arange(8) == j)[:, None],
                targets=(j,),
            )
            attack_a = rmia.make(mode="offline", a=a, gamma=gamma, **ONE)
            score_N = attack_a.score(
                dataclasses.replace(fleet, design=only).evidence_against(j, attack_a.needs), KEY
            )
            auc.append(
                roc.auc(roc.roc(score_N[d.evaluated_MN[j]], d.member_MN[j, d.evaluated_MN[j]]))
            )
        if np.mean(auc) > value + 1e-9:
            best, value = a, np.mean(auc)
    assert (
        best == (gamma == 2.0)
        and attack.diagnose(fleet.evidence_against(0, attack.needs))["a"] == best
    )
    fixed = rmia.make(mode="offline", a=best, gamma=gamma, **ONE)
    np.testing.assert_array_equal(attack.score_all(fleet, KEY)[0], fixed.score_all(fleet, KEY)[0])
    assert "shadow_own" in attack.needs and "shadow_in" not in attack.needs


def test_tuning_needs_shadows_of_shadows():
    attack = rmia.make(mode="offline", a="tuned", **ONE)
    fleet = confident(halves.make(num_examples=60, seed=0, models=4), seed=0)
    with pytest.raises(
        ValueError,
        match="0 of 2 shadows have one on their own evaluated rows: train more models or give a "
        "number",
    ):
        attack.score(fleet.evidence_against(0, attack.needs), KEY)


# ---- what is said ----


def test_ties_at_the_top_are_diagnosed():
    fleet = confident(
        halves.make(num_examples=60, seed=0, models=8, population=0.2), seed=0, mu=8.0
    )
    attack = rmia.make(gamma=1.0, **ONE)
    evidence = fleet.evidence_against(0, attack.needs)
    diagnosis, score_N = (
        attack.diagnose(evidence),
        attack.score(evidence, KEY)[evidence.evaluated_N],
    )
    assert (
        diagnosis == dict(resolution=1 / 12, top_tie_share=(score_N == score_N.max()).mean())
        and diagnosis["top_tie_share"] > 0.1
    )
    assert (
        "gamma 1, temperature 1, a 0.33" in attack.note
        and "gamma 2, temperature 2, a 0.33" in rmia.make().note
    )


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(mode="on"), "mode='on' is not one of"),
        (dict(gamma=0.0), "gamma=0.0 must be > 0"),
        (dict(temperature=-1.0), "temperature=-1.0 must be > 0"),
        (dict(signal="confidence"), "temperature=2.0 needs signal='log_probability', 'logits' or"),
        (dict(a=1.5), r"a=1.5 must lie in \[0, 1\]"),
        (dict(a="tuned"), "belongs to mode='offline'"),
        (dict(signal="hinge"), "signal='hinge' is not one of"),
        (dict(population_p="in"), "population_p='in'"),
        (dict(views="all"), "views='all'"),
    ],
)
def test_messages_name_the_bad_argument(fields, message):
    with pytest.raises(ValueError, match=message):
        rmia.make(**fields)


def test_population_and_shadows_are_required():
    none = planted.fleet(
        halves.make(num_examples=40, seed=0, models=8, population=0.0), "logits", mu=1.0, seed=0
    )
    assert "needs population rows" in none.refuse(rmia.make(), "rmia")
    with pytest.raises(ValueError, match="0 population rows"):
        rmia.make(signal="logits").score_all(none, KEY)
    design = bernoulli.make(num_examples=40, seed=0, models=4)
    fleet = planted.fleet(
        dataclasses.replace(design, member_MN=design.member_MN & (np.arange(4) == 0)[:, None]),
        "logits",
        mu=1.0,
        seed=0,
    )
    attack = rmia.make(signal="logits")
    with pytest.raises(
        ValueError, match=r"no usable shadow is IN on any evaluated row \(0 of 3 shadows"
    ):
        attack.score(fleet.evidence_against(0, attack.needs), KEY)


def test_memory_grows_with_n_plus_z():
    """20,000 examples against 2,000 population rows fit into little memory.

    The N x Z comparison by itself would hold 40 MB of booleans, or 320 MB of quotients.
    """
    design = halves.make(num_examples=22_000, seed=0, models=4, population=2000 / 22_000, targets=1)
    fleet = confident(design, seed=0)
    attack = rmia.make(**ONE)
    evidence = fleet.evidence_against(0, attack.needs)
    tracemalloc.start()
    score_N = attack.score(evidence, KEY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.isfinite(score_N[evidence.evaluated_N]).all() and peak < 8e6, peak
