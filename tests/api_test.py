"""Arrays of the user's own: arrays in, results out, alone or with shadows that are trained here."""

import sys

import numpy as np
import pytest

import mia_jax
from mia_jax import configuration
from mia_jax.external import arrays as supplied_arrays
from mia_jax.pipeline import run
from mia_jax.report import tables
from tests.answered import QUICK, arrays


def test_logits_probabilities_and_losses_agree():
    logits_given = arrays()
    log = logits_given["logits"] - np.logaddexp.reduce(logits_given["logits"], -1, keepdims=True)
    shadow = logits_given["shadow_logits"] - np.logaddexp.reduce(
        logits_given["shadow_logits"], -1, keepdims=True
    )
    common = {k: logits_given[k] for k in ("labels", "member", "shadow_member")}
    loss = dict(
        loss=-log[np.arange(120), logits_given["labels"]],
        shadow_loss=-shadow[:, np.arange(120), logits_given["labels"]],
    )
    given = (
        logits_given,
        dict(common, probs=np.exp(log), shadow_probs=np.exp(shadow)),
        dict(loss, member=logits_given["member"], shadow_member=logits_given["shadow_member"]),
    )
    a, b, c = (mia_jax.audit(arrays, attacks="lira, threshold_loss", **QUICK) for arrays in given)
    for results in (b, c):
        assert results.value("threshold_loss", "auc") == pytest.approx(
            a.value("threshold_loss", "auc"), abs=1e-9
        )
    assert (
        a.value("lira", "auc") == pytest.approx(b.value("lira", "auc"), abs=1e-3)
        and min(a.value("lira", "auc"), c.value("lira", "auc")) > 0.85
    )
    assert (
        c.report["attacks"]["lira"]["signal"] == "loss"
        and a.report["attacks"]["lira"]["signal"] == "rescaled_logit"
    )


def test_a_target_alone_is_told_what_else_to_bring():
    given = {k: v for k, v in arrays().items() if not k.startswith("shadow")}
    results = mia_jax.audit(given, **QUICK)
    correct = given["logits"].argmax(-1) == given["labels"]
    want = 0.5 + (correct[given["member"]].mean() - correct[~given["member"]].mean()) / 2
    assert (
        results.value("gap", "auc") == pytest.approx(want, abs=1e-9)
        and results.value("gap", "balanced_accuracy") is None
    )
    thresholds = {
        f"threshold_{n}" for n in ("loss", "confidence", "entropy", "modified_entropy", "hinge")
    }
    assert set(results.scores) == {"gap", "attack_model_target"} | thresholds
    (note,) = results.report["about"]["said"]
    assert (
        "lira, lira_shrunk" in note
        and "pass shadow_<key> and shadow_member" in note
        and "rmia" in note
        and tables.plain(note) in results.markdown
    )
    assert results.row("attack_model_target", "auc")["knows"] == "half_of_target_members"
    lines = results.summary().splitlines()
    assert lines[0].startswith("LEAK SHOWN (strong evidence") and lines[2].startswith("checks: ")
    ordered = [
        line.split()[0] for line in lines[lines.index("") + 2 :]
    ]  # the report's order: one that knows members is never ranked with the others
    assert (
        ordered[-1] == "attack_model_target"
        and results.summary().endswith("half_of_target_members")
        and len(ordered) == 7
    )
    assert ordered == [*results.report["verdict"]["ranked"], *results.report["verdict"]["apart"]]


def test_views_columns_population_and_scores():
    rng = np.random.default_rng(0)
    member = rng.random(100) < 0.5
    results = mia_jax.audit(
        score=rng.normal(size=(3, 100)) + 4 * member,
        member=member,
        column_age=rng.integers(0, 3, 100),
        population_score=rng.normal(size=(3, 20)),
        **QUICK,
    )
    assert (
        results.value("threshold_score", "auc") > 0.95
        and results.report["design"]["population_rows"] == 20
    )
    assert (
        results.report["about"]["views"] == ["view 0", "view 1", "view 2"]
        and results.report["design"]["evaluated_rows"] == 100
    )


