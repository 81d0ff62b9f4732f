"""scikit-learn's estimators, and XGBoost's and LightGBM's, as functions and as recipes."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Perceptron
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from mia_jax.external import frameworks
from mia_jax.external.frameworks import sklearn_

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = np.array(["cat", "dog", "eel"])[RNG.integers(0, 3, 60)]


def test_predict_proba_comes_first_and_says_which_column_is_which_class():
    forest = RandomForestClassifier(n_estimators=3, random_state=0).fit(X, Y)
    model = frameworks.predictor(forest, batch_size=7)
    assert model.form == "probs" and model.classes.tolist() == ["cat", "dog", "eel"]
    assert np.array_equal(model.answer(X), forest.predict_proba(X))
    assert model.words == "scikit-learn RandomForestClassifier (predict_proba)"


@pytest.mark.parametrize("classes, shape", [(3, (60, 3)), (2, (60,))])
def test_a_decision_function_gives_logits(classes, shape):
    model = frameworks.predictor(LinearSVC().fit(X, Y == "cat" if classes == 2 else Y))
    assert model.form == "logits" and model.answer(X).shape == shape
    assert len(model.classes) == classes


def test_a_regressor_gives_predictions():
    regression = LinearRegression().fit(X, X[:, 0])
    model = frameworks.predictor(regression)
    assert (model.form, model.classes) == ("predictions", None)
    assert np.allclose(model.answer(X), X[:, 0])


def test_pipelines_and_searches_are_estimators():
    pipeline = make_pipeline(StandardScaler(), GaussianNB())
    model = frameworks.predictor(pipeline.fit(X, Y))
    assert model.words == ("scikit-learn Pipeline of StandardScaler, GaussianNB (predict_proba)")
    search = GridSearchCV(LogisticRegression(), dict(C=[0.1, 1.0]), cv=2).fit(X, Y)
    assert frameworks.predictor(search).form == "probs"


def test_several_labels_per_row_give_the_probability_of_each():
    labels = (X[:, :2] > 0).astype(int)
    forest = RandomForestClassifier(n_estimators=3, random_state=0).fit(X, labels)
    model = frameworks.predictor(forest)
    expected = np.stack([p[:, 1] for p in forest.predict_proba(X)], -1)
    assert model.classes is None and np.array_equal(model.answer(X), expected)


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_gradient_boosting_has_the_same_interface(name):
    module = pytest.importorskip(name, reason=f"pip install {name}")
    quiet = dict(verbose=-1) if name == "lightgbm" else {}
    kind = module.LGBMClassifier if name == "lightgbm" else module.XGBClassifier
    code = np.unique(Y, return_inverse=True)[1]
    fit = frameworks.trainer(kind(n_estimators=2, n_jobs=1, **quiet))
    fitted = fit(X, code, 7)
    assert fitted.get_params()["random_state"] == 7
    model = frameworks.predictor(fitted)
    assert model.form == "probs" and model.classes.tolist() == [0, 1, 2]
    assert np.allclose(model.answer(X).sum(-1), 1, atol=1e-5)
    assert model.words.startswith({"xgboost": "XGBoost XGB", "lightgbm": "LightGBM LGBM"}[name])


def test_a_recipe_clones_and_sets_every_random_state():
    pipeline = make_pipeline(StandardScaler(), RandomForestClassifier(n_estimators=2))
    fit = frameworks.trainer(pipeline)
    first, second, other = (fit(X, Y, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.predict_proba(X), second.predict_proba(X))
    assert not np.array_equal(first.predict_proba(X), other.predict_proba(X))
    assert not hasattr(pipeline[-1], "classes_") and pipeline[-1].random_state is None


@pytest.mark.parametrize(
    "model, message",
    [
        (RandomForestClassifier(), "RandomForestClassifier, which is not fitted; fit it first"),
        (SVC(decision_function_shape="ovo").fit(X, Y), "decision_function_shape='ovo', one number"),
        (IsolationForest(n_estimators=2).fit(X), "which is no classifier and no regressor"),
    ],
    ids=["unfitted", "one against one", "outliers"],
)
def test_what_cannot_be_asked_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        frameworks.predictor(model)


def test_a_classifier_without_scores_is_refused():
    class Labels(NearestCentroid):
        predict_proba = decision_function = property()

    with pytest.raises(ValueError, match="Labels, which returns labels alone; wrap it"):
        frameworks.predictor(Labels().fit(X, Y))


def test_a_device_has_no_meaning():
    with pytest.raises(ValueError, match="device='cuda' has no meaning for scikit-learn Perceptr"):
        frameworks.predictor(Perceptron().fit(X, Y), device="cuda")


def test_it_is_asked_without_an_import_of_scikit_learn():
    code = (
        "import sys\nfrom mia_jax.external import frameworks\n"
        "frameworks.adapter(len)\n"
        "assert not {'sklearn', 'torch', 'keras', 'flax'} & set(sys.modules), 'loaded'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_class_is_no_estimator():
    assert not sklearn_.takes(RandomForestClassifier) and sklearn_.takes(RandomForestClassifier())
