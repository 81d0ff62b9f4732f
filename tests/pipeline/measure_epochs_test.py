"""Attacks over the epochs of training: the last epoch is the report's own, memorizing is seen as it
happens, wrong wishes are refused.
"""

import csv
import pathlib

import jax
import numpy as np
import pytest

from mia_jax import configuration
from mia_jax.metrics import roc
from mia_jax.metrics import rows as result_rows
from mia_jax.pipeline import build, grid
from mia_jax.pipeline import run as pipeline_run
from mia_jax.runtime import files
from mia_jax.training import checkpoint

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOISE = dict(name="synthetic", examples=100, features=30, classes=4, random_labels=True)
ATTACKS = dict(threshold_loss=dict(name="threshold", signal="loss"), lira=dict(variance="shrunk"))
EPOCHS = (1, 5, 40)


def config(
    *, data=NOISE, design=dict(name="halves", models=8), attacks=ATTACKS, report={}, **learner
):
    return configuration.complete(
        data=data,
        design=design,
        model=dict(name="mlp", widths=(64,)),
        learner=dict(learning_rate=0.01, batch_size=16, epochs=40, snapshots=EPOCHS) | learner,
        attacks=attacks,
        report=dict(draws=40, figures=False, shadow_curve=(), epochs=tuple(attacks)) | report,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("over_epochs")
    return folder, pipeline_run.run(config(report=dict(figures=True)), workdir_path=folder)


def test_the_last_epoch_is_the_reports_own(run):
    _, report = run
    over = report["epochs"]
    assert [at_epoch["epoch"] for at_epoch in over["accuracy"]] == list(EPOCHS)
    for name in ATTACKS:
        for metric in over["metrics"][:2]:
            row, last = (
                result_rows.resolved(report["results"], name, metric),
                over["attacks"][name][-1][metric],
            )
            assert row["value"] is not None and all(
                last[k] == row[k] for k in ("value", "low", "high", "target")
            )
    targets = [m for m in report["models"] if m["target"]]
    assert over["accuracy"][-1]["train_accuracy"] == pytest.approx(
        np.mean([m["train_accuracy"] for m in targets]), abs=1e-6
    )


def test_memorizing_is_seen_as_it_happens(run):
    """Random labels: after one epoch little is known by heart, after forty everything; accuracy on
    non-members stays what guessing gives.
    """
    _, report = run
    over = report["epochs"]
    for name in ATTACKS:
        auc = [point["auc"]["value"] for point in over["attacks"][name]]
        assert auc[0] < auc[1] < auc[2] and auc[0] < 0.75 and auc[2] > 0.95, (name, auc)
    train, outside = (
        [at_epoch[f"{side}_accuracy"] for at_epoch in over["accuracy"]]
        for side in ("train", "validation")
    )
    assert train[0] < 0.7 and train[2] > 0.99 and max(outside) < 0.45


def test_an_early_epoch_equals_the_snapshots_own_losses(run):
    """AUC of the loss after epoch 5, from the variables on disk alone."""
    folder, report = run
    audit = build.build({k: v for k, v in config().to_dict().items() if k != "seed"}, seed=0)
    template = jax.eval_shape(audit.learner.model.init, jax.random.key(0), audit.pool.x[:1])
    losses = []
    for m in audit.design.targets:
        variables = jax.tree.map(
            lambda a: a[0],
            checkpoint.load_models(folder / "train" / "snapshot" / "00005", [m], template),
        )
        logits = np.asarray(audit.learner.model.apply(variables, audit.pool.x)[0], np.float64)
        loss_N = -(logits - np.log(np.exp(logits).sum(1, keepdims=True)))[
            np.arange(100), audit.pool.y
        ]
        rows = audit.design.evaluated_MN[m]
        losses.append(roc.auc(roc.roc(-loss_N[rows], audit.design.member_MN[m][rows])))
    assert report["epochs"]["attacks"]["threshold_loss"][1]["auc"]["value"] == pytest.approx(
        np.mean(losses), abs=1e-4
    )


def test_every_slice_and_epoch_is_in_the_csv_and_the_report_shows_them(run):
    folder, _ = run
    rows = list(csv.DictReader((folder / "report" / "epochs.csv").read_text().splitlines()))
    assert {r["epoch"] for r in rows} == {str(e) for e in EPOCHS}
    assert {r["slice"] for r in rows if r["metric"] == "auc"} == {
        "all",
        *(f"class={c}" for c in range(4)),
    }
    text = (folder / "report" / "report.md").read_text()
    assert (
        "Leakage over the epochs of training" in text
        and (folder / "report" / "figures" / "epochs.png").is_file()
    )


@pytest.mark.slow
def test_another_attack_can_be_repeated_later_without_training_anew(run):
    folder, before = run
    stamps = {p: p.stat().st_mtime_ns for p in (folder / "train").rglob("*.npz")}
    attacks = ATTACKS | dict(entropy=dict(name="threshold", signal="modified_entropy"))
    report = pipeline_run.run(config(attacks=attacks), workdir_path=folder)
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in stamps.items())
    assert set(report["epochs"]["attacks"]) == set(attacks)
    assert report["epochs"]["attacks"]["lira"] == before["epochs"]["attacks"]["lira"]


