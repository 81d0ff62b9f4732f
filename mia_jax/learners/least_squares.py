"""Solves the last layer of a network by least squares in closed form.

The layers below it keep their random initialization.
"""

from __future__ import annotations

import jax
import jax.custom_batching
import jax.numpy as jnp
from jax import lax

from mia_jax import checks
from mia_jax.learners import plan as plans
from mia_jax.learners.backprop import evaluation, rows
from mia_jax.types import Aux, Batch, Learner, Model, Pool, TrainState

WITHOUT_SHARDS = "it solves for all rows at once, in one step"


def make(*, model: Model, num_rows: int, ridge: float = 0.0) -> Learner:
    """Returns the learner (w, b) = argmin sum_k weight_k |f_k w + b - t_k|^2 + ridge |w|^2.

    It runs over a model's rows k, in one epoch of one step. f is the input of the last layer
    ('penultimate' of Model.inside, which is the flattened example for a linear model). t is the
    one-hot label, or the regression label. b is not penalized; it is equivalent to a column of
    ones. The solution uses the singular values of the centered features, without those below 1e-6
    of the largest. If it is not unique, it is the smallest one.

    Raises:
        ValueError: if the model's last layer is not one kernel [F,C] (and a bias).
    """
    del num_rows
    checks.at_least(0, ridge=ridge)

    def init(key, pool: Pool) -> TrainState:
        init_key, train_key = jax.random.split(key)
        variables = model.init(init_key, pool.x[:1])
        last_layer(model, variables, pool.x[:1])
        return TrainState(jnp.int32(0), variables, {}, train_key, None)

    def epoch(state: TrainState, pool: Pool, index_SB, weight_SB):
        batch = rows(pool, index_SB[0], weight_SB[0])
        name = last_layer(model, state.variables, batch.x[:1])
        feature_KF = features(model, state.variables, batch.x)
        old = state.variables["params"][name]
        kernel_FC, bias_C = solve(
            feature_KF,
            targets(model, state.variables, batch),
            batch.weight_B,
            ridge=ridge,
            bias="bias" in old,
        )
        solved = dict(kernel=kernel_FC) | (dict(bias=bias_C) if "bias" in old else {})
        variables = {**state.variables, "params": {**state.variables["params"], name: solved}}
        return state._replace(step=state.step + 1, variables=variables), evaluate(
            variables, pool, index_SB[0], weight_SB[0]
        )

    def loss(variables, batch: Batch, *, key_B=None, train: bool = False):
        out_BC, _ = model.apply(variables, batch.x)
        loss_B = jnp.square(out_BC - targets(model, variables, batch)).sum(-1)
        metrics = (
            dict(squared_error=loss_B)
            if batch.task.kind == "regression"
            else dict(accuracy=(out_BC.argmax(-1) == batch.y).astype(jnp.float32))
        )
        return loss_B, Aux(stats={}, metrics=metrics)

    evaluate = evaluation(loss=loss, penalty=lambda params: jnp.float32(0))
    return Learner(init, epoch, evaluate, plans.full_batch(), 1, None, model)


def features(model: Model, variables, x, batch_size: int = 512) -> jax.Array:
    """Returns the inputs of the last layer, [K,F], computed in batches."""
    padding = -len(x) % batch_size
    x_SB = jnp.concatenate([x, jnp.broadcast_to(x[:1], (padding, *x.shape[1:]))]).reshape(
        -1, batch_size, *x.shape[1:]
    )
    feature_SBF = lax.map(lambda x_B: model.inside(variables, x_B)["penultimate"], x_SB)
    return feature_SBF.reshape(-1, feature_SBF.shape[-1])[: len(x)]


def targets(model: Model, variables, batch: Batch) -> jax.Array:
    """Returns one-hot labels [K,C], or regression labels [K,1]."""
    batch.task.require(
        ("classification", "regression"),
        of="the learning rule 'least_squares'",
        remedy="set learner.name='backprop'",
    )
    if batch.task.kind == "regression":
        return batch.y[:, None]
    return jax.nn.one_hot(
        batch.y, jax.eval_shape(model.apply, variables, batch.x[:1])[0].shape[-1], dtype=jnp.float32
    )


def last_layer(model: Model, variables, x) -> str:
    """Returns the name of the layer whose kernel [F,C] maps 'penultimate' to the outputs.

    Raises:
        ValueError: if there is none.
    """
    if model.inside is None:
        raise ValueError(
            "least_squares looks at what enters the last layer, and this model does not tell "
            "(Model.inside)."
        )
    wide, out = jax.eval_shape(
        lambda v: (model.inside(v, x)["penultimate"], model.apply(v, x)[0]), variables
    )
    params = variables["params"]
    layers = {
        n: p for n, p in params.items() if isinstance(p, dict) and set(p) <= {"kernel", "bias"}
    }
    fitting = [
        n for n, p in layers.items() if jnp.shape(p.get("kernel")) == (wide.shape[1], out.shape[1])
    ]
    if not fitting:
        raise ValueError(
            f"least_squares needs a last layer of one kernel [{wide.shape[1]},{out.shape[1]}]; the "
            f"layers are {', '.join(params)}."
        )
    return max(fitting, key=lambda name: (len(name), name))


def solve(
    feature_KF, target_KC, weight_K, *, ridge: float, bias: bool
) -> tuple[jax.Array, jax.Array]:
    """Returns (kernel [F,C], bias [C]) of weighted ridge regression; without a bias it is 0."""
    total, zero = weight_K.sum(), jnp.zeros((), jnp.float32)
    mean_F = (
        (weight_K @ feature_KF / total) if bias else jnp.broadcast_to(zero, feature_KF.shape[1:])
    )
    mean_C = (weight_K @ target_KC / total) if bias else jnp.broadcast_to(zero, target_KC.shape[1:])
    root_K1 = jnp.sqrt(weight_K)[:, None]
    left, size_R, right = decomposed(root_K1 * (feature_KF - mean_F[None]))
    kept_R = size_R > 1e-6 * size_R[0]
    shrunk_R = jnp.where(kept_R, size_R / jnp.where(kept_R, size_R**2 + ridge, 1), 0)
    kernel_FC = right.T @ (shrunk_R[:, None] * (left.T @ (root_K1 * (target_KC - mean_C[None]))))
    return kernel_FC, mean_C - mean_F @ kernel_FC


@jax.custom_batching.sequential_vmap
def decomposed(matrix_KF) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the thin singular value decomposition, in a fleet one model at a time.

    The batched decomposition waits in a thread of the pool that has to do the work (jaxlib 0.10 on
    a CPU), so two lanes of it would wait for each other forever.
    """
    return tuple(jnp.linalg.svd(matrix_KF, full_matrices=False))
