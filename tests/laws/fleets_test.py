"""The laws on real fleets: memorized labels are found by every attack, untrained models leak
nothing, duplicates are told, gap is arithmetic.
"""

import numpy as np
import pytest

from mia_jax import configuration
from mia_jax.metrics import roc
from mia_jax.pipeline import run as pipeline_run
from mia_jax.report import source
from mia_jax.runtime import files

ATTACKS = dict(
    gap=dict(),
    threshold_loss=dict(name="threshold", signal="loss"),
    threshold_entropy=dict(name="threshold", signal="modified_entropy"),
    lira=dict(mode="online"),
    lira_offline=dict(name="lira", mode="offline"),
)


def run(
    folder,
    *,
    data,
    design,
    seed=0,
    epochs=3,
    attacks=ATTACKS,
    learner={},
    views=("identity",),
    **report,
):
    config = configuration.complete(
        seed=seed,
        data=data,
        design=design,
        model=dict(name="mlp", widths=(64,)),
        learner=dict(learning_rate=0.01, batch_size=16, epochs=epochs) | learner,
        query=dict(views=views),
        attacks=attacks,
        report=dict(draws=40, figures=False, shadow_curve=()) | report,
        run=dict(chunk=8, checkpoint_every=0),
    )
    return pipeline_run.run(config, workdir_path=folder)


def value(report, attack, metric="auc", target=None):
    return next(
        r["value"]
        for r in report["results"]
        if (r["attack"], r["metric"], r["target"]) == (attack, metric, target)
    )


NOISE = dict(name="synthetic", examples=100, features=30, classes=4, random_labels=True)


DESIGNS = [
    dict(name="halves", models=16),
    dict(name="bernoulli", models=16),
    dict(name="disjoint", models=16, targets=4),
]


@pytest.mark.parametrize(
    "design",
    [DESIGNS[0], *(pytest.param(design, marks=pytest.mark.slow) for design in DESIGNS[1:])],
    ids=lambda d: d["name"],
)
def test_memorized_random_labels_are_found_by_every_attack(design, tmp_path):
    attacks = {k: v for k, v in ATTACKS.items() if design["name"] != "disjoint" or k != "lira"}
    report = run(tmp_path, data=NOISE, design=design, epochs=60, attacks=attacks)
    assert all(m["train_accuracy"] > 0.95 for m in report["models"])
    for name in attacks:
        if name != "gap":
            assert value(report, name) > 0.9, name
    accuracy = [
        (m["train_accuracy"], m["validation_accuracy"]) for m in report["models"] if m["target"]
    ]
    assert value(report, "gap") == pytest.approx(
        np.mean([0.5 + (a - b) / 2 for a, b in accuracy]), abs=1e-9
    )


@pytest.mark.slow
@pytest.mark.parametrize("models", [4, 8, 16])
def test_untrained_models_leak_nothing(models, tmp_path):
    """AUC .5 within 4 standard errors over independent fleets, for every attack, also with few
    models.
    """
    fleets = 12
    reports = [
        run(
            tmp_path / str(s),
            data=dict(NOISE, seed=s),
            design=dict(name="halves", models=models),
            seed=s,
            epochs=0,
        )
        for s in range(fleets)
    ]
    for name in ATTACKS:
        auc = np.array([value(r, name) for r in reports])
        assert abs(auc.mean() - 0.5) < 4 * auc.std(ddof=1) / np.sqrt(fleets) + 1e-12, (name, auc)


def test_every_row_twice_across_members_and_non_members_is_told(tmp_path):
    """With every row once among the members and once among the non-members nothing can be told
    apart, and the report warns of the duplicates.
    """
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 10)).astype(np.float32), np.arange(40) % 4
    np.savez(tmp_path / "twice.npz", x=np.concatenate([x, x]), y=np.concatenate([y, y]))
    attacks = {k: ATTACKS[k] for k in ("gap", "threshold_loss", "threshold_entropy")}
    data, design = dict(name="npz", path=str(tmp_path / "twice.npz")), dict(name="two_way")
    report = run(tmp_path / "w", data=data, design=design, epochs=30, attacks=attacks)
    for name in attacks:
        assert value(report, name) == pytest.approx(0.5, abs=1e-6)
    assert (
        report["about"]["duplicates"]["rows"] == 80
        and report["about"]["duplicates"]["crossing"] == 40
    )
    assert "duplicate" in (tmp_path / "w" / "report" / "report.md").read_text().lower()


