"""Measures by how much one example changes the clipped sum of a private training step.

The nets keep the examples of a batch apart, or mix them.

    python -m benchmarks.sensitivity [--quick] [--cases centered,attention] [--methods auto,vmap]
        [--runs 6] [--peers none]

Every net is trained by the learner itself (gradient='private' without noise, one step on 32 rows),
so what is measured is what a run adds up. One row is removed, or replaced by another example, or by
a distant example on either side; the parameters are drawn again each time. The largest change is
printed in units of the clip norm C: at most 2 for a replaced row, at most 1 for a removed one.
`refused` means that the learner could not be built. The column `unchecked` has both changes by
bookkeeping when nothing is checked. The exit status is 1 if a net exceeds a bound, if a net that
trial batches show to mix examples is not refused, or if a net that keeps them apart is refused.

Measured (CPU, jax 0.10.2, 4 draws of a parameter vector and a row; the largest change for a
replaced and for a removed row):

    15 nets that keep examples apart    1.57 to 1.96, 1.00     None is refused. 12 are trained by
                                                               bookkeeping, 3 by vmap (no taps,
                                                               asked several times, a mask).
    21 nets that mix them, unchecked    up to 18.1, 1.38       18 are refused by every method. vmap
                                                               trains 3 within 1.73, 1.00 (taps
                                                               are refused).

The largest unchecked changes: 18.1 for h + h.sum(0), 15.9 for a gate on the mean, 13.2 for a
running sum, 12.6 for arg max; 5.7 behind an embedding; 16.0 for a gate that no trial opens.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.errors import FlaxError
from jax import lax

from benchmarks import _pairs
from mia_jax.learners import backprop
from mia_jax.models import layers
from mia_jax.objectives import adversarial, cross_entropy
from mia_jax.privacy import clipping, gradients
from mia_jax.privacy.independence import trials
from mia_jax.types import Aux, Loss, Model, Pool, classification

ROWS, CLASSES, WORDS, CLIP = 32, 3, 50, 0.1
METHODS = ("auto", "vmap", "scan", "tapped", "bookkeeping")
SLACK = 1e-4  # of the bound, for the rounding of a sum of 32 gradients in float32
FAR = 1000.0


class Net(NamedTuple):
    """Describes a net: `body(h [B,8], key_B, weight_B) -> h` between two dense layers.

    Attributes:
        kind: 'apart' for a net that keeps examples apart. A net that mixes them must be
            'refused' by every method, or 'bounded': trial batches need not show that it mixes, so
            vmap may train it.
        inputs: 'float', 'words' or 'images'.
    """

    kind: str
    body: Callable
    inputs: str = "float"
    loss: Callable[[Model], Loss] = lambda model: cross_entropy.make(model=model)
    methods: tuple[str, ...] = METHODS  # that must take a net that keeps examples apart


class Module(nn.Module):
    """Computes inputs -> Dense or Embedding -> body -> Dense -> tanh -> Dense."""

    body: Callable
    inputs: str

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        if self.inputs == "words":
            h = layers.Embedding(WORDS, 8)(x).mean(1)
        elif self.inputs == "images":
            h = self.body(x, key_B, weight_B)
            return layers.Dense(CLASSES)(h.reshape(len(x), -1))
        else:
            h = layers.Dense(8)(x)
        h = self.body(h, key_B, weight_B)
        return layers.Dense(CLASSES)(jnp.tanh(layers.Dense(8)(h)))


def _negatives(model: Model) -> Loss:
    """Compares every embedding with those of the batch (contrastive, with in-batch negatives)."""

    def loss(variables, batch, *, key_B=None, train=False):
        out_BC, _ = model.apply(variables, batch.x, key_B=key_B, train=train)
        loss_B = optax.softmax_cross_entropy_with_integer_labels(
            out_BC @ out_BC.T, jnp.arange(len(out_BC))
        )
        return loss_B, Aux({}, {})

    return loss


def _scaled(factor: Callable) -> Callable[[Model], Loss]:
    """Returns cross-entropy times factor(batch, out_BC), which depends on the whole batch."""

    def make(model):
        inner = cross_entropy.make(model=model)

        def loss(variables, batch, *, key_B=None, train=False):
            loss_B, aux = inner(variables, batch, key_B=key_B, train=train)
            return loss_B * factor(batch), aux

        return loss

    return make


def _picked(model: Model) -> Loss:
    """Returns cross-entropy as it is often written: logp[jnp.arange(B), y]."""

    def loss(variables, batch, *, key_B=None, train=False):
        out_BC, _ = model.apply(variables, batch.x, key_B=key_B, train=train)
        return -jax.nn.log_softmax(out_BC)[jnp.arange(len(out_BC)), batch.y], Aux({}, {})

    return loss


def _attacked(model: Model) -> Loss:
    return adversarial.make(model=model, steps=2, box="none")


@jax.custom_vjp
def _normalized_backwards(h):
    return h


_normalized_backwards.defvjp(
    lambda h: (h, None), lambda _, g: (g / (1e-6 + jnp.sqrt(jnp.square(g).sum())),)
)


@jax.custom_vjp
def _rounded(h):
    return jnp.round(h * 8) / 8


_rounded.defvjp(
    lambda h: (_rounded(h), h), lambda h, g: (jnp.clip(g, -1e-3, 1e-3) * (jnp.abs(h) < 4),)
)  # apart, but not linear in g


def _recurrent(h, *_):
    """Scans over 8 positions with a state per example."""
    state, out = lax.scan(
        lambda s, x: ((t := jnp.tanh(s + x[:, None])), t), jnp.zeros((len(h), 4)), h.T
    )
    return jnp.concatenate([state, out.mean(0)], 1)


def _attention(h, *_):
    t = h.reshape(len(h), 4, 2)
    return (jax.nn.softmax(t @ t.mT) @ t).reshape(h.shape)


def _images(x, *_):
    x = layers.max_pool(jnp.tanh(layers.GroupNorm(2)(layers.Conv(4)(x))), (2, 2))
    return layers.avg_pool(layers.Conv(4, strides=2)(x), (2, 2))


def _own_by_mask(h, *_):
    """Each row itself, chosen among all: no analysis of shapes can see that."""
    return jnp.where(jnp.eye(len(h), dtype=bool)[:, :, None], h[None], 0).sum(1)


def _while_doubling(h, *_):
    return (
        lax.while_loop(
            lambda s: s[1] < 3,
            lambda s: (s[0] * 1.1, s[1] + jnp.where(s[0].mean() > 0.2, 3, 1)),
            (lax.stop_gradient(h), 0),
        )[0]
        + h
    )


NETS: dict[str, Net] = dict(
    # nets that keep the examples of a batch apart
    plain=Net("apart", lambda h, *_: h),
    words=Net("apart", lambda h, *_: h, "words"),
    layer_norm=Net("apart", lambda h, *_: layers.LayerNorm()(h)),
    group_norm_conv_pool=Net("apart", _images, "images"),
    attention=Net("apart", _attention),
    positions_merged=Net(
        "apart", lambda h, *_: layers.Dense(2)(h.reshape(-1, 2)).reshape(len(h), 8)
    ),
    dropout=Net("apart", lambda h, key_B, _: layers.dropout(h, key_B, 0.5, 0)),
    sorted_within=Net("apart", lambda h, *_: jnp.sort(h, 1)),
    top_k_within=Net("apart", lambda h, *_: lax.top_k(h, 4)[0]),
    recurrent=Net("apart", _recurrent),
    picked_labels=Net("apart", lambda h, *_: h, loss=_picked),
    adversarial=Net(
        "apart", lambda h, *_: h, loss=_attacked, methods=("auto", "vmap", "scan")
    ),  # asks its net several times
    rounded=Net(
        "apart", lambda h, *_: _rounded(h), methods=("auto", "vmap", "scan", "bookkeeping")
    ),
    raw_parameter=Net("apart", lambda h, *_: nn.LayerNorm()(h), methods=("auto", "vmap", "scan")),
    chosen_by_a_mask=Net("apart", _own_by_mask, methods=("auto", "vmap", "scan")),
    # nets that mix them
    words_summed=Net("refused", lambda h, *_: h + h.sum(0, keepdims=True), "words"),
    summed=Net("refused", lambda h, *_: h + h.sum(0, keepdims=True)),
    centered=Net("refused", lambda h, *_: h - h.mean(0, keepdims=True)),
    batch_norm=Net("refused", lambda h, *_: layers.BatchNorm()(h, train=True)),
    batch_norm_without_statistics=Net(
        "refused",
        lambda h, *_: (h - h.mean(0, keepdims=True)) / jnp.sqrt(h.var(0, keepdims=True) + 1e-5),
    ),
    gate_on_mean=Net("refused", lambda h, *_: jnp.where(h.mean() > 0, h, -h)),
    far_gate=Net("bounded", lambda h, *_: jnp.where(h.max() > 300, -h, h)),
    softmax_over_batch=Net("refused", lambda h, *_: h * jax.nn.softmax(h, 0)),
    sorted_over_batch=Net("refused", lambda h, *_: jnp.sort(h, 0)),
    top_k_over_batch=Net(
        "refused",
        lambda h, *_: jnp.where(h >= lax.top_k(h.T, min(2, len(h)))[0][:, -1][None], h, 0),
    ),
    argmax_over_batch=Net("refused", lambda h, *_: h + h[h[:, 0].argmax()][None]),
    rolled=Net("refused", lambda h, *_: h - jnp.roll(h, 1, 0)),
    times_a_mask=Net(
        "refused", lambda h, *_: (h @ h.T * jnp.eye(len(h))) @ h
    ),  # 0 * NaN: one row that is not finite spoils all
    running_sum=Net("refused", lambda h, *_: jnp.cumsum(h, 0)),
    condition_on_mean=Net(
        "refused", lambda h, *_: lax.cond(h.mean() > 0, lambda a: a, lambda a: -a, h)
    ),
    loop_until_mean=Net("refused", _while_doubling),
    summed_if_large_batch=Net(
        "bounded", lambda h, *_: h + h.sum(0, keepdims=True) if len(h) > 16 else h
    ),
    in_batch_negatives=Net("refused", lambda h, *_: h, loss=_negatives),
    mean_over_batch=Net(
        "refused", lambda h, *_: h, loss=_scaled(lambda batch: 8 / (1e-6 + batch.weight_B.sum()))
    ),
    weighted_by_labels=Net(
        "refused",
        lambda h, *_: h,
        loss=_scaled(lambda batch: 1 + jnp.square(batch.y.astype(jnp.float32)).mean()),
    ),
    normalized_backwards=Net("bounded", lambda h, *_: _normalized_backwards(h)),
)


@functools.cache
def setting(name: str) -> tuple[Model, Loss, Pool]:
    """Returns the model, the objective and 32 rows of a net."""
    net, rng = NETS[name], np.random.default_rng(0)
    model = layers.as_model(Module(net.body, net.inputs))
    x = dict(
        float=lambda: rng.standard_normal((ROWS, 6), np.float32),
        words=lambda: rng.integers(0, WORDS, (ROWS, 5)).astype(np.int32),
        images=lambda: rng.standard_normal((ROWS, 8, 8, 1), np.float32),
    )[net.inputs]()
    pool = Pool(
        x=x,
        y=(np.arange(ROWS) % CLASSES).astype(np.int32),
        columns=dict(user=np.arange(ROWS) // 2),
        task=classification(CLASSES),
    )
    return model, net.loss(model), pool


def built(name: str, method: str, **privacy: Any):
    """Returns the private learner of a net.

    Raises:
        ValueError: if the net is refused.
    """
    model, loss, pool = setting(name)
    size = ROWS // 2 if "user" in privacy else ROWS
    settings = (
        dict(
            sampling="shuffle",
            adjacency="zero_out",
            clip_norm=CLIP,
            noise_multiplier=0.0,
            method=method,
        )
        | privacy
    )
    common = dict(
        model=model,
        loss=loss,
        num_rows=ROWS,
        sample=pool,
        epochs=1,
        batch_size=size,
        optimizer="sgd",
        learning_rate=1.0,
    )
    return backprop.make(**common, gradient="private", privacy=settings)


def stepped(learner, **privacy: Any) -> Callable:
    """Returns compiled sums(params, pool, weight_B) -> one step's clipped sum as a vector."""
    copies, divisor = privacy.get("augmentations", 1), learner.guarantee.mechanism.divisor

    def sums(params, pool, weight_B):
        state = learner.init(jax.random.key(0), pool)._replace(variables=dict(params=params))
        index, weight = (jnp.repeat(a, copies)[None] for a in (jnp.arange(ROWS), weight_B))
        after, _ = learner.epoch(state, pool, index, weight)
        return jnp.concatenate(
            [
                jnp.ravel(a - b) * divisor
                for a, b in zip(
                    *map(jax.tree.leaves, (params, after.variables["params"])), strict=True
                )
            ]
        )

    return jax.jit(sums)


