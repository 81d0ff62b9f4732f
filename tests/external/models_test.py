"""A user's models as arrays: three forms of audits, and what is refused in a sentence."""

import resource
import subprocess
import sys

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

import mia_jax
from mia_jax.external import models
from mia_jax.external.models import Subject
from tests.answered import QUICK

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y = (X[:, 0] + RNG.normal(size=60) > 0).astype(int)
MEMBER = np.arange(60) % 2 == 0
WORDS = np.array(["no", "yes"])


def predict(x):
    """Logits of a model that every row's answer shows."""
    z = np.asarray(x)[:, 0]
    return np.stack([-z, z], 1)


def made(*, seed=0, **subject):
    return models.arrays_of(Subject(**subject), seed=seed)


def same(results, others):
    """All rows of two tables agree to 1e-6."""
    assert [r["attack"] for r in results.table] == [r["attack"] for r in others.table]
    for row, other in zip(results.table, others.table, strict=True):
        assert (row["metric"], row["slice"]) == (other["metric"], other["slice"])
        for key in ("value", "low", "high"):
            a, b = row.get(key), other.get(key)
            assert (a is None) == (b is None) and (a is None or abs(a - b) <= 1e-6), (row, other)


def test_an_audit_of_a_model_is_the_audit_of_its_exported_arrays():
    forest = RandomForestClassifier(n_estimators=5, random_state=0).fit(X[MEMBER], Y[MEMBER])
    results = mia_jax.audit(predict=forest, x=X, y=Y, member=MEMBER, slices="class", **QUICK)
    exported = dict(probs=forest.predict_proba(X), labels=Y, member=MEMBER, x=X)
    same(results, mia_jax.audit(exported, slices="class", **QUICK))
    (target, *_) = results.report["about"]["said"]
    assert target == "The target is scikit-learn RandomForestClassifier (predict_proba)."
    (left,) = [note for note in results.report["about"]["said"] if note.startswith("Not run")]
    assert "no shadow models: pass fit=..., which trains them" in left and "<key>" not in left


def test_an_audit_with_shadow_models_is_the_audit_of_their_exported_arrays(tmp_path):
    tree = DecisionTreeClassifier(max_depth=3, random_state=0).fit(X[MEMBER], WORDS[Y[MEMBER]])
    subject = dict(predict=tree, x=X, y=WORDS[Y], member=MEMBER, fit=tree, shadows=6)
    chosen = dict(attacks="lira, threshold_loss", **QUICK)
    results = mia_jax.audit(**subject, **chosen, folder=tmp_path)
    arrays, notes = models.arrays_of(Subject(**subject), folder=tmp_path)
    assert sorted(arrays) == [
        "class_names", "labels", "member", "population", "probs", "shadow_member", "shadow_probs",
        "x",
    ]  # fmt: skip
    assert arrays["class_names"].tolist() == sorted(WORDS)
    assert arrays["labels"].tolist() == Y.tolist() and arrays["population"].sum() == 6
    assert not (arrays["population"] & MEMBER).any()
    assert arrays["shadow_probs"].shape == (6, 60, 2)
    same(results, mia_jax.audit(arrays, **chosen))
    assert "The answers of 6 of the 6 models are of an earlier call." in notes


def test_a_recipe_makes_every_model_a_target():
    svm = LinearSVC(C=10.0)
    results = mia_jax.audit(fit=svm, x=X, y=Y, models=4, attacks="lira, gap", **QUICK)
    assert results.scores["lira"]["score_TN"].shape == (4, 60)
    notes = results.report["about"]["said"]
    assert any(
        note.startswith("fit trained 4 models (scikit-learn LinearSVC (decision_function)) on 27")
        for note in notes
    )
    arrays = models.arrays_of(Subject(fit=svm, x=X, y=Y, models=4)).arrays
    assert "member" not in arrays and arrays["shadow_logits"].shape == (4, 60, 2)
    assert (arrays["shadow_logits"][..., 0] == 0).all()  # the logit of two classes


def test_a_recipe_that_learns_nothing_is_no_sign_of_wrong_labels():
    """Its models were trained on these labels; of one that was only asked here nobody knows."""
    constant, y = DummyClassifier(strategy="prior"), np.arange(60) % 3
    recipe = mia_jax.audit(fit=constant, x=X, y=y, models=8, attacks="gap", **QUICK)
    check = recipe.report["validity"]["label_agreement"]
    assert check["status"] == "ok" and "trained on these labels" in check["text"]
    fitted = constant.fit(X[MEMBER], y[MEMBER])
    alone = mia_jax.audit(predict=fitted, x=X, y=y, member=MEMBER, attacks="gap", **QUICK)
    assert alone.report["validity"]["label_agreement"]["status"] != "ok"