def test_regression_and_several_labels():
    rng = np.random.default_rng(0)
    member, y = rng.random(200) < 0.5, rng.normal(size=200)
    results = mia_jax.audit(
        predictions=y + rng.normal(size=200) * np.where(member, 0.1, 1.0),
        labels=y,
        member=member,
        **QUICK,
    )
    assert results.value("threshold_loss", "auc") > 0.85
    several, logits = (rng.random((200, 5)) < 0.3).astype(int), rng.normal(size=(200, 5))
    logits += np.where(member[:, None], 3.0, 0.5) * (2 * several - 1)
    built = supplied_arrays.build(dict(logits=logits, labels=several, member=member))
    naive = -(
        several * np.log(1 / (1 + np.exp(-logits)))
        + (1 - several) * np.log(1 - 1 / (1 + np.exp(-logits)))
    ).sum(1)
    np.testing.assert_allclose(built.signal["loss"][0, 0], naive, rtol=1e-5)
    sure = supplied_arrays.build(
        dict(probs=1 / (1 + np.exp(-logits)), labels=several, member=member)
    )
    np.testing.assert_allclose(sure.signal["loss"], built.signal["loss"], rtol=1e-5)
    outputs = rng.normal(size=(2, 200, 3))
    both = supplied_arrays.build(
        dict(
            predictions=outputs[0],
            labels=outputs[1],
            member=member,
            shadow_predictions=outputs,
            shadow_member=[member, ~member],
        )
    )
    np.testing.assert_allclose(
        both.signal["loss"][0, 0], ((outputs[0] - outputs[1]) ** 2).sum(1), rtol=1e-5
    )
    assert (
        both.signal["loss"].shape == (3, 1, 200)
        and (both.signal["loss"][2] < 1e-12).all()
        and both.pool.num_classes == 0
    )


def test_results_are_saved_and_loaded_whole(tmp_path):
    results = mia_jax.audit(arrays(), attacks=("gap", "lira"), figures=True, **QUICK)
    results.save(tmp_path / "a")
    again = mia_jax.Results.load(tmp_path / "a")
    assert (
        again.report == results.report
        and again.markdown == results.markdown
        and again.pictures == results.pictures
        and again.table == results.table
    )
    assert all(
        np.array_equal(results.scores[n]["score_TN"], again.scores[n]["score_TN"], equal_nan=True)
        for n in results.scores
    )
    assert set(again.evidence) == set(results.evidence) and "lira [all]" in again.summary()
    with pytest.raises(ValueError, match="holds an audit already"):
        results.save(tmp_path / "a")
    with pytest.raises(KeyError, match="attacks: gap"):
        results.value("lyra", "auc")
    with pytest.raises(FileNotFoundError, match=r"holds no audit \(no report\.json\)"):
        mia_jax.Results.load(tmp_path / "b")
    assert not [p for p in (tmp_path / "a").rglob("*") if p.suffix in (".pkl", ".pickle", ".npy")]


@pytest.mark.slow
def test_figures_are_drawn_from_what_was_saved(tmp_path):
    given = arrays(models=6)
    audited = mia_jax.audit(
        {k: v for k, v in given.items() if k.startswith("shadow") or k == "labels"},
        attacks=["lira"],
        **QUICK,
    )
    assert audited.pictures == {}  # none in the report, drawn all the same
    audited.save(tmp_path / "a")
    for results in (audited, mia_jax.Results.load(tmp_path / "a")):
        (axes,) = results.plot().axes
        assert axes.get_xscale() == axes.get_yscale() == "log" and len(axes.lines) >= 2
        assert (
            "scores" in [p.stem for p in results.plot(folder=tmp_path / "p")]
            and (tmp_path / "p" / "roc.png").stat().st_size > 5000
        )
    with pytest.raises(ValueError, match="name='rock'"):
        audited.plot("rock")


def test_scores_of_the_targets_are_those_of_the_table():
    """target_scores has a row a target, in evidence's order, whoever else was scored to choose
    thresholds.
    """
    given = arrays(pairs=False)
    results = mia_jax.audit(given, attacks="threshold_loss", **QUICK)
    log = given["logits"] - np.logaddexp.reduce(given["logits"], -1, keepdims=True)
    np.testing.assert_allclose(
        results.target_scores("threshold_loss")[0], log[np.arange(120), given["labels"]], atol=1e-5
    )
    np.testing.assert_array_equal(results.evidence["member_TN"][0], given["member"])
    with pytest.raises(ValueError, match="attack='lyra'"):
        results.target_scores("lyra")


def test_a_path_groups_and_one_slice(tmp_path):
    given = arrays(examples=200)
    np.savez(tmp_path / "mine.npz", **given)
    results = mia_jax.audit(
        tmp_path / "mine.npz",
        attacks="threshold_loss",
        slices="class",
        groups={"first": range(80)},
        folder=tmp_path / "w",
        **QUICK,
    )
    assert (tmp_path / "w" / "report" / "report.md").read_text() == results.markdown and str(
        tmp_path / "mine.npz"
    ) in results.markdown
    score, member = results.target_scores("threshold_loss")[0][:80], given["member"][:80]
    won = (score[member][:, None] > score[~member]).mean() + (
        score[member][:, None] == score[~member]
    ).mean() / 2
    assert results.value("threshold_loss", "auc", slice="group=first") == pytest.approx(won)
    assert {r["slice"] for r in results.table} == {
        "all",
        "group=first",
        *(f"class={c}" for c in range(4)),
    }


