"""Functions as models, and how a model's adapter is chosen."""

import functools

import numpy as np
import pytest

from mia_jax.external import frameworks


class Strange:
    """Looks like nothing that an adapter takes."""


def test_a_function_is_asked_in_batches_of_the_rows_that_were_passed():
    sizes = []

    def predict(x):
        sizes.append(len(x))
        return [2 * value for value in x]

    model = frameworks.predictor(predict, batch_size=4)
    answers = model.answer(list(range(10)))
    assert answers.tolist() == list(range(0, 20, 2)) and sizes == [4, 4, 2]
    assert (model.form, model.classes, model.words) == (None, None, "the function predict")


def test_a_bound_method_knows_the_classes_of_its_object():
    class Model:
        classes_ = np.array(["no", "yes"])

        def predict_proba(self, x):
            return np.full((len(x), 2), 0.5)

    model = frameworks.predictor(Model().predict_proba)
    assert model.classes.tolist() == ["no", "yes"] and model.answer([1, 2]).shape == (2, 2)


def test_what_can_be_called_and_has_no_name_is_a_function():
    model = frameworks.predictor(functools.partial(np.multiply, 3))
    assert model.answer(np.arange(2)).tolist() == [0, 3] and model.words == "the function partial"
    assert frameworks.predictor(lambda x: x).words == "a function"


def test_a_function_trains_as_it_is():
    def fit(x, y, seed):
        return x

    assert frameworks.trainer(fit) is fit


@pytest.mark.parametrize(
    "model, message",
    [
        (Strange, "predict is the class Strange; pass an object of it"),
        (Strange(), "predict is a tests Strange and must be a function of rows x, or a model of"),
        ([1], "predict is a list and must be a function"),
    ],
    ids=["class", "object", "list"],
)
def test_what_is_no_model_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        frameworks.predictor(model)


def test_a_device_has_no_meaning_for_a_function():
    with pytest.raises(ValueError, match=r"device='cuda' has no meaning for a function; move"):
        frameworks.predictor(lambda x: x, device="cuda")


def test_a_framework_that_was_named_must_take_the_model():
    assert frameworks.adapter(len, framework="function").takes(len)
    with pytest.raises(ValueError, match="fit is a list, which framework='function' does not take"):
        frameworks.adapter([], framework="function", argument="fit")
    with pytest.raises(ValueError, match=r"frameworks: there is no 'functoin'\. Did you mean"):
        frameworks.adapter(len, framework="functoin")