def test_the_gap_attack_is_arithmetic_on_the_files(tmp_path):
    """Its accuracy, recomputed from what is on disk, is 50 + 50 (train - test)."""
    report = run(
        tmp_path,
        data=dict(NOISE, examples=200),
        design=dict(name="blocks", size=50),
        epochs=30,
        attacks={k: ATTACKS[k] for k in ("gap",)},
    )
    stored = files.read_npz(tmp_path / "design" / "membership.npz")
    correct = np.load(tmp_path / "signal" / "correct" / "00000.npy")[0].astype(np.float64)
    score = files.read_npz(tmp_path / "attack" / "gap" / "scores.npz")
    rows, member = stored["evaluated_MN"][0], stored["member_MN"][0]
    train, test = correct[member].mean(), correct[rows & ~member].mean()
    accuracy = roc.rates_at(score["score_TN"][0][rows], member[rows], 0.5).balanced_accuracy
    assert accuracy == pytest.approx(0.5 + 0.5 * (float(train) - float(test)), abs=1e-9)
    assert (
        report["models"][0]["train_accuracy"] == pytest.approx(float(train), abs=1e-9)
        and train - test > 0.2
    )


def test_a_threshold_for_a_target_comes_from_its_shadows(tmp_path):
    """Garbage in the target's own scores moves no threshold but those that it is a shadow of."""
    from mia_jax.metrics import thresholds

    run(
        tmp_path,
        data=NOISE,
        design=dict(name="halves", models=8),
        epochs=20,
        attacks={k: ATTACKS[k] for k in ("threshold_loss",)},
    )
    stored = files.read_npz(tmp_path / "design" / "membership.npz")
    score = files.read_npz(tmp_path / "attack" / "threshold_loss" / "scores.npz")["score_TN"]
    common = (stored["member_MN"], stored["evaluated_MN"], stored["shadow_MM"])
    plain = thresholds.shadow_thresholds(score, *common)
    spoiled = score.copy()
    spoiled[0:2] += np.random.default_rng(0).normal(size=score[0:2].shape) * 10
    moved = thresholds.shadow_thresholds(spoiled, *common)
    assert np.array_equal(plain[:2], moved[:2]) and not np.array_equal(plain[2:], moved[2:])


def test_report_rows_have_their_fields_and_one_row_a_question(tmp_path):
    report = run(tmp_path, data=NOISE, design=dict(name="halves", models=8), epochs=5)
    fields = (
        "attack target slice metric value low high interval method convention "
        "fpr_realized n_member n_nonmember n_targets knows"
    ).split()
    keys = [(r["attack"], r["target"], r["slice"], r["metric"]) for r in report["results"]]
    assert len(set(keys)) == len(keys) and all(set(fields) <= set(r) for r in report["results"])
    assert {r["target"] for r in report["results"]} == {None, "pooled", *range(8)}
    assert source.load(tmp_path / "report" / "report.json") == report
    below = next(r for r in report["results"] if r["metric"] == "tpr@0.001" and r["target"] is None)
    assert below["value"] is None and "not resolvable" in below["method"]


def test_standardization_knows_the_population_rows_alone(tmp_path):
    data = dict(name="breast_cancer", standardize=True)
    report = run(tmp_path, data=data, design=dict(name="halves", models=4), epochs=3)
    assert all(m["train_accuracy"] > 0.8 for m in report["models"])
    with pytest.raises(ValueError, match="population"):
        run(tmp_path / "none", data=data, design=dict(name="halves", models=4, population=0.0))


@pytest.mark.slow
def test_views_are_asked_and_averaged(tmp_path):
    data = dict(name="digits", flat=False, examples=200)
    report = run(
        tmp_path / "a",
        data=data,
        design=dict(name="halves", models=4),
        views=("identity", "shift:1,0", "rotate:10"),
        epochs=3,
    )
    signal = np.load(tmp_path / "a" / "signal" / "loss" / "00000.npy")
    assert signal.shape == (3, 200) and 0.3 < value(report, "lira") < 0.9


def test_loss_trajectories_are_the_losses_at_the_snapshots(tmp_path):
    """The last snapshot's column is the final loss, columns fall while the models memorize, and
    snapshots do not change the models.
    """
    learner = dict(snapshots=(1, 5, 30))
    attacks = dict(gap=dict(), trajectory=dict())
    run(
        tmp_path / "a",
        data=NOISE,
        design=dict(name="halves", models=4),
        epochs=30,
        learner=learner,
        attacks=attacks,
    )
    loss = np.load(tmp_path / "a" / "signal" / "loss" / "00002.npy")
    losses = np.load(tmp_path / "a" / "signal" / "loss_trajectory" / "00002.npy")
    member = files.read_npz(tmp_path / "a" / "design" / "membership.npz")["member_MN"][2]
    assert losses.shape == (1, 100, 3) and np.array_equal(losses[..., -1], loss)
    assert (np.diff(losses[0, member].mean(0)) < 0).all()
    run(
        tmp_path / "b",
        data=NOISE,
        design=dict(name="halves", models=4),
        epochs=30,
        attacks=dict(gap=dict()),
    )
    a, b = (files.read_npz(tmp_path / f / "train" / "model" / "00002.npz") for f in "ab")
    assert all(np.array_equal(a[k], b[k]) for k in a if "seconds" not in k)
    with pytest.raises(ValueError, match=r"set learner\.snapshots"):
        run(
            tmp_path / "c",
            data=NOISE,
            design=dict(name="halves", models=4),
            epochs=3,
            attacks=attacks,
        )