def unchecked(name: str) -> Callable:
    """Returns the same function by bookkeeping, without any check of the net."""
    _, loss, _ = setting(name)
    rule = clipping.rule("flat")

    def sums(params, pool, weight_B):
        rows = (
            backprop.rows(pool, jnp.arange(ROWS), weight_B),
            backprop.slot_keys(jax.random.key(1), ROWS),
        )
        losses = backprop.losses_of(loss, jax.tree.map(lambda _: None, params))
        total = gradients.clipped_sum(
            losses, params, rows, weight_B, units=ROWS, rule=rule, clip=CLIP, method="bookkeeping"
        ).total
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(total)])

    return jax.jit(sums)


def changes(name: str, sums: Callable, draws: int = 6) -> tuple[float, float]:
    """Returns the largest change of the sum for a replaced and a removed row, in clip norms."""
    model, _, pool = setting(name)
    shapes = jax.eval_shape(model.init, jax.random.key(0), pool.x[:1])["params"]
    replaced, removed = [], []
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        params = jax.tree.map(lambda leaf, rng=rng: trials._parameter(rng, leaf), shapes)
        row, ones = int(rng.integers(ROWS)), np.ones(ROWS, np.float32)
        whole = np.asarray(sums(params, pool, ones))
        removed.append(
            np.linalg.norm(
                whole
                - sums(params, pool, np.where(np.arange(ROWS) == row, 0, ones).astype(np.float32))
            )
        )
        for value in _values(rng, pool, row):
            x, y = np.array(pool.x), np.array(pool.y)
            x[row], y[row] = value, (y[row] + 1) % CLASSES
            replaced.append(
                np.linalg.norm(whole - sums(params, dataclasses.replace(pool, x=x, y=y), ones))
            )
    return float(np.max(replaced)) / CLIP, float(np.max(removed)) / CLIP


