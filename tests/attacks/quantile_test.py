"""The quantile regression attack: regressions against scikit-learn and known distributions, the map
to levels, its edges and refusals.
"""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import QuantileRegressor

from mia_jax import registry
from mia_jax.attacks import quantile, threshold
from mia_jax.designs import bernoulli, halves
from mia_jax.fitting import quantiles
from mia_jax.fitting.quantiles import pinball
from tests import planted

KEY = jax.random.key(0)
LEVELS = np.array([0.1, 0.5, 0.9])
FAST = dict(
    linear=dict(epochs=100),
    mlp=dict(hidden=(16,), epochs=100),
    gradient_boosting=dict(rounds=10, min_samples_leaf=10),
)


def skewed(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """s = 1 + 2 x_0 - x_1 + (1.5 + x_0) * (exponential - 1) with x in [-1, 1]^2: every quantile is
    linear in x.
    """
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, size=(n, 2))
    return x, 1 + 2 * x[:, 0] - x[:, 1] + (1.5 + x[:, 0]) * (rng.exponential(size=n) - 1)


def exact(x: np.ndarray, level_T: np.ndarray) -> np.ndarray:
    return (1 + 2 * x[:, 0] - x[:, 1])[:, None] + (1.5 + x[:, :1]) * (-np.log(1 - level_T) - 1)


def explained(mu: float, *, seed: int = 0, rows: int = 2000, maker=halves, **fields):
    """A fleet whose signal is 3 x_0 + x_1 + (1 + x_0^2) * N(mu * member, 1): x tells how hard an
    example is.
    """
    fleet = planted.fleet(
        maker.make(num_examples=rows, seed=seed, models=4, **fields),
        "rescaled_logit",
        mu=mu,
        seed=seed,
        spread=0.0,
    )
    x = np.random.default_rng(seed).uniform(-1, 1, size=(rows, 2)).astype(np.float32)
    signal = 3 * x[:, 0] + x[:, 1] + (1 + x[:, 0] ** 2) * fleet.signal["rescaled_logit"]
    return dataclasses.replace(fleet, x=x, signal=dict(rescaled_logit=signal.astype(np.float32)))


# ---- heads ----


def test_the_linear_regression_minimizes_the_pinball_loss_as_scikit_learn_does():
    x, s = skewed(400, 0)
    actual = quantiles.linear(penalty=0.0)(x, s, x, LEVELS, KEY)
    oracle = np.stack(
        [QuantileRegressor(quantile=t, alpha=0).fit(x, s).predict(x) for t in LEVELS], 1
    )
    best = pinball(s, oracle, LEVELS)
    assert (pinball(s, actual, LEVELS) >= best * (1 - 1e-6)).all() and (
        pinball(s, actual, LEVELS) <= best * 1.005
    ).all()
    assert np.abs(actual - oracle).max() < 0.15 * s.std()


@pytest.mark.slow
def test_regressions_learn_known_quantiles():
    x, s = skewed(4000, 0)
    ask, fresh = skewed(4000, 1)
    for head, error, miss in (
        (quantiles.linear(), 0.12, 0.02),
        (quantiles.mlp(), 0.25, 0.03),
        (quantiles.gradient_boosting(), 0.4, 0.06),
    ):
        actual = head(x, s, ask, LEVELS, KEY)
        assert (
            np.abs(actual - exact(ask, LEVELS)).mean() < error
            and (np.diff(actual, axis=1) >= 0).all()
        )
        np.testing.assert_allclose((fresh[:, None] <= actual).mean(0), LEVELS, atol=miss)


def test_the_network_bends_where_the_line_cannot():
    x, s = skewed(1000, 0)
    s = s + 5 * np.abs(x[:, 0])
    line, net = (
        pinball(s, head(x, s, x, LEVELS, KEY), LEVELS).sum()
        for head in (quantiles.linear(), quantiles.mlp())
    )
    assert net < 0.8 * line


def test_boosting_is_scikit_learns_with_a_seed_from_the_key():
    x, s = skewed(200, 0)
    actual = quantiles.gradient_boosting(rounds=7)(x, s, x, LEVELS, KEY)
    models = [
        HistGradientBoostingRegressor(
            loss="quantile", quantile=t, max_iter=7, early_stopping=False
        ).fit(x, s)
        for t in LEVELS
    ]
    np.testing.assert_array_equal(actual, np.sort(np.stack([m.predict(x) for m in models], 1), 1))


# ---- from quantiles to a score ----


