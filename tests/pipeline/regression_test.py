"""Regression through the whole run: squared losses, what is refused before training, and K-fold
cross-validation in the report.
"""

import numpy as np
import pytest

from mia_jax import configuration
from mia_jax.data import linear, xor
from mia_jax.measures import cross_validation
from mia_jax.pipeline import run
from mia_jax.report.sections import target

HALVES = dict(name="halves", models=8, population=0.1)
ATTACKS = dict(
    threshold_loss=dict(name="threshold", signal="loss"),
    lira=dict(signal="loss", variance="shrunk"),
)


def config(design=HALVES, attacks=ATTACKS, objective="squared", data=None, model=None):
    return configuration.complete(
        data=data or dict(name="linear", examples=200, features=60, weights=0.01),
        design=design,
        model=model or dict(name="linear"),
        learner=dict(
            objective=objective, optimizer="sgd", learning_rate=0.01, batch_size=10, epochs=30
        ),
        attacks=attacks,
        report=dict(draws=40, figures=False),
        run=dict(chunk=8),
    )


def test_an_overfitted_regression_leaks_through_its_squared_losses(tmp_path):
    report = run.run(config(), workdir_path=tmp_path)
    auc = {
        r["attack"]: r["value"]
        for r in report["results"]
        if r["metric"] == "auc" and r["target"] is None and r["slice"] == "all"
    }
    assert auc["threshold_loss"] > 0.6 and auc["lira"] > 0.6
    assert all(
        row["train_loss"] < row["validation_loss"] and "train_accuracy" not in row
        for row in report["models"]
    )
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| loss of the targets |" in text and "There are no class labels to slice by." in text


def test_cross_validation_is_the_mean_and_sd_over_the_held_out_folds(tmp_path):
    report = run.run(
        config(
            design=dict(name="folds", folds=4),
            attacks=dict(threshold_loss=ATTACKS["threshold_loss"]),
        ),
        workdir_path=tmp_path,
    )
    losses = [row["validation_loss"] for row in report["models"]]
    summary = report["cross_validation"]
    assert summary["folds"] == 4 and "accuracy" not in summary
    np.testing.assert_allclose(
        [summary["loss"]["mean"], summary["loss"]["sd"]], [np.mean(losses), np.std(losses, ddof=1)]
    )
    assert (
        "on the held-out fold (mean ± sd over 4 folds)"
        in (tmp_path / "report" / "report.md").read_text()
    )


def test_cross_validation_by_hand():
    summary = cross_validation.summary(
        [dict(validation_accuracy=a, validation_loss=1 - a) for a in (0.5, 0.7)]
    )
    assert summary["accuracy"]["mean"] == pytest.approx(0.6) and summary["accuracy"][
        "sd"
    ] == pytest.approx(np.sqrt(0.02))
    assert (
        target.folds(summary) == "accuracy 60.0 ± 14.1%, loss 0.4 ± 0.141 on the held-out fold "
        "(mean ± sd over 2 folds)"
    )


@pytest.mark.parametrize(
    "fields,message",
    [
        (
            dict(attacks=dict(gap=dict())),
            "signal 'correct' is for classification, and the task of this data is regression; "
            "signals for it: .*loss.*squared_loss",
        ),
        (dict(attacks=dict(lira=dict())), "signal 'rescaled_logit' is for classification"),
        (
            dict(attacks=dict(rmia=dict())),
            r"attack 'rmia': signal 'log_probability:temperature=2' is for classification, and .* "
            "regression; signals for it: .*loss",
        ),
        (
            dict(attacks=dict(rmia=dict(signal="logits"))),
            "attack 'rmia' reads the logits of classes",
        ),
        (
            dict(objective="cross_entropy"),
            "objective 'cross_entropy' is for classification or sequence.*regression: use "
            "'squared'",
        ),
        (
            dict(data=dict(name="xor")),
            "objective 'squared' is for regression, and the task of this data is classification: "
            "use 'cross_entropy'",
        ),
        (dict(model=dict(name="perceptron")), "num_classes=1 must be at least 2"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run.run(config(**fields), workdir_path=tmp_path)
    assert not (tmp_path / "train").exists()


def test_linear_data_has_its_weights():
    pool = linear.load(examples=500, seed=3)
    x = np.column_stack([pool.x, np.ones(500)])
    solution, residual, *_ = np.linalg.lstsq(x, pool.y, rcond=None)
    np.testing.assert_allclose(solution, [2, -3.4, 4.2], atol=3e-3)
    assert (
        np.sqrt(residual[0] / 497) == pytest.approx(0.01, rel=0.1)
        and pool.num_classes == 0
        and pool.y.dtype == np.float32
    )
    assert linear.load(features=5, weights=0.5).x.shape == (1000, 5)
    with pytest.raises(ValueError, match=r"weights=\(2.0, -3.4\) are 2 numbers for features=3"):
        linear.load(features=3)


def test_xor_data_by_hand():
    pool = xor.load(examples=8, noise=0.0)
    assert (
        pool.x.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]] * 2
        and pool.y.tolist() == [0, 1, 1, 0] * 2
    )