def test_labels_of_any_kind_become_class_numbers():
    nb = make_pipeline(CountVectorizer(), MultinomialNB())
    texts = ["good film", "bad film", "good play", "bad play"] * 5
    y = ["pos", "neg"] * 10
    nb.fit(texts, y)
    arrays, notes = made(predict=nb, x=texts, y=y, member=np.arange(20) < 10)
    assert arrays["labels"].tolist() == [1, 0] * 10 and "x" not in arrays
    assert "scikit-learn Pipeline of CountVectorizer, MultinomialNB" in notes[0]
    arrays, notes = made(predict=predict, x=X, y=np.eye(2)[Y], member=MEMBER)
    assert arrays["labels"].tolist() == Y.tolist() and "one-hot rows [N,2]" in notes[0]
    arrays, notes = made(predict=predict, x=X, y=2 * Y - 1, member=MEMBER)
    assert arrays["labels"].tolist() == Y.tolist()
    assert "Labels -1, 1 are columns 0 to 1 of the answers, in sorted order." in notes
    arrays, notes = made(predict=predict, x=X, y=Y == 1, member=MEMBER)
    assert any("False, True are columns 0 and 1" in note for note in notes)


def test_a_label_that_the_target_does_not_know_is_said():
    tree = DecisionTreeClassifier(random_state=0).fit(X[MEMBER], WORDS[Y[MEMBER]])
    y = np.where(np.arange(60) == 7, "maybe", WORDS[Y])
    arrays, notes = made(predict=tree, x=X, y=y, member=MEMBER)
    assert arrays["labels"][7] == 2 and (arrays["probs"][:, 2] == 0).all()
    assert "1 of 1 models do not know label 'maybe', of which they had no row" in notes[-1]


def test_several_labels_per_row_are_audited_by_their_loss():
    y = (X[:, :3] > 0).astype(int)
    forest = RandomForestClassifier(n_estimators=3, random_state=0).fit(X[MEMBER], y[MEMBER])
    arrays, _ = made(predict=forest, x=X, y=y, member=MEMBER, fit=forest, shadows=2)
    assert arrays["probs"].shape == (60, 3) and np.array_equal(arrays["labels"], y)
    results = mia_jax.audit(arrays, attacks="threshold_loss", **QUICK)
    assert 0 < results.value("threshold_loss", "auc") < 1


def test_the_rows_that_are_kept_aside_are_few_of_the_non_members():
    few = np.arange(60) >= 10  # ten non-members
    arrays, _ = made(predict=predict, x=X, y=Y, member=few, fit=lambda x, y, s: predict, shadows=2)
    assert arrays["population"].sum() == 2 and not (arrays["population"] & few).any()
    assert not arrays["shadow_member"][:, arrays["population"]].any()
    given = np.arange(60) < 5
    arrays, notes = made(fit=lambda x, y, s: predict, x=X, y=Y, models=2, population=given)
    assert np.array_equal(arrays["population"], given)
    assert notes[0].startswith("5 of 60 rows are kept aside (population=): attacks compare")
    with pytest.raises(ValueError, match=r"population=0\.6 must be at most 0\.5"):
        made(fit=lambda x, y, s: predict, x=X, y=Y, models=2, population=0.6)


def test_a_framework_that_is_named_is_that_of_the_models_not_of_fit():
    def fit(x, y, seed):
        return LogisticRegression().fit(x, y)

    arrays, _ = made(fit=fit, x=X, y=Y, models=2, framework="sklearn")
    assert arrays["shadow_probs"].shape == (2, 60, 2)


def test_a_regression_is_audited_by_its_predictions():
    y = X[:, 0] + X[:, 1]
    ridge = Ridge().fit(X[MEMBER], y[MEMBER])
    arrays, _ = made(predict=ridge, x=X, y=y, member=MEMBER)
    assert np.allclose(arrays["predictions"], ridge.predict(X)) and np.allclose(arrays["labels"], y)
    results = mia_jax.audit(predict=ridge, x=X, y=y, member=MEMBER, fit=ridge, shadows=4, **QUICK)
    assert "lira" in results.scores