def test_the_level_of_a_normal_signal_is_its_normal_score():
    s = np.linspace(-6, 9, 301)
    quantile_NT = np.tile(3 + 2 * ndtri(LEVELS), (301, 1))
    np.testing.assert_allclose(
        quantile.level_score(s, quantile_NT, LEVELS), (s - 3) / 2, atol=1e-12
    )


def test_the_level_grows_with_the_signal_and_is_finite_where_quantiles_meet():
    s = np.linspace(-5, 5, 1001)
    for row in ([-1.0, 0.0, 4.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 1.0, 1.0]):
        actual = quantile.level_score(s, np.tile(row, (1001, 1)), LEVELS, (0.1, 0.1))
        assert (
            np.isfinite(actual).all()
            and (np.diff(actual) >= 0).all()
            and (np.diff(actual[(s < row[0]) | (s > row[-1])]) > 0).all()
        )
    at = quantile.level_score(
        np.array([-1.0, 0.0, 4.0, 2.0]), np.tile([-1.0, 0.0, 4.0], (4, 1)), LEVELS
    )
    np.testing.assert_allclose(ndtr(at[:3]), LEVELS)
    assert at[1] < at[3] < at[2]


def test_population_rows_with_one_value_leave_the_distance():
    fleet = explained(0.0, rows=200)
    value = np.where(fleet.design.population_N, np.float32(2), fleet.signal["rescaled_logit"])
    attack = quantile.make()
    score = planted.scores(
        dataclasses.replace(fleet, signal=dict(rescaled_logit=value)), attack, KEY
    )[0]
    e = fleet.design.evaluated_MN[0]
    np.testing.assert_allclose(score[e], value[0, 0, e].astype(float) - 2, rtol=1e-12)


# ---- the attack ----


@pytest.mark.parametrize("head", quantile.HEADS)
def test_difficulty_that_x_explains_is_taken_away(head):
    """The best AUC uses 3 x_0 + x_1 and the scale: Phi(mu / sqrt 2).

    A threshold on the signal itself stays far below.
    """
    mu = 2.0
    fleet = explained(mu, population=0.3, targets=1)
    attack = quantile.make(head=head)
    actual = planted.mean_auc(fleet, planted.scores(fleet, attack, KEY))
    plain = planted.mean_auc(
        fleet, planted.scores(fleet, threshold.make(signal="rescaled_logit"), KEY)
    )
    assert plain < 0.83 and actual > 0.88 and actual < ndtr(mu / np.sqrt(2)) + 0.02
    assert attack.needs == ("rescaled_logit", "population", "x") and attack.knows == "shadows"


def test_levels_are_calibrated_on_non_members():
    fleet = explained(2.0, rows=4000, population=0.5, targets=1)
    outside = fleet.design.evaluated_MN[0] & ~fleet.design.member_MN[0]
    score = planted.scores(fleet, quantile.make(), KEY)[0]
    for level in (0.05, 0.25, 0.5, 0.9, 0.99):
        assert abs((score[outside] <= ndtri(level)).mean() - level) < 0.045


def test_shadows_out_mean_explains_what_x_does_not():
    fields = dict(features=("shadow_out",))
    fleet = planted.fleet(
        halves.make(num_examples=600, seed=0, models=10, targets=2),
        "rescaled_logit",
        mu=2.0,
        seed=0,
        spread=4.0,
    )
    actual = {
        name: planted.mean_auc(fleet, planted.scores(fleet, quantile.make(**f), KEY))
        for name, f in dict(x={}, shadows=fields).items()
    }
    assert actual["x"] < 0.7 and actual["shadows"] > 0.85
    assert quantile.make(**fields).needs == ("rescaled_logit", "population", "shadow_out")
    both = planted.scores(fleet, quantile.make(features=("x", "shadow_out")), KEY)
    assert planted.mean_auc(fleet, both) > 0.82


def test_rows_without_an_out_shadow_take_the_mean():
    fleet = planted.fleet(
        bernoulli.make(num_examples=200, seed=0, models=3), "rescaled_logit", mu=2.0, seed=0
    )
    assert (fleet.design.member_MN[1:].sum(0) == 2).any()
    score = planted.scores(fleet, quantile.make(features=("shadow_out",)), KEY)
    assert np.isfinite(score[fleet.design.evaluated_MN]).all()


