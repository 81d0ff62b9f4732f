"""What the interactive figures draw: the numbers of report.json, and the curve of a guarantee."""

import math

import numpy as np
import pytest
from scipy import stats

from mia_jax.privacy import audit
from mia_jax.report import plots


@pytest.mark.parametrize("epsilon, delta", [(1.0, 1e-5), (0.0, 0.0), (3.0, 0.1), (0.1, 1e-3)])
def test_the_bound_is_that_of_the_formula(epsilon, delta):
    rates = [1e-4, 1e-3, 0.01, 0.1, 0.25, 0.5, 1.0]
    curve = plots.bound(epsilon, delta, rates)
    assert set(rates) <= set(curve["fpr"]) and curve["fpr"] == sorted(curve["fpr"])
    for fpr, tpr in zip(curve["fpr"], curve["tpr"], strict=True):
        by_hand = min(
            1, math.exp(epsilon) * fpr + delta, 1 - math.exp(-epsilon) * (1 - delta - fpr)
        )
        assert tpr == pytest.approx(by_hand, abs=1e-14)
    assert np.all(np.diff(curve["tpr"]) >= 0) and curve["tpr"][-1] == 1


def test_bounds_by_hand():
    def at(epsilon, delta, fpr):
        curve = plots.bound(epsilon, delta, [fpr])
        return curve["tpr"][curve["fpr"].index(fpr)]

    assert at(0, 0, 0.3) == pytest.approx(0.3)  # nothing but guessing
    assert at(math.log(3), 0, 0.1) == pytest.approx(0.3)  # 3 x 0.1
    assert at(math.log(3), 0, 0.25) == pytest.approx(0.75)  # the bend: 1 / (1 + 3)
    assert at(math.log(3), 0, 0.4) == pytest.approx(0.8)  # 1 - 0.6 / 3
    assert at(math.log(3), 0.05, 0.1) == pytest.approx(0.35)
    assert at(1000.0, 0, 0.01) == pytest.approx(1.0)


def test_the_bend_is_drawn():
    """Between two points the curve is straight, so its bend must be one of them."""
    curve = plots.bound(1.0, 1e-3)
    bend = (1 - 1e-3) / (1 + math.e)
    place = curve["fpr"].index(bend)
    assert curve["tpr"][place] == pytest.approx(1 - bend)
    assert min(curve["fpr"]) == pytest.approx(1e-3 / 3)


def test_randomized_response_reaches_the_bend_and_gaussian_noise_stays_below_its_bound():
    """A bit that is kept with probability e^epsilon / (1 + e^epsilon) is the worst mechanism of
    pure epsilon; the attacks on a Gaussian mechanism are below the curve at its (epsilon, delta).
    """
    curve = plots.bound(1.5, 0.0)
    kept = math.exp(1.5) / (1 + math.exp(1.5))
    assert dict(zip(*curve.values(), strict=True))[1 - kept] == pytest.approx(kept)
    epsilon = audit.gdp_epsilon(1.0, 1e-5)
    curve = plots.bound(epsilon, 1e-5)
    reached = stats.norm.cdf(stats.norm.ppf(curve["fpr"]) + 1.0)
    assert np.all(reached <= np.array(curve["tpr"]) + 1e-12)


def test_a_rate_without_a_point_is_a_dash():
    curve = plots.bound(math.log(3), 0.0, [0.1])
    assert plots.bound_text(curve, 0.1) == "at most 30.0%"
    assert plots.bound_text(curve, 0.123) == "–"


def over_epochs():
    number = lambda v: dict(value=v, low=v - 0.1, high=v + 0.1)  # noqa: E731
    points = [dict(epoch=e, auc=number(0.5 + e / 100)) for e in (1, 2)]
    rows = [
        dict(attack=name, metric="auc", slice="all", target=None, value=0.6, knows=knows)
        for name, knows in (("lira", "shadows"), ("loss", "nothing"), ("gap", "nothing"))
    ]
    return dict(
        results=rows,
        verdict=dict(ranked=["lira", "loss", "gap"], apart=[]),
        epochs=dict(
            accuracy=[
                dict(epoch=e, train_accuracy=e / 2, validation_accuracy=None) for e in (1, 2)
            ],
            metrics=["auc"],
            attacks={name: points for name in ("gap", "lira", "loss")},
        ),
    )


def test_epochs_show_the_best_attack_of_each_kind_of_knowledge_first():
    place = dict(lira=0, loss=1, gap=2)
    drawn = plots.epochs(over_epochs(), place)
    assert drawn["shown"] == [0, 1] and drawn["epoch"] == [1, 2] and drawn["train"] == [0.5, 1]
    assert drawn["attacks"]["2"]["auc"]["value"] == [0.51, 0.52]
    assert drawn["metrics"] == [dict(key="auc", name="AUC", unit="", guess=0.5)]
    assert plots.epochs({}, place) is None and plots.overfitting({}, place) is None
