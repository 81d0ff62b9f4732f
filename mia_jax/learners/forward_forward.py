"""Trains Forward-Forward networks layer by layer on each batch.

On each batch the first layer takes some steps, then the next layer takes as many on its outputs,
and so on.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mia_jax import checks
from mia_jax.learners import plan as plans
from mia_jax.learners.backprop import evaluation
from mia_jax.objectives import forward_forward as objective
from mia_jax.runtime.rows import taken
from mia_jax.types import Learner, Model, Pool, Stopping, TrainState

NEGATIVES = (*objective.NEGATIVES, "permuted")

WITHOUT_SHARDS = "every layer takes many steps on one batch"


def make(
    *,
    model: Model,
    num_rows: int,
    padded: bool = False,
    stopping: Stopping | None = None,
    epochs: int = 60,
    batch_size: int = 0,
    inner_steps: int = 50,
    learning_rate: float = 0.03,
    epsilon: float = 1e-7,
    theta: float = 1.5,
    negatives: str = "other",
    peer: float = 0.0,
) -> Learner:
    """Returns Forward-Forward: each layer takes `inner_steps` Adam steps on every batch.

    A layer then passes its outputs on. Every layer has a separate Adam optimizer, and no gradient
    passes between layers. The loss of a
    layer is objectives.forward_forward.local plus peer * mean_f (a_f - mean a)^2, where a_f is the
    mean positive activity of unit f over the batch (peer normalization: no unit stays silent or is
    always active).

    The defaults with epochs=250 are the settings of the Keras example
    (keras.io/examples/vision/forwardforward).

    Metrics of an epoch: 'loss' (sum over layers), 'layer_loss' (mean over layers and inner steps)
    and 'layer_loss_so_far' (the mean of the latter over all batches since the start, which that
    example prints as FinalLoss).

    Args:
        model: a network that is trained layer by layer.
        num_rows: the number of rows of a model.
        padded: whether some rows have weight 0.
        stopping: an early-stopping rule.
        epochs: the largest number of epochs.
        batch_size: 0 for all rows in one batch per epoch.
        inner_steps: the number of steps of each layer per batch.
        learning_rate: the learning rate of Adam.
        epsilon: the epsilon of Adam.
        theta: the threshold of the goodness.
        negatives: negative labels from the 'other' labels, from 'any', or a 'permuted' copy of the
            labels of the batch (as in the Keras example).
        peer: the weight of the peer normalization.
    """
    objective.needs(model)
    checks.at_least(0, epochs=epochs, batch_size=batch_size, peer=peer)
    checks.at_least(1, inner_steps=inner_steps)
    checks.one_of(NEGATIVES, negatives=negatives)
    names, num_classes, layer, score = (
        model.parts[k] for k in ("names", "num_classes", "layer", "score")
    )
    plan = plans.permutation(batch_size=batch_size) if batch_size else plans.full_batch()
    tx = optax.adam(learning_rate, eps=epsilon)

    def init(key, pool: Pool) -> TrainState:
        init_key, train_key = jax.random.split(key)
        variables = model.init(init_key, pool.x[:1])
        opt = dict(
            layers={name: tx.init(variables["params"][name]) for name in names},
            total=jnp.float32(0),
            batches=jnp.int32(0),
        )
        return TrainState(
            jnp.int32(0), variables, opt, train_key, stopping.init(variables) if stopping else None
        )

    def layer_loss(params, h_B2F, weight_B):
        out_B2F, total = layer(params, h_B2F), jnp.maximum(weight_B.sum(), 1e-12)
        value = (weight_B * objective.local(score(out_B2F)[..., None], theta)[:, 0]).sum() / total
        if not peer:
            return value, value
        activity_F = (weight_B[:, None] * out_B2F[:, 0]).sum(0) / total
        return value + peer * jnp.square(activity_F - activity_F.mean()).mean(), value

    def train_layer(params, opt, h_B2F, weight_B):
        def inner(carry, _):
            params, opt = carry
            gradient, value = jax.grad(layer_loss, has_aux=True)(params, h_B2F, weight_B)
            updates, opt = tx.update(gradient, opt, params)
            return (optax.apply_updates(params, updates), opt), value

        (params, opt), value_S = lax.scan(inner, (params, opt), None, length=inner_steps)
        return params, opt, value_S.mean()

    def batch_step(state: TrainState, pool: Pool, index_B, weight_B):
        y_B = jnp.asarray(pool.y)[index_B]
        other_B = negative_labels(
            jax.random.fold_in(state.key, state.step), y_B, weight_B, num_classes, negatives
        )
        h_B2F = model.parts["overlay"](taken(pool.x, index_B), jnp.stack([y_B, other_B], axis=1))
        params, opts, values = dict(state.variables["params"]), dict(state.opt["layers"]), []
        for name in names:
            params[name], opts[name], value = train_layer(params[name], opts[name], h_B2F, weight_B)
            h_B2F = layer(params[name], h_B2F)
            values.append(value)
        mean, weight = sum(values) / len(values), weight_B.sum()
        opt = dict(layers=opts, total=state.opt["total"] + mean, batches=state.opt["batches"] + 1)
        variables = {**state.variables, "params": params}
        if padded:  # An empty batch changes nothing.
            variables, opt = jax.tree.map(
                lambda new, old: jnp.where(weight > 0, new, old),
                (variables, opt),
                (state.variables, state.opt),
            )
        so_far = opt["total"] / jnp.maximum(opt["batches"], 1)
        sums = dict(
            loss=weight * sum(values),
            weight=weight,
            layer_loss=weight * mean,
            layer_loss_so_far=weight * so_far,
        )
        return TrainState(state.step + 1, variables, opt, state.key, state.stop), sums

    def epoch(state: TrainState, pool: Pool, index_SB, weight_SB):
        state, sums_S = lax.scan(
            lambda s, iw: batch_step(s, pool, *iw), state, (index_SB, weight_SB)
        )
        return state, jax.tree.map(lambda a: a.sum(0), sums_S)

    loss = objective.make(
        model=model, theta=theta, negatives="other" if negatives == "other" else "any"
    )
    return Learner(
        init,
        epoch,
        evaluation(loss=loss, penalty=lambda params: jnp.float32(0)),
        plan,
        epochs,
        stopping,
        model,
    )


def negative_labels(key, y_B, weight_B, num_classes: int, negatives: str) -> jax.Array:
    """Returns negative labels, [B].

    They are drawn from the other C - 1 labels, from all C, or are the labels of the rows of weight
    > 0 in a random order.
    """
    if negatives != "permuted":
        key_B = jax.vmap(lambda slot: jax.random.fold_in(key, slot))(
            jnp.arange(len(y_B), dtype=jnp.int32)
        )
        return jax.vmap(objective.draw, (0, 0, None, None))(key_B, y_B, num_classes, negatives)
    real_B = weight_B > 0
    # The rows of weight > 0 come first, in a random order.
    from_B = jnp.argsort(jnp.where(real_B, jax.random.uniform(key, y_B.shape, jnp.float32), 2.0))
    place_B = jnp.argsort(~real_B)  # Their places in the original order (the sort is stable).
    return jnp.zeros_like(y_B).at[place_B].set(y_B[from_B])
