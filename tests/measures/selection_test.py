"""Tests the numbers of model selection: the mean over splits, dominance, the strongest attack."""

import numpy as np
import pytest

from mia_jax.measures import selection


def report(**attacks) -> dict:
    """Returns a report with a row per attack and metric, given as {attack: {metric: ends}}."""
    rows = [
        dict(attack=attack, target=None, slice="all", metric=metric, value=v, low=a, high=b)
        | dict(knows="nothing", interval="records", method="", n_targets=5)
        for attack, metrics in attacks.items()
        for metric, (v, a, b) in metrics.items()
    ]
    return dict(results=rows, about=dict(level=0.95))


def test_the_interval_of_a_mean_over_splits_by_hand():
    """Scores 1, 2, 3: s = 1; with n_test/n_train = 1/6 the variance of the mean is 1/3 + 1/6 = 1/2,
    and t of 2 degrees of freedom is 4.302653.
    """
    value, low, high = selection.mean([1.0, 2.0, 3.0], test_share=1 / 6)
    assert value == 2.0
    assert (low, high) == pytest.approx((2 - 4.302653 / np.sqrt(2), 2 + 4.302653 / np.sqrt(2)))


def test_the_interval_of_cross_validation_covers_the_mean_of_what_models_reach():
    """Nearest centroids of two Gaussians in 10 dimensions, whose accuracy is known in closed form:
    5 folds of 60 rows, 300 times. The naive interval s/sqrt(5) is not wider.
    """
    from scipy.special import ndtr

    rng, hits, truths, kept = np.random.default_rng(0), 0, [], []
    for _ in range(300):
        y = np.repeat([0, 1], 30)
        x = rng.normal(size=(60, 10)) + 0.5 * (2 * y[:, None] - 1) * (np.arange(10) < 4)
        fold, scores = rng.permutation(60) % 5, []
        for k in range(5):
            train = fold != k
            centers = np.stack([x[train & (y == c)].mean(0) for c in (0, 1)])
            w, middle = centers[1] - centers[0], centers.mean(0)
            truth = np.mean(
                [
                    ndtr(s * w @ (s * 0.5 * (np.arange(10) < 4) - middle) / np.linalg.norm(w))
                    for s in (-1, 1)
                ]
            )
            truths.append(truth)
            scores.append((((x[~train] - middle) @ w > 0) == y[~train]).mean())
        kept.append(selection.mean(scores, test_share=0.25))
    hits = sum(estimate.low <= np.mean(truths) <= estimate.high for estimate in kept)
    assert hits / 300 >= 0.93


def test_a_setting_is_dominated_by_one_that_is_at_least_as_good_in_both_and_better_in_one():
    by = selection.dominating([0.9, 0.9, 0.8, 0.7, 0.95], [0.6, 0.6, 0.6, 0.5, 0.9])
    assert by == {0: None, 1: None, 2: 0, 3: None, 4: None}  # equal settings dominate neither


def test_the_strongest_attack_has_the_highest_lower_end_not_the_highest_value():
    both = report(wide=dict(auc=(0.7, 0.4, 0.9)), narrow=dict(auc=(0.6, 0.58, 0.62)))
    leak = selection.strongest(both, "auc")
    assert (leak.attack, leak.value) == ("narrow", 0.6)


def test_attacks_that_know_more_than_a_real_attacker_are_no_leakage():
    both = report(real=dict(auc=(0.6, 0.58, 0.62)), other=dict(auc=(0.9, 0.88, 0.92)))
    both["results"][1]["knows"] = "half_of_target_members"
    assert selection.strongest(both, "auc").attack == "real"
    assert selection.strongest(both, "tpr@0.01") is None
