"""Small dense networks in JAX: one compiled program trains many data sets and grid points."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Shape(NamedTuple):
    """What a compiled program depends on.

    Args:
        widths: of the layers, inputs and outputs included.
        slope: leak of the ReLU.
        loss: 'cross_entropy' (integer labels) or 'pinball' (one output per level).
        batch_size: rows per step.
        epochs: passes over the rows.
        decay: whether the learning rate falls to 0 along a cosine.
    """

    widths: tuple[int, ...]
    slope: float
    loss: str
    batch_size: int
    epochs: int
    decay: bool = False


class Sets(NamedTuple):
    """D data sets of K rows, x_DKF and y_DK, with Q lists of L rows in each.

    Of a list the first count_DQ rows are real.
    """

    x_DKF: np.ndarray
    y_DK: np.ndarray
    index_DQL: np.ndarray
    count_DQ: np.ndarray


def sets(
    x: Sequence[np.ndarray],
    y: Sequence[np.ndarray],
    lists: Sequence[Sequence[np.ndarray]],
    batch_size: int,
) -> Sets:
    """Returns the data sets and their row lists, padded so that similar sizes share a program.

    Args:
        x: x[d] [K_d,F].
        y: y[d] [K_d].
        lists: lists[d][q], numbers of rows.
        batch_size: lists are padded to a multiple of it.
    """
    longest = max(len(i) for lists_of_set in lists for i in lists_of_set)
    length = batch_size * _rounded(-(-longest // batch_size))
    height = _rounded(max(map(len, x)))
    x_DKF = np.zeros((len(x), height, x[0].shape[1]), np.float32)
    y_DK = np.zeros((len(x), height), np.asarray(y[0]).dtype)
    index_DQL = np.zeros((len(x), len(lists[0]), length), np.int32)
    count_DQ = np.array([[len(i) for i in lists_of_set] for lists_of_set in lists], np.int32)
    for d, lists_of_set in enumerate(lists):
        x_DKF[d, : len(x[d])], y_DK[d, : len(y[d])] = x[d], y[d]
        for q, i in enumerate(lists_of_set):
            index_DQL[d, q, : len(i)] = i
    return Sets(x_DKF, y_DK, index_DQL, count_DQ)


def steps(data: Sets, batch_size: int) -> int:
    """Returns the steps of an epoch that at least one data set does not skip."""
    return -(-int(data.count_DQ.max()) // batch_size)


def train(
    key,
    data: Sets,
    *,
    rate_P: Sequence[float],
    penalty_P: Sequence[float],
    level_T: Sequence[float] = (),
    shape: Shape,
) -> list[tuple]:
    """Returns trained layers [(kernel, bias), ...] with leading axes [D,Q,P], NumPy float64.

    Adam minimizes the mean loss + penalty / 2 * sum of squared kernels. Kernels start Glorot-normal
    (the same for all Q and P of a data set), biases at zero. Minibatches are drawn again in every
    epoch; the last one may be short, and an empty one changes nothing. Deterministic from `key`.
    """
    arrays = (
        np.asarray(rate_P, np.float32),
        np.asarray(penalty_P, np.float32),
        np.asarray(level_T, np.float32),
    )
    layers = _train(key, *data, *arrays, shape=shape)
    return [tuple(np.asarray(a, np.float64) for a in layer) for layer in layers]


def forward(layers: Sequence[tuple], x_NF: np.ndarray, slope: float) -> np.ndarray:
    """Returns the outputs [N,O] of a network."""
    for i, (kernel, bias) in enumerate(layers):
        x_NF = x_NF @ kernel + bias[None]
        if i < len(layers) - 1:
            x_NF = np.where(x_NF > 0, x_NF, slope * x_NF)
    return x_NF


@functools.partial(jax.jit, static_argnames="shape")
def _train(key, x_DKF, y_DK, index_DQL, count_DQ, rate_P, penalty_P, level_T, *, shape: Shape):
    train_list = functools.partial(_train_one, level_T=level_T, shape=shape)
    grid = jax.vmap(train_list, (None, None, None, None, None, 0, 0))
    lists = jax.vmap(grid, (None, None, None, 0, 0, None, None))
    keys = jax.random.split(key, len(x_DKF))
    return jax.vmap(lists, (0, 0, 0, 0, 0, None, None))(
        keys, x_DKF, y_DK, index_DQL, count_DQ, rate_P, penalty_P
    )


def _train_one(key, x_KF, y_K, index_L, count, rate, penalty, *, level_T, shape: Shape):
    layers = _init(jax.random.fold_in(key, 0), shape.widths)
    zeros = jax.tree.map(jnp.zeros_like, layers)
    weight_SB = (
        (jnp.arange(len(index_L), dtype=jnp.int32) < count)
        .astype(jnp.float32)
        .reshape(-1, shape.batch_size)
    )
    total = jnp.maximum(-(-count // shape.batch_size) * shape.epochs, 1).astype(jnp.float32)

    def mean_loss(layers, x_BF, y_B, weight_B):
        loss_B = _losses(_forward(layers, x_BF, shape.slope), y_B, level_T, shape.loss)
        squares = sum(jnp.sum(kernel**2) for kernel, _ in layers)
        return jnp.sum(weight_B * loss_B) / jnp.maximum(weight_B.sum(), 1) + penalty / 2 * squares

    def step(state, batch):
        index_B, weight_B = batch
        gradient = jax.grad(mean_loss)(state[0], x_KF[index_B], y_K[index_B], weight_B)
        share = (1 + jnp.cos(jnp.pi * state[3] / total)) / 2 if shape.decay else 1.0
        new = _adam(state, gradient, rate * share)
        return jax.tree.map(lambda a, b: jnp.where(weight_B.sum() > 0, a, b), new, state), None

    def epoch(state, number):
        noise_L = jax.random.uniform(jax.random.fold_in(key, number), index_L.shape, jnp.float32)
        order_L = jnp.argsort(
            jnp.where(jnp.arange(len(index_L), dtype=jnp.int32) < count, noise_L, 2.0)
        )
        return jax.lax.scan(step, state, (index_L[order_L].reshape(weight_SB.shape), weight_SB))[
            0
        ], None

    return jax.lax.scan(
        epoch,
        (layers, zeros, zeros, jnp.float32(0)),
        jnp.arange(1, shape.epochs + 1, dtype=jnp.int32),
    )[0][0]


def _init(key, widths: tuple[int, ...]) -> list[tuple]:
    glorot = jax.nn.initializers.glorot_normal(dtype=jnp.float32)
    keys = jax.random.split(key, len(widths) - 1)
    return [
        (glorot(k, (a, b)), jnp.zeros(b, jnp.float32))
        for k, a, b in zip(keys, widths[:-1], widths[1:], strict=True)
    ]


def _forward(layers, x_BF, slope: float):
    for i, (kernel, bias) in enumerate(layers):
        x_BF = x_BF @ kernel + bias[None]
        if i < len(layers) - 1:
            x_BF = jnp.where(x_BF > 0, x_BF, slope * x_BF)
    return x_BF


def _losses(out_BO, y_B, level_T, loss: str):
    if loss == "cross_entropy":
        return jax.nn.logsumexp(out_BO, -1) - jnp.take_along_axis(out_BO, y_B[:, None], 1)[:, 0]
    error_BT = y_B[:, None] - out_BO
    return jnp.maximum(level_T[None] * error_BT, (level_T[None] - 1) * error_BT).sum(-1)


def _adam(state: tuple[Any, Any, Any, Any], gradient, rate):
    """Returns the state after an Adam step as in Keras: epsilon is added to the uncorrected root.

    optax corrects first, and trained networks then differ visibly.
    """
    layers, first, second, count = state
    count += 1
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, second, gradient)
    scale = rate * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
    layers = jax.tree.map(
        lambda w, m, v: w - scale * m / (jnp.sqrt(v) + 1e-7), layers, first, second
    )
    return layers, first, second, count


def _rounded(n: int) -> int:
    """Returns the next number of the form 8..15 times a power of 2 (n itself below 16).

    It is at most an eighth larger.
    """
    unit = 1 << max(0, n.bit_length() - 4)
    return -(-n // unit) * unit