def test_frames_are_read_by_position_and_columns_slice_them():
    pandas = pytest.importorskip("pandas", reason="pip install pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"), index=np.arange(100, 160))
    series = pandas.Series(WORDS[Y], index=frame.index)
    regression = LogisticRegression().fit(frame[MEMBER], series[MEMBER])
    asked = dict(predict=regression, x=frame, y=series, member=pandas.Series(MEMBER))
    subject = Subject(**asked, fit=regression, shadows=2)
    arrays, _ = models.arrays_of(subject, further=dict(column_old=MEMBER))
    assert np.allclose(arrays["probs"], regression.predict_proba(frame))
    assert np.allclose(arrays["x"], X) and arrays["column_old"] is MEMBER


def test_a_half_that_lacks_a_class_gives_it_probability_0():
    y = np.where(np.arange(60) == 7, 2, Y)  # one row of class 2: one of each pair lacks it
    tree = DecisionTreeClassifier(random_state=0)
    arrays, notes = made(fit=tree, x=X, y=y, models=4, population=0.0)
    assert (
        "2 of 4 models do not know label 2, of which they had no row: its probability is 0."
    ) in notes
    lacks_M = ~arrays["shadow_member"][:, 7]
    assert lacks_M.sum() == 2
    assert (arrays["shadow_probs"][lacks_M][..., 2] == 0).all()
    assert arrays["shadow_probs"][~lacks_M][:, 7, 2].tolist() == [1.0, 1.0]
    with pytest.raises(
        ValueError, match=r"gives no logit for the label 2: no row of it was in its"
    ):
        made(fit=LinearSVC(), x=X, y=y, models=4, population=0.0)


