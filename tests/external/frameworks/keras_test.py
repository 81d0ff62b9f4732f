"""Keras models as functions of rows; in a process of its own where no backend is chosen yet."""

import os

import numpy as np
import pytest

from mia_jax.external import frameworks
from mia_jax.runtime import precision

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras", reason="pip install keras, with KERAS_BACKEND=jax")
X = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((3,)),
            layers.Dense(8),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(2, activation="softmax"),
        ]
    )


def test_the_answer_is_that_of_inference_whatever_the_batch(model):
    with precision.as_the_user():
        expected = keras.ops.convert_to_numpy(model(X, training=False))
    for size in (None, 4):
        asked = frameworks.predictor(model, batch_size=size)
        assert np.allclose(asked.answer(X), expected, atol=1e-6)
    assert asked.words == "Keras Sequential" and asked.form is None


def test_rows_may_be_lists_and_frames(model):
    pandas = pytest.importorskip("pandas", reason="pip install pandas")
    asked = frameworks.predictor(model)
    assert np.allclose(asked.answer(X.tolist()), asked.answer(pandas.DataFrame(X)), atol=1e-6)


def test_several_inputs_are_a_dict_and_several_outputs_are_refused(model):
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    total = keras.layers.Add()([left, right])
    both = keras.Model(dict(left=left, right=right), total)
    assert np.allclose(frameworks.predictor(both).answer(dict(left=X, right=X)), 2 * X)
    two = keras.Model(left, [left, left])
    with pytest.raises(ValueError, match="which has 2 outputs; pass a function of rows"):
        frameworks.predictor(two).answer(X)


def test_what_has_no_meaning_is_refused(model):
    with pytest.raises(ValueError, match=r"device='gpu' has no meaning .*keras\.device"):
        frameworks.predictor(model, device="gpu")
    with pytest.raises(ValueError, match="pass a function fit"):
        frameworks.trainer(model)