def test_a_model_that_stopped_stands_as_it_stopped(tmp_path):
    stop = dict(monitor="loss", min_delta=10.0, patience=2)
    attacks = dict(threshold_loss=ATTACKS["threshold_loss"])
    report = pipeline_run.run(
        config(design=dict(name="two_way"), attacks=attacks, stop=stop), workdir_path=tmp_path
    )
    first, second, third = (
        p["auc"]["value"] for p in report["epochs"]["attacks"]["threshold_loss"]
    )
    assert (
        report["models"][0]["epochs"] == 3
        and second
        == third
        == result_rows.find(report["results"], "threshold_loss", "auc")["value"]
        != first
    )


BAD = {
    "no snapshots": (
        dict(snapshots=()),
        r"report.epochs=\('threshold_loss', 'lira'\) needs learner.snapshots",
    ),
    "unknown": (dict(report=dict(epochs=("lyra",))), "report.epochs='lyra'.*Did you mean 'lira'"),
    "questions": (
        dict(attacks=dict(noise=dict(name="threshold", signal="noise_robustness:box=none"))),
        "'noise' reads noise_robustness:.*, which snapshots are not asked",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_repeated_is_refused(case):
    fields, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        build.build({k: v for k, v in config(**fields).to_dict().items() if k != "seed"}, seed=0)


def test_supplied_answers_have_no_epochs(tmp_path):
    np.savez(tmp_path / "mine.npz", loss=np.arange(20.0), member=np.arange(20) < 10)
    with pytest.raises(ValueError, match="no epochs"):
        pipeline_run.run(
            configuration.scores(path=tmp_path / "mine.npz", report=dict(epochs=("lira",))),
            workdir_path=tmp_path / "w",
        )


@pytest.mark.slow
def test_a_grids_runs_are_drawn_together(tmp_path):
    """configs/privacy_report.py, its two nets on stand-in images: 11 slices, 2 attacks, one figure
    over both.
    """
    module = grid.load(ROOT / "configs" / "privacy_report.py")
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "images.npz",
        x=rng.integers(0, 255, size=(240, 22, 22)).astype(np.uint8),
        y=np.arange(240) % 10,
    )
    everywhere = {
        "data": configuration.complete(
            data=dict(name="npz", path=str(tmp_path / "images.npz")),
            design=dict(name="two_way"),
            model=dict(name="linear"),
            learner={},
            attacks={},
        ).data,
        "report.draws": 40,
        "report.figures": False,
    }
    members = grid.variants(module, "train=160,test=80,epochs=2,every=1", everywhere)
    assert not grid.run(module, members, workdir_path=tmp_path / "w")
    assert (tmp_path / "w" / "epochs.png").is_file()
    report = files.read_json(tmp_path / "w" / "three_convolutions" / "report" / "report.json")
    assert [p["epoch"] for p in report["epochs"]["attacks"]["attack_model_target"]] == [1, 2]
    rows = list(
        csv.DictReader(
            (tmp_path / "w" / "two_convolutions" / "report" / "epochs.csv").read_text().splitlines()
        )
    )
    assert (
        len({(r["attack"], r["slice"]) for r in rows if r["epoch"] == "2" and r["metric"] == "auc"})
        == 22
    )
