"""Small pieces that several tests share: a hand-written network, pools, and the arguments of a
fleet.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax.learners import backprop
from mia_jax.objectives import cross_entropy
from mia_jax.runtime import jobs
from mia_jax.training import programs
from mia_jax.types import Batch, Examples, Learner, Model, Pool, classification


def mlp(num_classes=3, width=8, rate=0.0):
    """A two-layer network without any library; dropout from per-example keys."""

    def init(key, x):
        a, b = jax.random.split(key)
        features = int(np.prod(x.shape[1:]))
        return dict(
            params=dict(
                Dense_0=dict(
                    kernel=0.3 * jax.random.normal(a, (features, width)), bias=jnp.zeros(width)
                ),
                Dense_1=dict(
                    kernel=0.3 * jax.random.normal(b, (width, num_classes)),
                    bias=jnp.zeros(num_classes),
                ),
            )
        )

    def apply(variables, x, *, key_B=None, weight_B=None, train=False):
        p = variables["params"]
        h = jnp.tanh(x.reshape(len(x), -1) @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"][None])
        if train and rate:
            h *= jax.vmap(lambda k: jax.random.bernoulli(k, 1 - rate, (width,)))(key_B) / (1 - rate)
        return h @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"][None], {}

    return Model(init, apply, lambda x: "toy")


def pool(examples=60, features=5, classes=3, seed=0):
    """Gaussian classes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, examples).astype(np.int32)
    x = rng.normal(size=(examples, features)).astype(np.float32) + y[:, None]
    return Pool(x=x, y=y, name="toy", task=classification(classes))


def examples(y, *, x=None, task=None) -> Examples:
    """What a signal sees of examples with these labels."""
    y = jnp.asarray(y)
    return Examples(
        x=jnp.zeros((len(y), 1)) if x is None else x,
        y=y,
        task=task or classification(max(2, int(y.max()) + 1)),
    )


def batch(x, y, *, task=None, index=None) -> Batch:
    """A batch of the rows x, y, all of weight 1."""
    index = jnp.arange(len(y)) if index is None else index
    return Batch(
        x=x, y=y, task=task or classification(10), weight_B=jnp.ones(len(y)), index_B=index
    )


def halves(examples=60, models=4, seed=0):
    """rows_MK, weight_MK of complementary halves."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(models // 2):
        order = rng.permutation(examples).astype(np.int32)
        rows += [np.sort(order[: examples // 2]), np.sort(order[examples // 2 :])]
    rows = np.stack(rows)
    return rows, np.ones(rows.shape, np.float32)


def learner(num_rows=30, model=None, **fields):
    """backprop with cross-entropy on the toy network."""
    model = model or mlp()
    fields = dict(epochs=5, batch_size=8, learning_rate=0.05) | fields
    return backprop.make(
        model=model, loss=cross_entropy.make(model=model), num_rows=num_rows, **fields
    )


@functools.cache
def plain() -> Learner:
    """`learner()`, the same object for all tests, so that they share its programs."""
    return learner()


PROGRAMS: dict = {}  # keeps the learners, whose ids are the keys


def compiled(learner: Learner, *, chunk: int, validation: bool = False) -> programs.Programs:
    """Returns the programs of a chunk of models, made once: who trains again compiles nothing."""
    key = (id(learner), chunk, validation)
    if key not in PROGRAMS:
        PROGRAMS[key] = (
            learner,
            programs.make(learner=learner, chunk=chunk, validation=validation),
        )
    return PROGRAMS[key][1]


def same(a, b):
    """Whether two pytrees are equal to the bit."""
    a, b = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(a) == len(b) and all(
        np.array_equal(np.asarray(x), np.asarray(y)) for x, y in zip(a, b, strict=True)
    )


def trained_keys(key_M):
    """The data of the keys that backprop's states of models with these keys hold, [M,2]."""
    return np.asarray(jax.random.key_data(jax.vmap(lambda key: jax.random.split(key)[1])(key_M)))


def failing(learner, *, models, seed=0, after=4, attempts=(0,)):
    """The learner, of which the first attempts at some models become NaN after so many steps; no
    other model's numbers are touched.
    """
    keys = [
        programs.model_keys(seed=seed, models=list(models), attempt=attempt) for attempt in attempts
    ]
    bad_K2 = np.concatenate([trained_keys(key) for key in keys])

    def epoch(state, pool, index, weight):
        new, sums = learner.epoch(state, pool, index, weight)
        bad = (jax.random.key_data(state.key)[None] == bad_K2).all(-1).any() & (new.step > after)

        def spoil(a):
            return jnp.where(bad, jnp.nan, a) if jnp.issubdtype(a.dtype, jnp.floating) else a

        return new._replace(variables=jax.tree.map(spoil, new.variables)), sums | dict(
            loss=spoil(sums["loss"])
        )

    return learner._replace(epoch=epoch)


class Stop:
    """Asks to stop at the n-th safe place."""

    def __init__(self, places: int):
        self.left = places

    def __call__(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise jobs.Paused