REFUSED = {
    "no x": (dict(x=None), "x=... is missing; pass the rows"),
    "no y": (dict(y=None), "y=... is missing; pass the label"),
    "no member": (dict(member=None), "member=... is missing; pass True for every row"),
    "short member": (dict(member=MEMBER[:50]), r"member has shape \(50,\) and x 60 rows"),
    "row numbers": (dict(member=np.arange(30)), r"np\.isin\(np\.arange\(60\), member\)"),
    "all members": (dict(member=np.ones(60)), "all of the 60 rows are members.*was not trained on"),
    "no members": (dict(member=np.zeros(60)), "none of the 60 rows are members.*was trained on"),
    "words": (dict(member=["in", "out"] * 30), "member must hold True and False"),
    "one row": (dict(x=X[:1], y=Y[:1], member=[True]), "x has 1 row; an audit compares members"),
    "short y": (dict(y=Y[:50]), "y has 50 labels and x 60 rows; they must be the same rows"),
    "labels": (dict(predict=lambda x: Y[: len(x)]), r"predict returns labels \(0, 1\)"),
    "rows": (dict(predict=lambda x: predict(x)[:9]), r"shape \(9, 2\) for 60 rows"),
    "nan": (dict(predict=lambda x: predict(x) * np.nan), "NaN or infinite numbers for 60 of 60"),
    "unfitted": (dict(predict=LogisticRegression()), "which is not fitted; fit it first"),
    "no function": (dict(predict="model"), "predict is a str and must be a function"),
    "shadows alone": (dict(shadows=4), "shadows=4 needs fit=..., a function fit"),
    "models": (dict(models=4, fit=Ridge()), "models=4 has no meaning, because there is a predict="),
    "odd": (dict(shadows=5, fit=Ridge()), "shadows=5 must be even"),
    "half a model": (dict(shadows=4.0, fit=Ridge()), "shadows=4.0 must be a whole number"),
    "jobs": (dict(n_jobs=0), "n_jobs=0 must be a whole number of models"),
    "batch": (dict(batch_size=0), "batch_size"),
    "form": (dict(form="prob"), "form='prob' is not one of .*Did you mean 'probs'"),
    "seed": (dict(seed=0.5), "seed=0.5 must be a whole number"),
    "framework": (dict(framework="jax"), "frameworks: there is no 'jax'"),
    "members aside": (dict(population=MEMBER), "population has 30 members of the target"),
    "share": (dict(population=1.5), "population=1.5 must lie in"),
    "large share": (dict(population=0.4), "keeps 24 rows aside, .* of the 30 rows .* at most 0.25"),
    "fit": (dict(fit=3), "fit is a int and must be a function"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_one_sentence(case):
    change, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        made(**dict(predict=predict, x=X, y=Y, member=MEMBER) | change)


def test_a_recipe_has_no_member_and_no_shadows():
    for change, message in (
        (dict(member=MEMBER), "member=... says who was a member of the model in predict="),
        (dict(shadows=4), "shadows=4 has no meaning, because there is no predict=...; use models="),
        (dict(x=X[:3], y=Y[:3]), "x has 3 rows for the models, of which no halves"),
    ):
        with pytest.raises(ValueError, match=message):
            made(**dict(fit=LogisticRegression(), x=X, y=Y) | change)


def test_a_target_and_shadows_must_answer_alike():
    probs = LogisticRegression()
    with pytest.raises(
        ValueError, match="predict gives logits and model 0 gives probs; all models"
    ):
        made(predict=predict, x=X, y=Y, member=MEMBER, fit=probs, shadows=2)


def test_rows_that_predict_changes_are_noticed():
    x = X.copy()

    def normalizes(rows):
        rows *= 1.5
        return predict(rows)

    with pytest.raises(ValueError, match="predict answers differently when the same"):
        made(predict=normalizes, x=x, y=Y, member=MEMBER)


def test_texts_without_a_vectorizer_are_explained():
    texts = ["good film", "bad film"] * 10
    with pytest.raises(ValueError, match=r"fit failed for model 0 .*x holds text: put what turns"):
        made(fit=LogisticRegression(), x=texts, y=[0, 1] * 10, models=2)


def test_models_and_arrays_do_not_mix():
    with pytest.raises(ValueError, match=r"predict=\.\.\. and loss=\.\.\. are both given"):
        mia_jax.audit(predict=predict, x=X, y=Y, member=MEMBER, loss=X[:, 0])
    with pytest.raises(ValueError, match=r"unknown key 'y'\. Did you mean 'labels'"):
        mia_jax.audit(logits=predict(X), y=Y, member=MEMBER)


def recording(calls):
    """fit(x, y, seed) that keeps its seeds."""

    def fit(x, y, seed):
        calls.append(seed)
        return LogisticRegression().fit(x, y)

    return fit


def test_attacks_and_slices_are_checked_before_anything_is_trained():
    calls = []
    for change, message in (
        (dict(attacks="lirra"), "attacks: there is no attack 'lirra'. Did you mean 'lira'"),
        (dict(attacks=["gap", "nothing"]), "there is no attack 'nothing'"),
        (dict(attacks=dict(mine=dict(name="rmja"))), "there is no (attack )?'rmja'"),
        (dict(slices="column:age"), "slices: the data has no column 'age'"),
        (dict(groups=dict(mine=[99])), "mine"),
    ):
        with pytest.raises(ValueError, match=message):
            mia_jax.audit(**dict(fit=recording(calls), x=X, y=Y, models=4) | change)
    assert calls == []


def test_what_was_trained_survives_an_error_of_the_report(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    calls = []
    subject = dict(fit=recording(calls), x=X, y=Y, models=4, attacks="gap", **QUICK)

    def full_disk(*args, **kwargs):
        raise ValueError("The disk is full.")

    with monkeypatch.context() as patch, pytest.raises(ValueError, match=r"full.*kept: folder='"):
        patch.setattr("mia_jax.pipeline.run.run", full_disk)
        mia_jax.audit(**subject)
    (folder,) = (path for path in tmp_path.iterdir() if path.name.startswith("mia_jax-"))
    results = mia_jax.audit(**subject, folder=folder)
    assert len(calls) == 5 and "gap" in results.scores


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_gradient_boosting_is_audited_like_any_estimator(name):
    module = pytest.importorskip(name, reason=f"pip install {name}")
    quiet = dict(verbose=-1, min_child_samples=2) if name == "lightgbm" else {}
    kind = module.LGBMClassifier if name == "lightgbm" else module.XGBClassifier
    boosted = kind(n_estimators=3, n_jobs=1, **quiet)
    fitted = kind(n_estimators=3, n_jobs=1, **quiet).fit(X[MEMBER], Y[MEMBER])
    arrays, notes = made(predict=fitted, x=X, y=Y, member=MEMBER, fit=boosted, shadows=2)
    assert arrays["shadow_probs"].shape == (2, 60, 2)
    assert not any("seed alone" in note for note in notes)


@pytest.mark.slow
def test_a_forest_on_breast_cancer_takes_three_lines_and_under_30_seconds():
    code = (
        "import mia_jax\n"
        "from sklearn.datasets import load_breast_cancer\n"
        "from sklearn.ensemble import RandomForestClassifier\n"
        "x, y = load_breast_cancer(return_X_y=True)\n"
        "results = mia_jax.audit(fit=RandomForestClassifier(), x=x, y=y, models=16)\n"
        "print(results.value('base', 'auc'))\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert float(run.stdout) > 0.6
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 30