def _values(rng, pool: Pool, row: int):
    other = pool.x[(row + 1) % ROWS]
    if pool.x.dtype.kind in "iu":
        return other, rng.integers(0, WORDS, other.shape), np.full_like(other, rng.integers(WORDS))
    return other, FAR * other, -FAR * other


class Line(NamedTuple):
    """Holds the result of a net under a requested method.

    Attributes:
        net, requested: the names of the net and of the method.
        method: the method of the guarantee, or 'refused'.
        replaced, removed: the largest changes in clip norms, NaN if the net was refused.
        right: whether the result is as it must be.
    """

    net: str
    requested: str
    method: str
    replaced: float
    removed: float
    right: bool


def line(name: str, requested: str, draws: int = 6) -> Line:
    """Returns the result of a net under a requested method."""
    net = NETS[name]
    try:
        learner = built(name, requested)
    except ValueError:
        return Line(
            name,
            requested,
            "refused",
            np.nan,
            np.nan,
            net.kind != "apart" or requested not in net.methods,
        )
    replaced, removed = changes(name, stepped(learner), draws)
    right = replaced <= 2 * (1 + SLACK) and removed <= 1 + SLACK and net.kind != "refused"
    return Line(name, requested, learner.guarantee.method, replaced, removed, right)


def main(argv: list[str] | None = None) -> int:
    parser = _pairs.parser(__doc__, peers=("unchecked",), cases=tuple(NETS))
    parser.add_argument(
        "--methods",
        type=_pairs.names(METHODS),
        default=list(METHODS),
        help=f"any of {','.join(METHODS)} (default: all)",
    )
    args = parser.parse_args(argv)
    draws, wrong = args.runs or (1 if args.quick else 6), 0
    print(
        f"{'net':30} {'kind':8} {'unchecked':>19}   {'method':12} {'became':12} {'replaced':>8} "
        f"{'removed':>8}"
    )
    for name in args.cases:
        before = unbounded(name, draws) if args.peers else ""
        for requested in args.methods:
            result = line(name, requested, draws)
            wrong += not result.right
            numbers = (
                f"{result.replaced:8.3f} {result.removed:8.3f}"
                if result.method != "refused"
                else ""
            )
            print(
                f"{name:30} {NETS[name].kind:8} {before:>19}   {requested:12} {result.method:12} "
                f"{numbers}{'' if result.right else '   WRONG'}",
                flush=True,
            )
    print(f"{wrong} of {len(args.cases) * len(args.methods)} are wrong.")
    return int(wrong > 0)


def unbounded(name: str, draws: int) -> str:
    """Returns the text of both changes when nothing is checked, or why there are none."""
    try:
        return "{:9.2f} {:9.2f}".format(*changes(name, unchecked(name), draws))
    except IndexError:
        return "no taps"
    except FlaxError:
        return "batch statistics"


if __name__ == "__main__":
    sys.exit(main())