def test_a_folder_of_another_audit_is_refused_in_the_caller_s_words(tmp_path):
    """Other labels or another number of models: the remedy is the argument folder=, never a
    flag.
    """
    given, fewer = arrays(examples=40), arrays(examples=40, models=6)
    mia_jax.audit(given, attacks="threshold_loss", folder=tmp_path, **QUICK)
    other = given | dict(labels=(given["labels"] + 1) % 4)
    for changed in (other, fewer):
        with pytest.raises(ValueError, match="another folder=, or leave folder out") as refusal:
            mia_jax.audit(changed, attacks="threshold_loss", folder=tmp_path, **QUICK)
        assert "--" not in str(refusal.value)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(attacks="lira, lyra"), "there is no 'lyra'.* Did you mean 'lira'"),
        (dict(attacks="rmia"), "needs population rows .* pass population_<key>"),
        (
            dict(attacks=dict(lira=dict(vriance="pooled"))),
            "no field 'vriance'.* Did you mean 'variance'",
        ),
        (
            dict(attacks="trajectory"),
            "needs the signals loss_trajectory; the arrays that were supplied give",
        ),
        (
            dict(groups={"some": np.arange(40) > 3}),
            r"groups: 'some' must be a list of row numbers .* dtype bool. For a mask pass "
            r"np\.flatnonzero",
        ),
        (
            dict(groups={"some": [1.5]}),
            "groups: 'some' must be a list of row numbers .* dtype float64",
        ),
        (dict(groups={"some": [40]}), r"groups: 'some' names row 40; the data has rows 0\.\.39"),
        (dict(slices="clas"), "Did you mean 'class'"),
        (dict(slices="column:age"), "no column 'age'. Columns: none"),
        (dict(draws=10), "draws=10 must be at least 40"),
        (dict(seed=-1), "must be different whole numbers >= 0"),
    ],
)
def test_what_cannot_be_asked_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        mia_jax.audit(arrays(examples=40), **(QUICK | settings))


def test_constant_scores_are_an_honest_half():
    """Of every attack of the standard set, alone and with shadows as constant as the target."""
    member = np.random.default_rng(0).random((5, 60)) < 0.5
    given = dict(
        loss=np.ones(60), member=member[0], shadow_loss=np.ones((4, 60)), shadow_member=member[1:]
    )
    results = mia_jax.audit({k: v for k, v in given.items() if not k.startswith("shadow")}, **QUICK)
    assert (
        results.value("threshold_loss", "auc") == 0.5
        and results.value("threshold_loss", "tpr@0.1") == 0
    )
    results = mia_jax.audit(given, **QUICK)
    assert len(results.scores) >= 10
    for attack in set(results.scores) - {"reference", "attack_model", "privacy_risk_score"}:
        assert results.value(attack, "auc") == 0.5, attack


def test_a_single_member_is_marked():
    results = mia_jax.audit(loss=np.arange(60.0), member=np.arange(60) == 3, **QUICK)
    row = results.row("threshold_loss", "auc")
    assert (
        row["value"] == pytest.approx(56 / 59)
        and row["low"] is None
        and row["method"] == "too few records to resample"
        and row["n_member"] == 1
    )
    top = results.row("threshold_loss", "tpr@0.1")
    assert top["value"] == 1 and top["low"] < 0.05  # one member that is named proves little
    assert (
        "attack_model_target" not in results.scores
        and "fewer than 10 members" in results.report["about"]["said"][0]
    )


@pytest.fixture
def target_files(tmp_path):
    """data.npz, and target.npz of a model that is sure of its members; an odd number of rows."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(121, 8)).astype(np.float32), rng.integers(0, 3, 121)
    member = rng.random(121) < 0.5
    np.savez(tmp_path / "data.npz", x=x, y=y)
    np.savez(
        tmp_path / "target.npz",
        logits=rng.normal(size=(121, 3)) + 9 * member[:, None] * np.eye(3)[y],
        member=member,
    )
    return tmp_path, member, y


def beside(folder, *, design=dict(name="bernoulli", population=0.0), **sections):
    """The config of a target of one's own in `folder` beside 8 shadows."""
    return configuration.complete(
        data=dict(name="npz", path=str(folder / "data.npz")),
        design=dict(design, models=8),
        attacks=dict(
            gap=dict(),
            threshold_loss=dict(name="threshold"),
            lira=dict(),
            lira_offline=dict(name="lira", mode="offline"),
        ),
        report=dict(draws=40, figures=False),
        **sections,
    )


