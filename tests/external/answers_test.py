"""What models answer: the form of numbers, their columns, and every refusal in its sentence."""

import numpy as np
import pytest

from mia_jax.external import answers, labels
from mia_jax.external.frameworks import Predictor

Y = labels.read([0, 1, 2, 0, 1, 2])
TWO = labels.read(["no", "yes", "no", "yes", "no", "yes"])
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 3)).astype(np.float32)
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
X = np.arange(6.0)[:, None]


def table(value):
    """A model that knows the answers to the rows of X."""
    value = np.asarray(value)
    return lambda x: value[np.asarray(x)[:, 0].astype(int)]


def ask(value, y=Y, *, form=None, stated=None, classes=None, x=X):
    answer = value if callable(value) else table(value)
    predictor = Predictor(answer, stated, classes, "a model")
    return answers.ask(predictor, x, y, form=form)


@pytest.mark.parametrize(
    "value, y, form, note",
    [
        (PROBS, Y, "probs", "lie in [0, 1] and sum to 1: read as probabilities"),
        (LOGITS, Y, "logits", "do not sum to 1: read as logits"),
        (np.log(PROBS), Y, "logits", "read as logits"),
        (5 + np.abs(LOGITS), Y, "logits", "read as logits"),
        (PROBS[:, 0], TWO, "probs", "the probability of the second of two classes"),
        (PROBS[:, :1], TWO, "probs", "the probability of the second of two classes"),
        (LOGITS[:, 0], TWO, "logits", "the logit of the second of two classes"),
        (LOGITS[:, 0], labels.read(LOGITS[:, 1]), "predictions", "read as predictions"),
        (PROBS, labels.read(PROBS.round() + [[1, 0, 0]] * 6 > 0), "probs", "of each label"),
    ],
    ids=["probs", "logits", "log", "positive", "p", "p column", "z", "real", "several"],
)
def test_the_form_is_read_from_the_values_and_said(value, y, form, note):
    answer = ask(value, y)
    assert answer.form == form and note in answer.notes[0]


def test_one_number_per_row_is_that_of_the_second_class():
    assert np.allclose(ask(PROBS[:, 0], TWO).value, np.stack([1 - PROBS[:, 0], PROBS[:, 0]], 1))
    assert np.array_equal(ask(LOGITS[:, 0], TWO).value[:, 0], np.zeros(6))


def test_a_form_that_is_stated_is_not_read():
    assert ask(PROBS, form="logits").form == "logits" and ask(PROBS, form="logits").notes == ()
    one_hot = np.eye(3)[[0, 1, 2, 0, 1, 1]]
    assert ask(one_hot, stated="probs").form == "probs"  # a tree says so of itself
    whole = labels.read([10, 20, 30, 10, 20, 30])
    answer = ask([[10.0], [20], [30], [10], [20], [29]], whole, form="predictions")
    assert answer.value.shape == (6,) and answer.column_C is None


