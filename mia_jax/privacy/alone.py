"""Whether a loss looks at one example at a time: what clipping one example's gradient takes for granted."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax.types import Batch, Loss, Model, Pool

QUICK = {"xla_backend_optimization_level": 0}  # it runs twice: compiling it is what it costs
SMALL = 0.01  # every parameter; what is NaN stays NaN behind any


def check(*, model: Model, loss: Loss, sample: Pool) -> None:
    """ValueError if loss_0 of a batch of two becomes NaN when example 1 is: a norm or a mean over the batch, whatever keeps no statistics.

    Taps and vmap would both take such a gradient for the example's own. Examples of whole numbers cannot be NaN and are not tested; neither is a
    loss that is not finite to begin with.
    """
    x = jnp.asarray(sample.x[:1])
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return
    x, y = (jnp.concatenate([a, a]) for a in (x, jnp.asarray(sample.y[:1])))
    shapes = jax.eval_shape(model.init, jax.random.key(0), x[:1])

    def first(x):
        variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, SMALL, leaf.dtype), shapes)
        batch = Batch(x=x, y=y, weight_B=jnp.ones(2, jnp.float32), index_B=jnp.arange(2, dtype=jnp.int32))
        return loss(variables, batch, key_B=jax.random.split(jax.random.key(0), 2), train=True)[0][0]

    program = jax.jit(first, compiler_options=QUICK if jax.default_backend() == "cpu" else None)
    if jnp.isfinite(program(x)) and not jnp.isfinite(program(x.at[1].set(jnp.nan))):
        raise ValueError(
            "gradient='private': the loss of an example depends on the other examples of its batch, so no example's gradient is its own. Use norms "
            "and means over the features of one example (model.norm='group' or 'layer') and an objective of single examples."
        )