@pytest.mark.parametrize("head", quantile.HEADS)
def test_scores_are_deterministic_and_independent_of_the_pools_order(head):
    attack = quantile.make(head=head, features=("x", "shadow_out"), options=FAST[head])
    fleet = explained(1.0, rows=300, population=0.3, targets=1)
    order = np.random.default_rng(1).permutation(300)
    first = planted.scores(fleet, attack, KEY)
    np.testing.assert_array_equal(planted.scores(fleet, attack, KEY), first)
    np.testing.assert_allclose(
        planted.scores(planted.permuted(fleet, order), attack, KEY),
        first[:, order],
        rtol=1e-9,
        atol=1e-12,
    )
    assert np.isfinite(first[fleet.design.evaluated_MN[:1]]).all()


@pytest.mark.parametrize("head", ["mlp", "gradient_boosting"])
def test_signals_independent_of_membership_are_uninformative(head):
    attack = quantile.make(head=head, features=("x", "shadow_out"), options=FAST[head])
    aucs = []
    for seed in range(30):
        fleet = explained(0.0, seed=seed, rows=200, population=0.25, targets=1)
        aucs.append(planted.mean_auc(fleet, planted.scores(fleet, attack, KEY)))
    assert abs(np.mean(aucs) - 0.5) < 4 * np.std(aucs, ddof=1) / np.sqrt(30)


def test_labels_and_columns_are_features():
    fleet = explained(1.0, rows=400, targets=1)
    shift = np.repeat([0.0, 8.0], 200).astype(np.float32)
    fleet = dataclasses.replace(
        fleet,
        y=(shift > 0).astype(np.int32),
        num_classes=2,
        columns=dict(shift=shift),
        signal={k: v + shift for k, v in fleet.signal.items()},
    )
    x_alone, label, column = (
        quantile.make(**f) for f in ({}, dict(features=("x", "label")), dict(columns=("shift",)))
    )
    auc = [
        planted.mean_auc(fleet, planted.scores(fleet, attack, KEY))
        for attack in (x_alone, label, column)
    ]
    assert min(auc[1:]) > auc[0] + 0.05
    assert label.needs == ("rescaled_logit", "population", "x", "y") and column.needs == (
        "rescaled_logit",
        "population",
        "x",
        "columns",
    )


# ---- refusals ----


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(head="lin"), "head='lin' is not one of .*linear"),
        (dict(signal="logits"), "signal 'logits' has sign=0"),
        (dict(features=("loss",)), "features='loss' is not one of .*'shadow_out'"),
        (dict(features=()), "leave nothing to learn from"),
        (dict(levels=(0.5,)), "must be an odd number, at least 3"),
        (dict(levels=(0.1, 0.9)), "must be an odd number"),
        (dict(levels=(0.1, 0.5, 1.0)), r"in \(0, 1\)"),
        (dict(levels=(0.5, 0.1, 0.9)), "ascending"),
        (dict(options=dict(alpha=1)), "options of head 'linear' has no field 'alpha'"),
        (dict(options=dict(penalty=-1)), "penalty=-1 must be at least 0"),
        (dict(head="gradient_boosting", options=dict(rounds=0)), "rounds=0"),
    ],
)
def test_messages_name_the_bad_argument(fields, message):
    with pytest.raises(ValueError, match=message):
        registry.make("attacks", "quantile", fields)


def test_messages_name_the_bad_input():
    attack, fleet = quantile.make(), explained(0.0, rows=100, targets=1)
    empty = explained(0.0, rows=100, targets=1, population=0.0)
    assert "set design.population" in empty.refuse(attack, "quantile")
    few = dataclasses.replace(fleet.design, population_N=np.arange(100) < 4)
    with pytest.raises(ValueError, match="at least 5 population rows; there are 4"):
        attack.score(dataclasses.replace(fleet, design=few).evidence_against(0, attack.needs), KEY)
    spoiled = fleet.signal["rescaled_logit"].copy()
    spoiled[0, 0, np.flatnonzero(fleet.design.population_N)[0]] = np.nan
    with pytest.raises(
        ValueError, match="signal 'rescaled_logit' on evaluated and population rows has 1 of 100"
    ):
        attack.score(
            dataclasses.replace(fleet, signal=dict(rescaled_logit=spoiled)).evidence_against(
                0, attack.needs
            ),
            KEY,
        )
    x = fleet.x.copy()
    x[3] = np.inf
    with pytest.raises(ValueError, match="feature 'x' has"):
        attack.score(dataclasses.replace(fleet, x=x).evidence_against(0, attack.needs), KEY)