def test_a_handful_of_examples_is_no_crash():
    """One member and one non-member, with figures; and a shadow of four examples, from which
    nothing can be learned.
    """
    results = mia_jax.audit(loss=np.arange(2.0), member=[1, 0], figures=True, **QUICK)
    assert (
        results.value("threshold_loss", "auc") == 1
        and results.row("threshold_loss", "auc")["low"] < 0.05
    )
    assert "roc.png" in results.pictures
    given = arrays(models=1, examples=4, pairs=False) | dict(
        member=[1, 0, 1, 0], shadow_member=[[1, 0, 0, 1]]
    )
    results = mia_jax.audit(given, **QUICK)
    note = results.report["about"]["said"][-1]
    assert (
        "attack_model_target, class_threshold, privacy_risk_score, attack_model (fewer than 10 "
        "members or non-members to learn from)" in note
    )
    with pytest.raises(
        ValueError,
        match=r"the shadows give 2 members and 2 non-members to learn from; an attack model needs "
        r"at least 3",
    ):
        mia_jax.audit(given, attacks="attack_model", **QUICK)


def test_your_target_beside_our_shadows(target_files):
    """A published target: its answers and members in a file, the shadows trained here on the same
    rows, of any net and learner.
    """
    folder, *_ = target_files
    kind = dict(model=dict(name="fc", width=32), learner=dict(epochs=10, optimizer="adam"))
    config = beside(folder, target=dict(signals=str(folder / "target.npz")), shadow=kind)
    assert (
        config == beside(folder, target=dict(signals=str(folder / "target.npz")), **kind)
        and config.model.name == "fc"
    )
    report = run.run(config, workdir_path=folder / "w")
    assert (
        report["design"]["targets"] == [8]
        and report["design"]["shadows_min"] == 8
        and len(report["models"]) == 9
    )
    value = {
        r["attack"]: r["value"]
        for r in report["results"]
        if r["metric"] == "auc" and r["target"] is None
    }
    assert value["threshold_loss"] > 0.95 and value["lira_offline"] > 0.7
    assert (
        not (folder / "w" / "train" / "model" / "00008.npz").exists()
        and (folder / "w" / "train" / "model" / "00007.npz").exists()
    )


def test_targets_that_do_not_fit_are_refused_before_training(target_files):
    folder, member, y = target_files
    target, kind = (
        dict(signals=str(folder / "target.npz")),
        dict(model=dict(name="mlp"), learner=dict(epochs=1)),
    )

    def refused(message, **fields):
        with pytest.raises(ValueError, match=message):
            run.run(
                beside(folder, **(dict(target=target) | kind | fields)), workdir_path=folder / "v"
            )

    refused(
        r"\d+ of the target's members are population rows. Set design.population=0 .*bernoulli",
        design=dict(name="halves"),
    )
    refused("model and shadow.model are both given", shadow=dict(model=dict(name="fc")))
    refused(
        "shadow='net' must be one of model, learner|shadow='net'", shadow=dict(net=dict(name="fc"))
    )
    refused(
        "all have the same model and learner",
        target={},
        model={},
        shadow=dict(model=dict(name="fc")),
    )
    refused("model needs a name", model={})
    np.savez(folder / "target.npz", logits=np.zeros((119, 3)), member=member[:119], labels=y[:119])
    refused("119 examples and the data 121")
    np.savez(folder / "target.npz", logits=np.zeros((121, 3)), member=member, labels=(y + 1) % 3)
    refused("labels differ from the data's at example 0; the rows must be in the same order")
    np.savez(folder / "target.npz", logits=np.zeros((2, 121, 3)), member=member)
    refused("has 2 views and config.query.views 1")
    np.savez(folder / "target.npz", loss=np.arange(121.0), member=member)
    refused("attack 'gap' needs the signals correct")
    assert not (folder / "v").exists()


def test_arrays_are_audited_where_the_packages_of_config_files_are_missing(monkeypatch):
    """And the config is the one that a config file of arrays makes."""
    given = dict(path="x.npz", attacks=("gap", "lira"), report=dict(draws=40))
    assert configuration.supplied(**given) == configuration.scores(**given).to_dict()
    monkeypatch.setitem(sys.modules, "ml_collections", None)
    rng = np.random.default_rng(0)
    loss, member = rng.random(200), rng.random(200) < 0.5
    results = mia_jax.audit(loss=loss, member=member, report=dict(figures=False, draws=20))
    assert results.report["about"] and "threshold_loss" in results.scores
