"""Tests model selection with scikit-learn: what leaks is seen, what does not is not, and every
number is that of mia_jax.audit.
"""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, Perceptron
from sklearn.model_selection import GridSearchCV, ParameterSampler, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

import mia_jax
from mia_jax.external import splits
from mia_jax.sklearn import Halves, audit_search, cross_validate, search

QUICK = dict(attacks="gap,threshold_loss", draws=40)


def rows(count=200, seed=0, signal=1.0):
    """Returns x [N,5] and labels, of which the first feature tells something."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 5))
    return x, (signal * x[:, 0] + rng.normal(size=count) > 0).astype(int)


class Blind(ClassifierMixin, BaseEstimator):
    """Answers by the second feature, whatever it was trained on."""

    def fit(self, x, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, x):
        p = 1 / (1 + np.exp(-x[:, 1]))
        return np.stack([1 - p, p], 1)

    def predict(self, x):
        return self.classes_[(x[:, 1] > 0).astype(int)]


class Broken(Blind):
    """Fails if `fails` is set."""

    def __init__(self, fails=False):
        self.fails = fails

    def fit(self, x, y):
        if self.fails:
            raise RuntimeError("no such kernel")
        return super().fit(x, y)


@pytest.fixture(scope="module")
def trees():
    x, y = rows()
    return search(DecisionTreeClassifier(), dict(max_depth=[2, None]), x, y, **QUICK)


def test_what_overfits_leaks_and_a_constant_does_not():
    x, y = rows(signal=0.0)
    leaky = cross_validate(KNeighborsClassifier(1), x, y, **QUICK).rows[0]
    constant = cross_validate(DummyClassifier(strategy="uniform"), x, y, **QUICK).rows[0]
    assert leaky["leak"] == "shown" and leaky["strongest"]["auc"]["low"] > 0.6
    assert leaky["gap_low"] > 0.3
    assert constant["leak"] != "shown"


@pytest.mark.parametrize("cv", [pytest.param(5, marks=pytest.mark.slow), Halves(6)], ids=str)
def test_a_model_that_ignores_its_rows_has_intervals_that_hold_one_half(cv):
    for seed in range(3):
        x, y = rows(120, seed=seed)
        made = cross_validate(Blind(), x, y, cv=cv, seed=seed, **QUICK)
        ends = made.rows[0]["attacks"]["threshold_loss"]["auc"]
        assert ends["low"] <= 0.5 <= ends["high"] and made.rows[0]["leak"] == "none"


@pytest.mark.slow
def test_folds_are_attacked_by_the_answers_alone_and_halves_by_shadow_models():
    x, y = rows(120)
    folds = cross_validate(Blind(), x, y, draws=40)
    halves = cross_validate(Blind(), x, y, cv=Halves(4), draws=40)
    assert not {"lira", "rmia"} & set(folds.rows[0]["attacks"])
    assert {"lira", "rmia"} <= set(halves.rows[0]["attacks"])
    assert any("cv=Halves" in note for note in folds.notes)


def test_every_number_is_that_of_an_audit_of_the_same_arrays(trees):
    """The models are fitted here by hand on the same folds, with the seeds that the folder's
    recipe derives.
    """
    from mia_jax.external import fleet, labels

    x, y = rows()
    made = splits.read(5, x, y, labels.read(y), classifier=True, seed=0)
    seeds = fleet.model_seeds(0, 5)
    fitted = [
        DecisionTreeClassifier(random_state=s).fit(x[m], y[m])
        for m, s in zip(made.member_MN, seeds, strict=True)
    ]
    answers = np.stack([model.predict_proba(x) for model in fitted])
    audit = mia_jax.audit(
        shadow_probs=answers, shadow_member=made.member_MN, labels=y, x=x, **QUICK
    )
    there = trees.results[1]
    assert [r["value"] for r in there.table] == [r["value"] for r in audit.table]
    assert [r["low"] for r in there.table] == [r["low"] for r in audit.table]
    score_M = [f.score(x[t], y[t]) for f, t in zip(fitted, made.test_MN, strict=True)]
    assert trees.rows[1]["score"] == pytest.approx(np.mean(score_M))


def test_halves_are_those_of_the_audit_of_a_recipe():
    x, y = rows(120)
    tree = DecisionTreeClassifier(max_depth=3)
    quick = dict(attacks="lira,threshold_loss", draws=40, seed=2)
    made = cross_validate(tree, x, y, cv=Halves(6, seed=2), **quick).results[0]
    audit = mia_jax.audit(fit=tree, x=x, y=y, models=6, **quick)
    assert [r["value"] for r in made.table] == [r["value"] for r in audit.table]


def test_the_same_seed_gives_the_same_selection_and_another_one_other_folds(trees):
    x, y = rows()
    again = search(DecisionTreeClassifier(), dict(max_depth=[2, None]), x, y, **QUICK)
    other = cross_validate(DecisionTreeClassifier(), x, y, seed=1, **QUICK)
    assert again.rows == trees.rows
    assert other.rows[0]["score"] != trees.rows[1]["score"]


def test_a_selection_ranks_compares_and_shows(trees):
    shallow, deep = trees.rows
    assert deep["strongest"]["auc"]["low"] > shallow["strongest"]["auc"]["high"]
    assert shallow["pareto"] and trees.best() is max(trees.rows, key=lambda r: r["score"])
    assert trees.best(0.7, metric="auc")["params"] == dict(max_depth=2)
    assert trees.best({"auc": 0.7})["setting"] == 0
    score, *leaks = trees.compare(1, 0)
    assert score["metric"] == "accuracy" and score["paired"]
    assert score["difference"] == pytest.approx(deep["score"] - shallow["score"])
    assert next(r for r in leaks if r["metric"] == "auc")["low"] > 0
    text = repr(trees)
    assert text.startswith("LEAK SHOWN for") and "Pareto front of accuracy and AUC" in text
    assert "max_depth" in text and "<table>" in trees._repr_html_()
    assert {r["setting"] for r in trees.attacks()} == {0, 1}
    assert len(trees.pareto()) == sum(r["pareto"] for r in trees.rows)
    assert trees.plot().axes[0].get_ylabel() == "accuracy"


def test_a_setting_that_is_worse_by_much_is_separated_and_an_equal_one_is_not():
    x, y = rows(300, signal=2.0)
    grid = dict(n_neighbors=[1, 25, 27])
    made = search(KNeighborsClassifier(), grid, x, y, **QUICK)
    assert made.rows[0]["dominated_by"] in (1, 2) and made.rows[0]["separated"]
    table = {row["param_n_neighbors"]: row["pareto"] for row in made.table()}
    assert table[1] == "no" and "yes" in (table[25], table[27])
    assert {table[25], table[27]} <= {"yes", "not separated"}


def test_to_frame_has_a_row_per_setting(trees):
    pytest.importorskip("pandas", reason="pip install pandas")
    frame = trees.to_frame()
    assert list(frame["setting"]) == [0, 1] and {"param_max_depth", "auc_low"} <= set(frame)


def test_no_setting_within_the_limit_is_a_sentence(trees):
    with pytest.raises(
        ValueError, match=r"no setting is within auc <= 0.01\. The lowest upper end"
    ):
        trees.best(0.01, metric="auc")
    with pytest.raises(ValueError, match="metric='acu' is not one of"):
        trees.best(0.5, metric="acu")


@pytest.mark.slow
def test_a_finished_search_is_audited_on_its_splits():
    x, y = rows()
    steps = make_pipeline(StandardScaler(), LogisticRegression())
    grid = dict(logisticregression__C=[0.01, 1.0, 100.0])
    finished = GridSearchCV(steps, grid, cv=StratifiedKFold(4)).fit(x, y)
    made = audit_search(finished, x, y, **QUICK)
    scores = [row["score"] for row in made.rows]
    assert scores == pytest.approx(finished.cv_results_["mean_test_score"].tolist(), abs=1e-12)
    best = audit_search(finished, x, y, top=1, **QUICK)
    assert best.rows[0]["params"] == finished.best_params_
    assert any("differ from those of the search by up to" in note for note in made.notes)


def test_halves_are_a_splitter_for_a_search_of_scikit_learn():
    x, y = rows()
    grid = dict(max_depth=[1, 2])
    finished = GridSearchCV(DecisionTreeClassifier(), grid, cv=Halves(4)).fit(x, y)
    assert finished.n_splits_ == 4


def test_a_folder_continues_with_a_larger_grid(tmp_path):
    x, y = rows(60)
    quick = dict(QUICK, folder=tmp_path, cv=2)
    first = search(KNeighborsClassifier(), dict(n_neighbors=[1]), x, y, **quick)
    more = search(KNeighborsClassifier(), dict(n_neighbors=[1, 5]), x, y, **quick)
    assert more.rows[0]["strongest"] == first.rows[0]["strongest"]
    assert any("answers of 2 of the 2 models are of an earlier call" in n for n in more.notes)
    with pytest.raises(ValueError, match="belongs to another config"):
        search(KNeighborsClassifier(), dict(n_neighbors=[1]), x, 1 - y, **quick)


def test_a_failing_setting_names_itself_and_keeps_what_was_fitted():
    x, y = rows(60)
    with pytest.raises(ValueError, match=r"setting 1 \(fails=True\): .*no such kernel") as caught:
        search(Broken(), dict(fails=[False, True]), x, y, cv=2, **QUICK)
    folder = str(caught.value).split("folder='")[1].split("'")[0]
    made = search(Broken(), dict(fails=[False]), x, y, cv=2, folder=folder, **QUICK)
    assert any("of an earlier call" in note for note in made.notes)


def test_regressors_and_decision_functions_are_audited():
    x, y = rows(100)
    value = x[:, 0] + np.random.default_rng(1).normal(size=100)
    grid = [dict(n_neighbors=[1, 20])]
    made = search(KNeighborsRegressor(), grid, x, value, attacks="threshold_loss", draws=40)
    assert made.score_name == "R2" and made.rows[0]["strongest"]["auc"]["low"] > 0.8
    vector = cross_validate(LinearSVC(), x, np.where(y, "yes", "no"), cv=2, **QUICK)
    assert "decision_function" in " ".join(vector.notes)
    assert cross_validate(Perceptron(), x, y, cv=2, scoring="roc_auc", **QUICK).score_name


def test_a_sampler_is_a_grid_and_equal_settings_are_fitted_once():
    x, y = rows(60)
    sampler = ParameterSampler(dict(max_depth=[2, 3]), n_iter=1, random_state=0)
    assert len(search(DecisionTreeClassifier(), sampler, x, y, cv=2, **QUICK).rows) == 1
    twice = search(DecisionTreeClassifier(), dict(max_depth=[2, 2]), x, y, cv=2, **QUICK)
    assert len(twice.rows) == 1


@pytest.mark.parametrize(
    "changed, sentence",
    [
        (dict(grid=dict(depth=[1])), "grid: Invalid parameter 'depth' for estimator"),
        (dict(grid=dict(max_depth=3)), "grid cannot be read: .*Pass {parameter:"),
        (dict(grid=[]), "grid has no settings"),
        (dict(estimator=DecisionTreeClassifier), "estimator is the class DecisionTreeClassifier"),
        (dict(estimator=len), "must have fit, get_params and set_params"),
        (dict(estimator=StandardScaler()), "no classifier and no regressor"),
        (dict(scoring="acc"), "scoring: .*'acc'"),
        (dict(scoring=["accuracy"]), "must be one scorer"),
        (dict(cv=1), "cv=1 must be at least 2 folds"),
        (dict(y=np.r_[np.zeros(58), 1, 1].astype(int)), "y has 2 rows of the label 1 and cv=5"),
        (dict(y=np.zeros(9)), "y has 9 labels and x 60 rows"),
        (dict(seed=0.5), "seed=0.5 must be a whole number"),
        (dict(n_jobs=0), "n_jobs=0"),
        (dict(attacks="lyra"), "there is no attack 'lyra'"),
    ],
)
def test_bad_input_is_a_sentence(changed, sentence):
    x, y = rows(60)
    good = dict(estimator=DecisionTreeClassifier(), grid=dict(max_depth=[1]), x=x, y=y)
    with pytest.raises(ValueError, match=sentence):
        search(**good | QUICK | changed)


def test_a_search_that_is_not_fitted_is_a_sentence():
    x, y = rows(60)
    unfitted = GridSearchCV(DecisionTreeClassifier(), dict(max_depth=[1]))
    with pytest.raises(ValueError, match="must be a fitted GridSearchCV"):
        audit_search(unfitted, x, y)


def test_a_classifier_that_returns_labels_alone_is_refused_before_it_is_fitted():
    class Labels(ClassifierMixin, BaseEstimator):
        def fit(self, x, y):
            raise AssertionError("fitted")

        def predict(self, x):
            return np.zeros(len(x))

    x, y = rows(60)
    with pytest.raises(ValueError, match="neither predict_proba nor decision_function"):
        cross_validate(Labels(), x, y)
