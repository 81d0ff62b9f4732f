"""Bring your own: arrays in, results out; every shape is checked, twins and fixed counts are noticed, official folders are read."""

import dataclasses

import numpy as np
import pytest

import mia_jax
from mia_jax import brought, configuration, experiment, views

QUICK = dict(draws=40)


def arrays(models=8, examples=120, classes=4, mu=3.0, seed=0, pairs=True):
    """Logits of a target and of shadows that are surer of their members; complementary pairs or independent coins."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, examples)
    member = rng.random((models + 1, examples)) < 0.5
    if pairs:
        member[2::2] = ~member[1::2]
    logits = rng.normal(size=(models + 1, examples, classes))
    logits += (mu * member + rng.normal(size=examples))[..., None] * np.eye(classes)[y]
    return dict(logits=logits[0], member=member[0], labels=y, shadow_logits=logits[1:], shadow_member=member[1:])


def test_logits_probabilities_and_losses_agree():
    one = arrays()
    log = one["logits"] - np.logaddexp.reduce(one["logits"], -1, keepdims=True)
    shadow = one["shadow_logits"] - np.logaddexp.reduce(one["shadow_logits"], -1, keepdims=True)
    common = {k: one[k] for k in ("labels", "member", "shadow_member")}
    a = mia_jax.audit(one, **QUICK)
    b = mia_jax.audit(dict(common, probs=np.exp(log), shadow_probs=np.exp(shadow)), **QUICK)
    loss = dict(loss=-log[np.arange(120), one["labels"]], shadow_loss=-shadow[:, np.arange(120), one["labels"]])
    c = mia_jax.audit(dict(loss, member=one["member"], shadow_member=one["shadow_member"]), **QUICK)
    for found in (b, c):
        assert found.value("threshold_loss", "auc") == pytest.approx(a.value("threshold_loss", "auc"), abs=1e-9)
    assert a.value("lira", "auc") == pytest.approx(b.value("lira", "auc"), abs=1e-3) and a.value("lira", "auc") > 0.85
    assert "lira_loss" in {r["attack"] for r in c.table} and "gap" not in {r["attack"] for r in c.table}
    assert any("Left out: gap (no correct)" in s for s in c.report["about"]["said"])


def test_gap_is_arithmetic_and_a_target_alone_has_no_threshold():
    one = {k: v for k, v in arrays().items() if not k.startswith("shadow")}
    found = mia_jax.audit(one, **QUICK)
    correct = one["logits"].argmax(-1) == one["labels"]
    want = 0.5 + (correct[one["member"]].mean() - correct[~one["member"]].mean()) / 2
    assert found.value("gap", "auc") == pytest.approx(want, abs=1e-9) and found.value("gap", "balanced_accuracy") is None
    assert {r["attack"] for r in found.table} == {"gap", "threshold_loss", "threshold_confidence", "threshold_modified_entropy"}


def test_every_shadow_is_a_target_in_turn_without_its_twin():
    one = arrays(models=8)
    found = brought.build({k: v for k, v in one.items() if k.startswith("shadow") or k == "labels"})
    assert found.design.targets == tuple(range(8)) and found.design.unit_M.tolist() == [0, 0, 2, 2, 4, 4, 6, 6]
    assert not found.design.shadow_MM[0, 1] and found.design.shadow_MM[0, 2:].all() and "twin" in found.said[0]
    given = brought.build(
        dict({k: v for k, v in arrays(pairs=False).items() if k.startswith("shadow") or k == "labels"}, pair=[5, 5, 1, 1, 2, 2, 3, 3])
    )
    assert not given.design.shadow_MM[0, 1] and given.design.shadow_MM[0, 2]


def fixed_counts(models=8, examples=400, seed=0):
    """Signals that carry nothing, with every example in exactly half of the models."""
    rng = np.random.default_rng(seed)
    member = rng.random((models, examples)).argsort(0) < models // 2
    return dict(shadow_loss=rng.normal(size=(models, examples)), shadow_member=member)


def test_fixed_counts_leak_nothing_and_are_told():
    found = brought.build(fixed_counts())
    assert found.design.balance and "same number" in found.said[0]
    fleet = views.Fleet(design=found.design, signal=found.signal, num_classes=0)
    for t in range(8):
        view = fleet.view(t, ("loss", "shadow_in", "shadow_out"))
        inside = (view.visible_MN & view.shadow_member_MN).sum(0)
        outside = (view.visible_MN & ~view.shadow_member_MN).sum(0)
        assert (inside == 3).all() and (outside == 3).all()
    naive = dataclasses.replace(found.design, balance=False)
    count = views.Fleet(design=naive, signal=found.signal, num_classes=0).view(0, ("loss", "shadow_in", "shadow_out")).shadow_member_MN.sum(0)
    assert (count[naive.member_MN[0]] == 3).all() and (count[~naive.member_MN[0]] == 4).all()  # what would have been leaked
    aucs = [mia_jax.audit(fixed_counts(seed=s), attacks=dict(lira=dict(signal="loss")), **QUICK).value("lira", "auc") for s in range(8)]
    assert abs(np.mean(aucs) - 0.5) < 4 * np.std(aucs, ddof=1) / np.sqrt(8)


def test_views_columns_population_and_scores():
    rng = np.random.default_rng(0)
    member = rng.random(100) < 0.5
    found = mia_jax.audit(
        score=rng.normal(size=(3, 100)) + 4 * member,
        member=member,
        column_age=rng.integers(0, 3, 100),
        population_score=rng.normal(size=(3, 20)),
        **QUICK,
    )
    assert found.value("threshold_score", "auc") > 0.95 and found.report["design"]["population_rows"] == 20
    assert found.report["about"]["views"] == ["view 0", "view 1", "view 2"] and found.report["design"]["evaluated_rows"] == 100


def test_regression_and_several_labels():
    rng = np.random.default_rng(0)
    member, y = rng.random(200) < 0.5, rng.normal(size=200)
    found = mia_jax.audit(predictions=y + rng.normal(size=200) * np.where(member, 0.1, 1.0), labels=y, member=member, **QUICK)
    assert found.value("threshold_loss", "auc") > 0.85
    several, logits = (rng.random((200, 5)) < 0.3).astype(int), rng.normal(size=(200, 5))
    logits += np.where(member[:, None], 3.0, 0.5) * (2 * several - 1)
    built = brought.build(dict(logits=logits, labels=several, member=member))
    naive = -(several * np.log(1 / (1 + np.exp(-logits))) + (1 - several) * np.log(1 - 1 / (1 + np.exp(-logits)))).sum(1)
    np.testing.assert_allclose(built.signal["loss"][0, 0], naive, rtol=1e-5)


def test_results_are_saved_and_loaded_whole(tmp_path):
    found = mia_jax.audit(arrays(), figures=True, **QUICK)
    found.save(tmp_path / "a")
    again = mia_jax.Results.load(tmp_path / "a")
    assert again.report == found.report and again.markdown == found.markdown and again.pictures == found.pictures
    assert all(np.array_equal(found.scores[n]["score_TN"], again.scores[n]["score_TN"], equal_nan=True) for n in found.scores)
    assert len(again.plot(tmp_path / "p")) >= 2 and "lira [all]" in again.summary()
    with pytest.raises(ValueError, match="holds an audit already"):
        found.save(tmp_path / "a")
    with pytest.raises(KeyError, match="attacks: gap"):
        found.value("lyra", "auc")


def test_the_official_layout_is_read(tmp_path):
    one = arrays(pairs=False)
    for m in range(8):
        folder = tmp_path / f"experiment-{m}_8" / "logits"
        folder.mkdir(parents=True)
        np.save(folder.parent / "keep.npy", one["shadow_member"][m])
        np.save(folder / "0000000100.npy", np.stack([one["shadow_logits"][m]] * 2, 1)[:, None])
    with pytest.raises(FileNotFoundError, match=r"y_train\.npy"):
        brought.load(tmp_path)
    np.save(tmp_path / "y_train.npy", one["labels"])
    found = brought.build(brought.load(tmp_path))
    assert found.signal["loss"].shape == (8, 2, 120)
    np.testing.assert_array_equal(found.design.member_MN, one["shadow_member"])
    np.save(tmp_path / "experiment-0_8" / "logits" / "0000000200.npy", np.zeros((120, 4)))
    assert brought.load(tmp_path)["shadow_logits"].shape == (8, 2, 120, 4)  # still one common step


BAD = [
    (dict(member=np.zeros(5)), "none of score, loss, probs"),
    (dict(loss=np.zeros(5)), r"member \[5\] is missing"),
    (dict(loss=np.zeros(5), member=np.zeros(4)), r"loss has shape \(5,\)|member has shape \(4,\)"),
    (dict(loss=np.zeros(5), member=np.full(5, 2)), "must hold 0 and 1 only"),
    (dict(loss=np.full(5, np.nan), member=np.arange(5) % 2), "loss has 5 of 5 values that are NaN"),
    (dict(loss=np.zeros(5), member=np.ones(5)), "5 members and 0 non-members"),
    (dict(logits=np.zeros((5, 3)), member=np.arange(5) % 2), r"labels \[N\] is missing"),
    (dict(logits=np.zeros((5, 3)), labels=np.arange(5), member=np.arange(5) % 2), r"label 3 of example 3 lies outside 0\.\.2"),
    (dict(logits=np.zeros((5, 3)), labels=np.arange(5) / 2, member=np.arange(5) % 2), "labels must be class numbers"),
    (dict(probs=np.zeros((5, 3)), labels=np.arange(5) % 3, member=np.arange(5) % 2), "must lie in .* sum to 1"),
    (dict(logits=np.zeros((2, 2, 2, 5, 3)), labels=np.arange(5) % 3, member=np.arange(5) % 2), r"expected \[A \(optional\), N, C\]"),
    (
        dict(loss=np.zeros(5), shadow_probs=np.ones((2, 5, 1)), labels=np.zeros(5, int), member=np.arange(5) % 2, shadow_member=np.eye(2, 5)),
        "the same forms",
    ),
    (dict(loss=np.zeros(5), shadow_loss=np.zeros((3, 5)), member=np.arange(5) % 2, shadow_member=np.eye(2, 5)), "expected M=2, N=5"),
    (dict(los=np.zeros(5), member=np.arange(5) % 2), "unknown key 'los'"),
    (dict(loss=np.zeros(5), member=np.arange(5) % 2, population_loss=np.zeros(2), labels=np.zeros(5)), "population_labels is missing"),
]


@pytest.mark.parametrize("given, message", BAD, ids=lambda v: v[:24] if isinstance(v, str) else "")
def test_bad_arrays_name_the_key_and_both_shapes(given, message):
    with pytest.raises(ValueError, match=message):
        mia_jax.audit(given, **QUICK)


def test_constant_scores_are_an_honest_half():
    member = np.arange(40) % 2 == 0
    found = mia_jax.audit(loss=np.ones(40), member=member, **QUICK)
    assert found.value("threshold_loss", "auc") == 0.5 and found.value("threshold_loss", "tpr@0.1") == 0


def test_your_target_beside_our_shadows(tmp_path):
    """A published target: its answers and members in a file, the shadows trained here on the same rows."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(120, 8)).astype(np.float32), rng.integers(0, 3, 120)
    np.savez(tmp_path / "data.npz", x=x, y=y)
    member = rng.random(120) < 0.5
    np.savez(tmp_path / "target.npz", logits=rng.normal(size=(120, 3)) + 9 * member[:, None] * np.eye(3)[y], member=member)
    config = configuration.complete(
        data=dict(name="npz", path=str(tmp_path / "data.npz")),
        design=dict(name="halves", models=8, population=0.0),
        model=dict(name="mlp", widths=(32,)),
        learner=dict(epochs=10),
        attacks=dict(gap=dict(), threshold_loss=dict(name="threshold"), lira=dict(), lira_offline=dict(name="lira", mode="offline")),
        target=dict(signals=str(tmp_path / "target.npz")),
        report=dict(draws=40, figures=False),
    )
    report = experiment.run(config, workdir_path=tmp_path / "w")
    assert report["design"]["targets"] == [8] and report["design"]["shadows_min"] == 8 and len(report["models"]) == 9
    value = {r["attack"]: r["value"] for r in report["results"] if r["metric"] == "auc" and r["target"] is None}
    assert value["threshold_loss"] > 0.95 and value["lira_offline"] > 0.7
    assert not (tmp_path / "w" / "train" / "model" / "00008.npz").exists()
    np.savez(tmp_path / "target.npz", logits=np.zeros((119, 3)), member=member[:119], labels=y[:119])
    with pytest.raises(ValueError, match="119 examples and the data 120"):
        experiment.run(config, workdir_path=tmp_path / "v")


def test_a_model_of_your_own(tmp_path, monkeypatch):
    (tmp_path / "my_pkg").mkdir()
    (tmp_path / "my_pkg" / "__init__.py").write_text("")
    (tmp_path / "my_pkg" / "my_model.py").write_text(
        "from tests import toys\n\n\ndef make(*, num_classes, width=8):\n    return toys.mlp(num_classes, width)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    common = dict(
        data=dict(name="synthetic", examples=60),
        design=dict(name="halves", models=4),
        learner=dict(epochs=2),
        attacks=dict(gap=dict()),
        report=dict(draws=40, figures=False),
    )
    config = configuration.complete(model=dict(path="my_pkg.my_model", width=5), **common)
    report = experiment.run(config, workdir_path=tmp_path / "w")
    assert report["about"]["model"] == dict(name="my_pkg.my_model", width=5)
    with pytest.raises(ValueError, match=r"no module 'my_pkg\.other'"):
        configuration.complete(model=dict(path="my_pkg.other"), **common)
