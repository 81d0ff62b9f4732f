"""The report of a run says whether its numbers can be trusted: sections, files that no longer fit
together, slices and checks from the config.
"""

import json
import re

import numpy as np
import pytest

import mia_jax
from mia_jax import configuration
from mia_jax.measures import assumptions
from mia_jax.pipeline import inputs
from mia_jax.pipeline import run as pipeline_run
from mia_jax.report import trust
from mia_jax.report.sections import assumptions as assumptions_section
from mia_jax.report.sections import usage
from mia_jax.runtime import files
from mia_jax.runtime.store import Store
from mia_jax.training import checkpoint

ATTACKS = dict(threshold_loss=dict(name="threshold", signal="loss"), lira=dict(mode="online"))
NOISE = dict(name="synthetic", examples=160, features=20, classes=4, random_labels=True)


def run(
    folder,
    *,
    data=NOISE,
    design=dict(name="halves", models=16),
    epochs=15,
    attacks=ATTACKS,
    seed=0,
    **report,
):
    config = configuration.complete(
        seed=seed,
        data=data,
        design=design,
        model=dict(name="mlp", widths=(32,)),
        learner=dict(learning_rate=0.01, batch_size=16, epochs=epochs),
        attacks=attacks,
        report=dict(
            draws=60, figures=False, shadow_curve=(), records=tuple({"lira"} & set(attacks))
        )
        | report,
        run=dict(chunk=8, checkpoint_every=0),
    )
    report_json = pipeline_run.run(config, workdir_path=folder)
    return report_json, (folder / "report" / "report.md").read_text()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with slices, and its folder."""
    folder = tmp_path_factory.mktemp("trust") / "w"
    settings = dict(
        slices=("class", "loss", "class & correct"),
        groups={"first": tuple(range(40)), "tiny": (0, 1)},
    )
    return folder, settings, *run(folder, **settings)


def test_every_section_is_there_and_reads_well(finished):
    folder, _, report, text = finished
    for title in (
        "Pairwise comparison",
        "Thresholds calibrated on shadow models",
        "Which slices are most exposed",
        "Which records are most exposed",
    ):
        assert f"## {title}" in text
    assert "## Can these numbers be trusted?" in text and not re.search(
        r"\b(nan|inf|None|NaN)\b", text
    )
    json.dumps(report, allow_nan=False)
    assert {"comparisons", "slices", "records", "validity"} <= set(report)
    sections = {
        "blind",
        "cross_target",
        "duplicates",
        "membership",
        "files",
        "label_agreement",
        "shadow_fit",
        "power",
        "records",
    }
    assert set(report["validity"]) == sections
    names = {row["slice"] for row in report["results"]}
    assert {
        "all",
        "class=0",
        "loss 90-100%",
        "class=1 & correct=True",
        "group=first",
        "group=tiny",
    } <= names
    tiny = [row for row in report["results"] if row["slice"] == "group=tiny"]
    assert tiny and all(row["too_small"] and row["low"] is None for row in tiny)
    post_hoc = {row["slice"]: row["post_hoc"] for row in report["results"] if row["slice"] != "all"}
    assert (
        post_hoc["loss 0-10%"]
        and post_hoc["class=1 & correct=True"]
        and not post_hoc["class=1"]
        and not post_hoc["group=first"]
    )
    assert {entry["slice"] for entry in report["slices"]["ranking"]["lira"]} >= {
        "class=0",
        "group=first",
    }
    arrays = files.read_npz(folder / "report" / "records.npz")
    assert arrays["lira/auc_N"].shape == (160,) and np.nanmean(
        arrays["lira/auc_N"]
    ) == pytest.approx(report["records"]["lira"]["mean_auc"])
    assert (folder / "report" / "results.csv").read_text().count("\n") == len(report["results"]) + 1


def test_assumptions_are_told_attack_by_attack(finished):
    """What diagnose says on the first four targets, in report.json and in words; attacks without a
    diagnosis are not named.
    """
    _, _, report, text = finished
    diagnostics = report["assumptions"]
    assert list(diagnostics) == ["lira"] and diagnostics["lira"]["targets"] == assumptions.TARGETS
    # 14 shadow models: 7 a side, and the test of normality needs 8.
    assert diagnostics["lira"]["in_normality_tested"] == 0
    assert (
        "| `lira` | too few IN shadow models to test normality; too few OUT shadow models to test "
        "normality |" in text
    )
    tested = dict(
        out_normality_tested=1200.0,
        out_normality_rejected=0.114,
        resolution=0.005,
        top_tie_share=0.25,
        a=0.3,
        targets=4,
    )
    sentence = (
        "normality among OUT shadow models rejected in 11.4% of 1,200 tests; scores are "
        "multiples of 0.005, 25.0% of the rows tie at the top"
    )
    assert assumptions_section.diagnosis(tested) == f"{sentence}; a = 0.3 tuned on shadow models"
    page = assumptions_section.text(assumptions=dict(lira=tested))
    assert (
        "by chance, 5.0% of the tests would reject normality even if it holds" in page
        and not assumptions_section.text(assumptions={})
    )


def test_the_share_of_the_data_that_was_used_is_estimated(finished):
    """Every row of `usage` is (named - FPR) / (TPR - FPR); labels are random here, so the share is
    met closely, and its interval holds it.
    """
    _, _, report, text = finished
    rows = report["usage"]["rows"]
    assert len(rows) == 16 and "## How much of the data was used?" in text
    assert (
        "Model 0 was trained on an estimated " in text
        and f" of the {rows[0]['rows']:,} scored rows (truth: 50.0%)." in text
    )
    for row in rows:
        assert (
            row["share"] == pytest.approx((row["named"] - row["fpr"]) / (row["tpr"] - row["fpr"]))
            and row["true_share"] == 0.5
        )
        assert row["low"] <= row["share"] <= row["high"] and abs(row["share"] - 0.5) < 0.2
    assert sum(row["low"] <= 0.5 <= row["high"] for row in rows) >= 13
    assert usage.text(usage=dict(attack="x", why="no shadows.")).endswith(
        "Not estimated from `x`: no shadows.\n"
    )


def test_all_is_well_in_an_honest_run(finished):
    _, _, report, text = finished
    validity = report["validity"]
    assert (
        validity["files"]["stale"] == validity["files"]["unknown"] == []
        and validity["files"]["checked"] == 16 + 2
    )
    assert (
        validity["membership"]["problems"] == []
        and validity["membership"]["count_auc"] == 0.5
        and validity["membership"]["twins"] == 8
    )
    assert validity["cross_target"]["excluded"] == [] and validity["blind"]["drawn"]
    assert trust.BAD not in text and text.count(f"| {trust.GOOD} |") == 7


def test_memorized_labels_expose_slices_and_records(finished):
    report = finished[2]
    entries = report["slices"]["ranking"]["lira"]
    assert entries[0]["low"] > 0.7 and entries[0]["p_holm"] < 0.01
    versus = next(r for r in report["comparisons"] if r["metric"] == "auc" and r["target"] is None)
    assert {versus["attack"], versus["versus"]} == set(ATTACKS) and versus["low"] <= versus[
        "value"
    ] <= versus["high"]


def test_files_that_no_longer_fit_together_are_told(finished):
    """A changed answer and a changed model are noticed by the same command, and the older report is
    kept.
    """
    folder, settings, *_ = finished
    path = folder / "signal" / "rescaled_logit" / "00003.npy"
    original = path.read_bytes()
    files.write_npy(path, np.load(path) + 1)
    report, text = run(folder, **settings)
    stale_scores = (
        "the scores of lira were computed from other files (rescaled_logit): delete attack/lira/ "
        "and report/"
    )
    assert report["validity"]["files"]["stale"] == [stale_scores]
    assert trust.BAD in text and (folder / "report.1" / "report.md").exists()
    path.write_bytes(original)
    models = folder / "train" / "model"
    kept = (models / "00003.npz").read_bytes()
    (models / "00003.npz").write_bytes((models / "00004.npz").read_bytes())
    with pytest.raises(
        ValueError,
        match=r"00003\.npz belongs to another place \(model: 4 in the file, 3 expected\)",
    ):
        run(folder, **settings)  # a file that says whose it is is never taken for another
    arrays, record = files.read_npz_and_record(models / "00004.npz")
    files.write_npz(models / "00003.npz", record | dict(model=3), **arrays)
    report, _ = run(folder, **settings)
    assert report["validity"]["files"]["stale"] == [
        "model 3 has changed since it was queried: delete signal/*/00003.npy, attack/ and report/"
    ]
    (models / "00003.npz").write_bytes(kept)
    scores = folder / "attack" / "lira" / "scores.npz"
    files.write_npz(
        scores, **files.read_npz(scores)
    )  # as an older version wrote them, without their inputs.json
    report, text = run(folder, **settings)
    assert report["validity"]["files"]["stale"] == [] and report["validity"]["files"][
        "unknown"
    ] == ["the scores of lira"]
    assert "no record for 1 (the first: the scores of lira)" in text


def answer(folder, m, asked=None):
    """The loss of a model, as it was when its file had the digest `asked` (None: now)."""
    asked = asked or checkpoint.digest(folder / "train", m)
    files.write_npy(
        folder / "signal" / "loss" / f"{m:05d}.npy", np.zeros((1, 2)), dict(asked={str(m): asked})
    )


def test_asking_a_changed_model_anew_is_remembered(tmp_path):
    for m in (0, 1):
        files.write_npz(tmp_path / "train" / "model" / f"{m:05d}.npz", a=np.arange(3) + m)
        answer(tmp_path, m)
    common, store = dict(models=2, membership="x", signals=["loss"]), Store(tmp_path)
    assert inputs.check(store, {}, **common) == dict(checked=2, stale=[], unknown=[])
    files.write_npz(tmp_path / "train" / "model" / "00001.npz", a=np.arange(3) + 5)
    (sentence,) = inputs.check(store, {}, **common)["stale"]
    assert (
        sentence
        == "model 1 has changed since it was queried: delete signal/*/00001.npy, attack/ and "
        "report/"
    )
    assert inputs.of_signal(tmp_path / "signal", "loss", 2) != inputs.of_signal(
        tmp_path / "signal", "loss", 1
    )
    answer(tmp_path, 1)
    assert inputs.check(store, {}, **common)["stale"] == []
    files.write_npz(
        tmp_path / "attack" / "a" / "scores.npz",
        dict(signals={"loss": "other"}, membership="y"),
        score_TN=np.zeros((1, 2)),
    )
    assert "(loss, the membership)" in inputs.check(store, {"a": ["loss"]}, **common)["stale"][0]
    (tmp_path / "train" / "model" / "00000.npz").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"00000\.npz is damaged"):
        inputs.check(store, {}, **common)


def test_workdirs_of_older_versions_keep_their_records_in_json_files(tmp_path):
    """Files without a record are believed; the digests beside them are compared, and what has none
    is said to have none.
    """
    models, asked = tmp_path / "train" / "model", {}
    for m in (0, 1):
        files.write_npz(models / f"{m:05d}.npz", a=np.arange(3) + m)
        (tmp_path / "signal" / "loss").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "signal" / "loss" / f"{m:05d}.npy", np.zeros((1, 2)))
        asked[str(m)] = checkpoint.digest(tmp_path / "train", m)
    attack = tmp_path / "attack" / "a"
    files.write_npz(attack / "scores.npz", score_TN=np.zeros((1, 2)))
    common, store = (
        dict(models=2, membership="x", signals=["loss"]),
        Store(tmp_path, "of a newer version"),
    )
    unknown = ["the outputs of model 0", "the outputs of model 1", "the scores of a"]
    assert inputs.check(store, {"a": ["loss"]}, **common) == dict(
        checked=0, stale=[], unknown=unknown
    )
    files.write_json(tmp_path / "signal" / "inputs.json", asked)
    known = dict(signals={"loss": inputs.of_signal(tmp_path / "signal", "loss", 2)}, membership="x")
    files.write_json(attack / "inputs.json", known)
    assert inputs.check(store, {"a": ["loss"]}, **common) == dict(checked=3, stale=[], unknown=[])
    files.write_npz(models / "00001.npz", a=np.arange(3) + 5)
    assert (
        "model 1 has changed since it was queried"
        in inputs.check(store, {"a": ["loss"]}, **common)["stale"][0]
    )
    for text, words in (
        ("{}", "its keys are none"),
        ('{"signal": {}, "membership": "x"}', "its keys are 'signal', 'membership'"),
    ):
        (attack / "inputs.json").write_text(text)
        with pytest.raises(
            ValueError, match=r"a/inputs\.json is damaged .*has no 'signals'; " + words
        ):
            inputs.check(store, {"a": ["loss"]}, **common)


def supplied_table(path, shift):
    """200 rows whose first half differs from the second by `shift`, with columns."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5)).astype(np.float32) + shift * (np.arange(200) < 100)[:, None]
    np.savez(path, x=x, y=np.arange(200) % 2, age=rng.normal(size=200), site=np.arange(200) // 50)
    return dict(name="npz", path=str(path))


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_blind_baseline_runs_where_rows_are_split_by_order(shift, tmp_path):
    data, attacks = (
        supplied_table(tmp_path / "t.npz", shift),
        dict(threshold_loss=ATTACKS["threshold_loss"]),
    )
    report, text = run(
        tmp_path / "w",
        data=data,
        design=dict(name="two_way"),
        attacks=attacks,
        epochs=2,
        slices=("column:age", "column:site"),
    )
    blind = report["validity"]["blind"]
    assert (blind["p_value"] < 0.01) == bool(shift) and (
        "members are distinguishable from non-members without any model" in text
    ) == bool(shift)
    assert (
        "no second independent target" in text and "1 independent target; two folds" not in text
    )  # records were not asked of this attack
    names = {row["slice"] for row in report["results"]}
    assert {"site=0", "site=3"} <= names and sum(name.startswith("age=[") for name in names) == 4
    random, _ = run(
        tmp_path / "d",
        data=data,
        design=dict(name="two_way", drawn=True),
        attacks=attacks,
        epochs=1,
    )
    assert random["validity"]["blind"]["drawn"]


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(slices=("column:nope",)), "no column 'nope'"),
        (dict(slices=("clas",)), "Did you mean 'class'"),
        (dict(groups={"mine": (500,)}), "row 500; the data has rows 0..159"),
    ],
)
def test_slices_that_do_not_exist_are_refused_before_training(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "w", **settings)
    assert not (tmp_path / "w").exists()


def test_arrays_that_were_supplied_are_sliced_and_checked():
    rng = np.random.default_rng(0)
    member = rng.random((17, 200)) < 0.5
    member[2::2] = ~member[1::2]
    loss, site = rng.normal(size=(17, 200)) - 1.5 * member, np.arange(200) % 2
    arrays = dict(
        loss=loss[0],
        member=member[0],
        shadow_loss=loss[1:],
        shadow_member=member[1:],
        column_site=site,
    )
    results = mia_jax.audit(arrays, slices=("class", "column:site"), draws=60)
    assert results.value(
        "threshold_loss", "auc", slice="site=1"
    ) > 0.7 and "[site=1]" in results.summary(by_slice=True)
    assert (
        results.report["slices"]["said"] == ["There are no class labels to slice by."]
        and "There are no class labels" in results.markdown
    )
    assert results.report["validity"]["duplicates"] == dict(why="the examples were not given")
    assert "all alike, or were not given" in results.report["validity"]["blind"]["why"]
    with pytest.raises(
        ValueError, match=r"no column 'sight'\. Did you mean 'site'\? Columns: site"
    ):
        mia_jax.audit(arrays, slices=("column:sight",))
