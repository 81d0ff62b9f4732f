"""Trains against an attacker: lowers the score that an attack network gives the members.

The attack network is trained together with the classifier (Nasr et al. 2018).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mia_jax import checks
from mia_jax.learners import backprop
from mia_jax.learners import plan as plans
from mia_jax.types import Aux, Batch, Learner, Model, Plan, Pool, Stopping, TrainState

# The widths of the attack network on p, on the label, and on both together.
BRANCHES = dict(p=(1024, 512, 64), y=(512, 64), both=(256, 64, 1))

# Why a batch is not cut into shards.
WITHOUT_SHARDS = "two networks take turns on one batch"


def make(
    *,
    model: Model,
    num_rows: int,
    num_extra: int = 0,
    padded: bool = False,
    stopping: Stopping | None = None,
    epochs: int = 100,
    batch_size: int = 10,
    strength: float = 1.0,
    attack_steps: int = 1,
    warmup_epochs: int = 3,
    learning_rate: float = 1e-3,
    attack_learning_rate: float = 1e-3,
    epsilon: float = 1e-7,
) -> Learner:
    """Returns the learner that alternates between an attack network and the classifier.

    Each step takes `attack_steps` Adam steps of an attack network h(p, y) on members against other
    rows. It then takes one Adam step of the classifier on

        mean_B [ cross_entropy + strength * log h(p, y) ],  p = softmax of its logits,

    over a batch of members. h in (0, 1) is the attacker's probability of a member. In the first
    `warmup_epochs` epochs strength is 0. An attack step sees B training rows of the model and B of
    `num_extra` other rows. These are non-members whose labels the classifier never uses (design
    blocks with extra=True). In rows_K of the plan the training rows come first, then the extra
    rows. The attack network is discarded after training.

    Metrics: 'loss' (of the classifier, including the attack term), 'accuracy', and
    'attack_accuracy' (of h, balanced, on the rows it is about to learn). Evaluations use the
    cross-entropy only.

    Source: Nasr, Shokri & Houmansadr 2018 (arXiv:1807.05852), algorithm 1. The networks are those
    of the label-only paper's code, which also has a dropout of 0.25 after the first pooling.

    Raises:
        ValueError: if there are no extra rows.
    """
    checks.at_least(0, epochs=epochs, strength=strength, warmup_epochs=warmup_epochs)
    checks.at_least(1, batch_size=batch_size, attack_steps=attack_steps)
    checks.positive(
        learning_rate=learning_rate, attack_learning_rate=attack_learning_rate, epsilon=epsilon
    )
    if not num_extra:
        raise ValueError(
            "adversarial_regularization needs rows outside the training set for its attacker: "
            "design.name='blocks' with extra=True."
        )
    warmup = warmup_epochs * plans.steps_per_epoch(num_rows=num_rows, batch_size=batch_size)
    tx, attack_tx = (
        optax.adam(rate, eps=epsilon) for rate in (learning_rate, attack_learning_rate)
    )

    def init(key, pool: Pool) -> TrainState:
        init_key, train_key = jax.random.split(key)
        variables = model.init(init_key, pool.x[:1])
        classes = jax.eval_shape(
            lambda v: model.apply(v, pool.x[:1], train=False)[0], variables
        ).shape[-1]
        attacker = attack_network(jax.random.fold_in(init_key, 1), classes)
        opt = dict(
            tx=tx.init(variables["params"]), attacker=attacker, attacker_tx=attack_tx.init(attacker)
        )
        return TrainState(
            jnp.int32(0), variables, opt, train_key, stopping.init(variables) if stopping else None
        )

    def losses(variables, batch: Batch, *, key_B=None, train: bool = False):
        batch.task.require(
            ("classification",),
            of="the learning rule 'adversarial_regularization'",
            remedy="set learner.name='backprop'",
        )
        out_BC, stats = model.apply(
            variables, batch.x, key_B=key_B, weight_B=batch.weight_B, train=train
        )
        loss_B = optax.softmax_cross_entropy_with_integer_labels(out_BC, batch.y)
        return loss_B, (
            out_BC,
            Aux(
                stats=stats,
                metrics=dict(accuracy=(out_BC.argmax(1) == batch.y).astype(jnp.float32)),
            ),
        )

    def cross_entropy(variables, batch: Batch, **settings):
        loss_B, (_, aux) = losses(variables, batch, **settings)
        return loss_B, aux

    def attack_step(variables, pool: Pool, state, index_B):
        """Takes one step of the attack network on rows of which the first half are members."""
        attacker, opt = state
        batch = backprop.rows(pool, index_B, jnp.ones(len(index_B), jnp.float32))
        out_BC = model.apply(variables, batch.x, train=False)[0]
        sign_B = jnp.where(jnp.arange(len(index_B), dtype=jnp.int32) < len(index_B) // 2, 1.0, -1.0)

        def objective(attacker):
            odds_B = log_odds(attacker, out_BC, batch.y)
            return -jax.nn.log_sigmoid(sign_B * odds_B).mean(), (sign_B * odds_B > 0).mean()

        gradient, right = jax.grad(objective, has_aux=True)(attacker)
        updates, opt = attack_tx.update(gradient, opt, attacker)
        return (optax.apply_updates(attacker, updates), opt), right

    def step(state: TrainState, pool: Pool, index, weight):
        old_opt, opt = state.opt, dict(state.opt)
        size = len(index) // (1 + 2 * attack_steps)
        attacker = (old_opt["attacker"], old_opt["attacker_tx"])
        opponents = index[size:].reshape(attack_steps, 2 * size)
        attacker, right_A = lax.scan(
            lambda s, index_B: attack_step(state.variables, pool, s, index_B), attacker, opponents
        )
        opt["attacker"], opt["attacker_tx"] = attacker
        weight_B = weight[:size]
        batch = backprop.rows(pool, index[:size], weight_B)
        key_B = backprop.slot_keys(jax.random.fold_in(state.key, state.step), size)

        def objective(params):
            loss_B, (out_BC, aux) = losses(
                {**state.variables, "params": params}, batch, key_B=key_B, train=True
            )
            gain_B = jax.nn.log_sigmoid(log_odds(opt["attacker"], out_BC, batch.y))
            loss_B += jnp.where(state.step < warmup, 0.0, strength) * gain_B
            return (weight_B * loss_B).sum() / jnp.maximum(weight_B.sum(), 1e-12), aux

        (value, aux), gradient = jax.value_and_grad(objective, has_aux=True)(
            state.variables["params"]
        )
        updates, opt["tx"] = tx.update(gradient, old_opt["tx"], state.variables["params"])
        variables = {"params": optax.apply_updates(state.variables["params"], updates)} | (
            {"stats": aux.stats} if aux.stats else {}
        )
        total = weight_B.sum()
        if padded:  # An empty batch changes nothing.
            variables, opt = jax.tree.map(
                lambda new, old: jnp.where(total > 0, new, old),
                (variables, opt),
                (state.variables, old_opt),
            )
        sums = dict(
            loss=total * value,
            weight=total,
            accuracy=(weight_B * aux.metrics["accuracy"]).sum(),
            attack_accuracy=total * right_A.mean(),
        )
        return TrainState(state.step + 1, variables, opt, state.key, state.stop), sums

    def epoch(state: TrainState, pool: Pool, index_SB, weight_SB):
        state, sums_S = lax.scan(lambda s, iw: step(s, pool, *iw), state, (index_SB, weight_SB))
        return state, jax.tree.map(lambda a: a.sum(0), sums_S)

    plan = opponents_beside(num_rows=num_rows, batch_size=batch_size, attack_steps=attack_steps)
    evaluate = backprop.evaluation(loss=cross_entropy, penalty=lambda params: jnp.float32(0))
    return Learner(init, epoch, evaluate, plan, epochs, stopping, model)


def opponents_beside(*, num_rows: int, batch_size: int, attack_steps: int) -> Plan:
    """Returns the plan of batches followed by the rows of the attack steps.

    plan(key, epoch, rows, weight) -> (index_SB, weight_SB), where a row of the index holds a batch
    of training rows and then, for each attack step, as many training rows and as many extra rows.
    The batch is that of plan.permutation over the first `num_rows` rows. The rows of the attack
    steps are drawn with replacement and have weight 0.
    """
    batches = plans.permutation(batch_size=batch_size)

    def plan(key, epoch, rows, weight):
        train_K, extra_E = rows[:num_rows], rows[num_rows:]
        index_SB, weight_SB = batches(key, epoch, train_K, weight[:num_rows])
        inside_key, outside_key = jax.random.split(
            jax.random.fold_in(jax.random.fold_in(key, epoch), 1)
        )
        shape, real_K = (len(index_SB), attack_steps, index_SB.shape[1]), weight[:num_rows] > 0
        first_K = train_K[jnp.argsort(~real_K)]  # Rows of weight > 0 come first.
        inside = first_K[jax.random.randint(inside_key, shape, 0, real_K.sum(), jnp.int32)]
        outside = extra_E[jax.random.randint(outside_key, shape, 0, len(extra_E), jnp.int32)]
        opponents = jnp.concatenate([inside, outside], 2).reshape(len(index_SB), -1)
        return jnp.concatenate([index_SB, opponents], 1), jnp.pad(
            weight_SB, ((0, 0), (0, opponents.shape[1]))
        )

    return plan


def attack_network(key, classes: int) -> dict:
    """Returns {branch: [(kernel, bias), ...]} with the widths of BRANCHES, Glorot-uniform."""
    inputs = dict(p=classes, y=classes, both=BRANCHES["p"][-1] + BRANCHES["y"][-1])
    glorot, layers = jax.nn.initializers.glorot_uniform(dtype=jnp.float32), {}
    for b, (branch, widths) in enumerate(BRANCHES.items()):
        sides = zip((inputs[branch], *widths), widths)
        layers[branch] = [
            (glorot(jax.random.fold_in(key, 10 * b + i), side), jnp.zeros(side[1], jnp.float32))
            for i, side in enumerate(sides)
        ]
    return layers


def log_odds(attacker: dict, out_BC, y_B) -> jax.Array:
    """Returns log h - log(1 - h) of the attack network h(softmax(out_BC), y_B), [B]."""

    def through(layers, x, last=jax.nn.relu):
        for i, (kernel, bias) in enumerate(layers):
            x = (last if i == len(layers) - 1 else jax.nn.relu)(x @ kernel + bias[None])
        return x

    p_BF = through(attacker["p"], jax.nn.softmax(out_BC))
    y_BF = through(attacker["y"], jax.nn.one_hot(y_B, out_BC.shape[-1], dtype=jnp.float32))
    return through(attacker["both"], jnp.concatenate([p_BF, y_BF], 1), last=lambda x: x)[:, 0]
