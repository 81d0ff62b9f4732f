"""The section `overfitting` of report.json: gaps of the models, numbers of the attacks, and the
interval of their correlation.
"""

import math

import numpy as np
import pytest

from mia_jax.measures import overfitting, verdict
from mia_jax.metrics import bootstrap, summary
from mia_jax.metrics import rows as result_rows


@pytest.fixture(scope="module")
def report():
    """16 targets with complementary members; targets with an even number leak more and overfit."""
    rng = np.random.default_rng(0)
    half = rng.random((8, 240)) < 0.5
    member = np.stack([half, ~half], 1).reshape(16, 240)
    evaluated, unit = np.ones(member.shape, bool), np.arange(16) // 2
    strength = np.where(np.arange(16) % 2, 0.2, 1.0)[:, None]
    attacks = {
        name: dict(score_TN=rng.normal(size=member.shape) + gain * strength * member, knows=knows)
        for name, gain, knows in (
            ("loss", 1.0, "nothing"),
            ("gap", 0.1, "nothing"),
            ("offset", 2.0, "shadows"),
        )
    }
    draws = bootstrap.make(240, unit, draws=40)
    results = summary.rows(attacks, member, evaluated, unit_T=unit, draws=draws)
    models = [
        dict(
            model=t,
            train_accuracy=0.9 + 0.1 * strength[t, 0] + rng.normal() / 100,
            validation_accuracy=0.9,
        )
        for t in range(16)
    ]
    decided = verdict.decide(result_rows.main_rows(results))
    measured = overfitting.measure(models, results, decided, unit_T=unit, targets=range(16))
    return dict(results=results, models=models, overfitting=measured)


def test_each_target_has_its_accuracies_and_the_numbers_of_the_attacks(report):
    measured = report["overfitting"]
    assert measured["quality"] == "accuracy" and measured["units"] == 8
    assert len(measured["attacks"]) == 2 and measured["metrics"] == ["tpr@0.01", "auc"]
    models = {row["model"]: row for row in report["models"]}
    for point in measured["targets"]:
        row = models[point["model"]]
        assert (point["train"], point["validation"]) == (
            row["train_accuracy"],
            row["validation_accuracy"],
        )
        assert point["gap"] == pytest.approx(row["train_accuracy"] - row["validation_accuracy"])
        for name, of_metric in point["attacks"].items():
            for metric, number in of_metric.items():
                found = result_rows.find(report["results"], name, metric, point["model"])
                assert number["value"] == found["value"]


def test_targets_that_overfit_leak_more_and_the_correlation_says_so(report):
    measured = report["overfitting"]
    (row,) = (r for r in measured["correlations"] if (r["attack"], r["metric"]) == ("loss", "auc"))
    assert row["value"] > 0.8 and 0 < row["low"] < row["value"] < row["high"] < 1
    gap = [point["gap"] for point in measured["targets"]]
    auc = [point["attacks"][row["attack"]]["auc"]["value"] for point in measured["targets"]]
    assert row["value"] == pytest.approx(np.corrcoef(gap, auc)[0, 1])


def test_few_groups_of_targets_have_no_interval():
    """8 targets in 4 pairs are 4 groups; 8 targets of their own are 8."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 8))
    few = overfitting.correlation(a, b, np.arange(8) // 2)
    assert few["low"] is None and few["high"] is None
    enough = overfitting.correlation(a, b, np.arange(8))
    assert enough["low"] < enough["value"] < enough["high"]


def test_correlations_by_hand():
    assert overfitting.correlation([1, 2, 3], [3, 2, 1], [0, 1, 2])["value"] == -1
    assert overfitting.correlation([1, 2, 1, 2], [1, 1, 2, 2], range(4))["value"] == 0
    assert overfitting.correlation([1, 1, 1], [1, 2, 3], range(3)) is None
    assert overfitting.correlation([0.1] * 9, np.arange(9), range(9)) is None
    assert overfitting.correlation([1, 2], [1, 2], [0, 1]) is None
    perfect = overfitting.correlation(np.arange(10), np.arange(10), range(10))
    assert perfect == dict(value=1.0, low=None, high=None)


def test_without_classes_the_quality_is_the_loss_and_without_both_there_is_no_section():
    loss = [dict(model=t, train_loss=1.0, validation_loss=1.0 + t) for t in range(3)]
    results = [
        dict(attack="a", metric="auc", target=t, slice="all", value=0.5 + t / 10, low=None,
             high=None, knows="nothing", n_targets=3)
        for t in (None, 0, 1, 2)
        if t is not None
    ]  # fmt: skip
    decided = dict(ranked=["a"], apart=[])
    common = dict(unit_T=np.arange(3), targets=range(3))
    measured = overfitting.measure(loss, results, decided, **common)
    assert measured["quality"] == "loss"
    assert [point["gap"] for point in measured["targets"]] == [0, 1, 2]
    assert measured["correlations"][0]["value"] == pytest.approx(1)
    lacking = [*loss[:2], dict(model=2, train_loss=None, validation_loss=1.0)]
    assert overfitting.measure(lacking, results, decided, **common) is None


def coverage(repeats: int, units: int, per_unit: int, rho: float) -> float:
    rng, covered = np.random.default_rng(units), 0
    for _ in range(repeats):
        a, e = (rng.normal(size=units * per_unit) for _ in range(2))
        b = rho * a + math.sqrt(1 - rho**2) * e
        unit = np.repeat(np.arange(units), per_unit)
        found = overfitting.correlation(a, b, unit)
        covered += found["low"] <= rho <= found["high"]
    return covered / repeats


def test_the_interval_of_a_correlation_covers():
    assert coverage(120, 8, 1, 0.5) >= 0.88


@pytest.mark.slow
@pytest.mark.parametrize("units, per_unit", [(8, 1), (8, 2), (16, 1), (32, 2)])
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_the_interval_of_a_correlation_covers_as_often_as_it_says(units, per_unit, rho):
    assert 0.92 <= coverage(1000, units, per_unit, rho) <= 0.985