NAN = LOGITS.copy()
NAN[2, 1] = np.nan
NOT_ONE = np.abs(LOGITS) / np.abs(LOGITS).max()
REFUSED = {
    "texts": (["no", "yes"] * 3, TWO, "predict returns labels .*pass predict_proba"),
    "class numbers": ([0, 1, 2, 0, 1, 1], Y, r"predict returns labels \(0, 1, 2\); pass predict_p"),
    "float labels": (
        [0.0, 1, 1, 0, 1, 1],
        TWO,
        r"predict returns labels.*form='logits' or 'probs'",
    ),
    "booleans": ([True, False] * 3, TWO, r"predict returns labels \(bool\)"),
    "one-hot": (np.eye(3)[[0, 1, 2, 0, 1, 1]], Y, "predict returns labels .one-hot rows"),
    "rows": (lambda x: LOGITS[:4], Y, r"shape \(4, 3\) for 6 rows; it must return one answer per"),
    "scalar": (lambda x: 1.0, Y, r"shape \(\) for 6 rows"),
    "views": (np.zeros((6, 2, 3)), Y, r"shape \(6, 2, 3\); expected \[N,C\], a column per class"),
    "nan": (NAN, Y, "NaN or infinite numbers for 1 of 6 rows; the first is nan in row 2"),
    "log of 0": (np.full((6, 3), -np.inf), Y, r"for 6 of 6 rows.*log\(0\)\? Pass probabilities"),
    "neither": (NOT_ONE, Y, r"do not sum to 1 \(row \d: .*neither probabilities nor"),
    "votes": (100 * PROBS, Y, "whose rows all sum to 100: neither probabilities nor logits"),
    "negative": (PROBS + [[0.5, 0, -0.5]], Y, "whose rows sum to 1, and some are negative"),
    "one column": (LOGITS[:, 0], Y, "returns one number per row and there are 3 different labels"),
    "columns": (LOGITS[:, :2], Y, "3 different labels .* and the answers have 2 columns"),
    "fails": (lambda x: 1 / 0, Y, "predict failed when it was asked about rows of x: ZeroDivision"),
    "none": (lambda x: None, Y, r"predict\(x\) is a NoneType"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_audited_is_refused_in_a_sentence(case):
    value, y, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        ask(value, y)


@pytest.mark.parametrize(
    "value, y, form, message",
    [
        (LOGITS, Y, "probs", r"gives probabilities, and its answers lie in \[.*must lie in \[0, 1"),
        (NOT_ONE, Y, "probs", "those of row .* must sum to 1"),
        (LOGITS[:, 0], TWO, "predictions", "and y holds labels 'no', 'yes'"),
        (LOGITS, labels.read([1, 2, 3, 4, 5, 6]), "predictions", "they must agree"),
        (LOGITS, labels.read(LOGITS[:, 0]), "logits", "y holds real numbers"),
        (LOGITS, Y, "logit", "form='logit' is not one of .*Did you mean 'logits'"),
    ],
    ids=["probs", "sums", "labels", "shape", "numbers", "name"],
)
def test_a_stated_form_that_the_values_contradict_is_refused(value, y, form, message):
    with pytest.raises(ValueError, match=message):
        answers.check_form(form)
        ask(value, y, form=form)


def test_answers_that_change_from_call_to_call_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"same 6 rows are asked again .*switch dropout and other"):
        ask(lambda x: table(LOGITS)(x) + 0.1 * rng.normal(size=(len(x), 3)))


def test_answers_that_depend_on_the_batch_are_refused():
    x, y = np.arange(100.0)[:, None], labels.read(np.arange(100) % 3)
    every = np.random.default_rng(1).normal(size=(100, 3))

    def normalized(x):
        value = table(every)(x)
        return value - value.mean(0)

    with pytest.raises(ValueError, match=r"32 rows are asked without the others .*evaluation mode"):
        ask(normalized, y, x=x)
    low = every + 1e-4 * np.random.default_rng(2).normal(size=(100, 3))
    assert ask(lambda x: table(every if len(x) > 50 else low)(x), y, x=x).form == "logits"


def test_texts_without_a_vectorizer_are_explained():
    texts = ["good film", "bad film"] * 3

    def numbers_only(x):
        return np.asarray(x, float)

    with pytest.raises(ValueError, match=r"could not convert.*x holds text: put.*TfidfVectorizer"):
        ask(numbers_only, x=texts)


def test_columns_are_those_of_the_models_classes():
    y = labels.read(["cat", "dog", "eel"] * 2)
    answer = ask(PROBS, y, stated="probs", classes=np.array(["eel", "cat", "dog"]))
    assert answer.column_C.tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match=r"3 columns and has 2 classes \('cat', 'dog'\)"):
        ask(PROBS, y, stated="probs", classes=np.array(["cat", "dog"]))


def test_a_class_that_a_model_never_saw_has_probability_0_and_no_logit():
    y = labels.read(["cat", "dog", "eel"] * 2)
    full = ask(PROBS, y, stated="probs", classes=np.array(["cat", "dog", "eel"]))
    columns = answers.global_columns(full, y)
    two = np.stack([1 - PROBS[:, 0], PROBS[:, 0]], 1)
    short = ask(two, y, stated="probs", classes=np.array(["eel", "cat"]))
    value = answers.aligned(short, columns, y, name="model 3")
    assert np.array_equal(value, np.stack([two[:, 1], np.zeros(6), two[:, 0]], 1))
    with pytest.raises(
        ValueError, match="model 3 gives no logit for the label 'dog': no row of it"
    ):
        answers.aligned(short._replace(form="logits"), columns, y, name="model 3")


def test_classes_that_no_row_has_keep_their_columns():
    y = labels.read(["cat", "dog"] * 3)
    answer = ask(PROBS, y, stated="probs", classes=np.array(["ant", "cat", "dog"]))
    columns = answers.global_columns(answer, y)
    assert columns.tolist() == [-1, 0, 1]
    assert np.array_equal(answers.aligned(answer, columns, y, name="m"), answer.value)
