"""Flax modules, linen and nnx, as functions of rows, in inference mode."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training import train_state

from mia_jax.external import frameworks

X = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = True):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x))
        return nn.Dense(2)(nn.Dropout(0.5, deterministic=not train)(x))


class Untold(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.Dropout(0.5)(nn.BatchNorm()(x)))


VARIABLES = Net().init(jax.random.key(0), X, train=False)
EXPECTED = Net().apply(VARIABLES, X, train=False)


def states():
    class State(train_state.TrainState):
        batch_stats: dict

    parts = dict(apply_fn=Net().apply, params=VARIABLES["params"], tx=optax.sgd(0.1))
    return State.create(**parts, batch_stats=VARIABLES["batch_stats"])


@pytest.mark.parametrize(
    "model",
    [(Net(), VARIABLES), Net().bind(VARIABLES), states()],
    ids=["pair", "bound", "TrainState"],
)
def test_a_linen_module_with_its_variables_answers_in_inference_mode(model):
    for size in (None, 4):
        asked = frameworks.predictor(model, batch_size=size)
        assert np.allclose(asked.answer(X), EXPECTED, atol=1e-6)
    assert asked.words == "Flax linen Net"


def test_layers_that_were_not_told_do_not_train():
    dense = nn.Dense(2)
    params = dict(Dense_0=dense.init(jax.random.key(0), X)["params"], BatchNorm_0={})
    params["BatchNorm_0"] = dict(scale=jnp.ones(3), bias=jnp.zeros(3))
    stats = dict(BatchNorm_0=dict(mean=jnp.zeros(3), var=jnp.ones(3)))
    asked = frameworks.predictor((Untold(), dict(params=params, batch_stats=stats)))
    expected = dense.apply(dict(params=params["Dense_0"]), X / np.sqrt(1 + 1e-5))
    assert np.allclose(asked.answer(X), expected, atol=1e-6)


def test_parameters_alone_are_variables():
    dense = nn.Dense(2)
    variables = dense.init(jax.random.key(0), X)
    whole, bare = (frameworks.predictor((dense, v)) for v in (variables, variables["params"]))
    assert np.array_equal(whole.answer(X), bare.answer(X))


def test_an_nnx_module_is_copied_and_asked_in_evaluation_mode():
    class Block(nnx.Module):
        def __init__(self, rngs):
            self.body = nnx.Linear(3, 8, rngs=rngs)
            self.norm = nnx.BatchNorm(8, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.head = nnx.Linear(8, 2, rngs=rngs)

        def __call__(self, x):
            return self.head(self.dropout(self.norm(self.body(x))))

    model = Block(nnx.Rngs(0))
    asked = frameworks.predictor(model, batch_size=4)
    answer = asked.answer(X)
    assert not model.dropout.deterministic and not model.norm.use_running_average
    model.eval()
    assert np.allclose(answer, model(X), atol=1e-6) and asked.words == "Flax nnx Block"


class Other(nn.Module):
    @nn.compact
    def __call__(self, x, mask):
        return x


@pytest.mark.parametrize(
    "model, message",
    [
        (Net(), r"linen module Net without its variables; pass \(module, variables\)"),
        ((Net(), None), "a tuple of a linen module and a NoneType"),
        ((Other(), dict(params={})), r"takes \(x, mask\).* Or pass a function of rows"),
    ],
    ids=["unbound", "no variables", "signature"],
)
def test_what_cannot_be_asked_is_a_sentence(model, message):
    with pytest.raises(ValueError, match=message):
        frameworks.predictor(model)


def test_texts_are_refused_and_no_module_says_how_it_is_trained():
    with pytest.raises(ValueError, match="x holds <U1 values, and nets take numbers"):
        frameworks.predictor((Net(), VARIABLES)).answer(["a"])
    for model in ((Net(), VARIABLES), nnx.Linear(1, 1, rngs=nnx.Rngs(0))):
        with pytest.raises(ValueError, match="pass a function fit"):
            frameworks.trainer(model)
