"""Averages a signal's answers over almost equal queries: against defenses that add noise."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax import checks, registry
from mia_jax.types import Examples, Signal, classification

AVERAGES = ("logits", "probabilities")


def make(
    *, signal: str = "loss", queries: int = 16, sigma: float = 1e-3, average: str = "logits"
) -> Signal:
    """Returns the signal of the mean answer to `queries` copies x + sigma N(0, 1) of an example.

    The answers are averaged before the signal is computed from them. It is the attacker who knows
    that answers are random, or rounded, per query: noise of standard deviation s becomes
    s / sqrt(queries), while an undefended model answers all copies nearly alike. One output query
    per copy.

    Args:
        signal: a signal of one forward pass.
        queries: the number of copies.
        sigma: the standard deviation of the change of a feature.
        average: 'logits' averages log-probabilities (against noise on them), 'probabilities'
            averages probabilities (against rounding).

    Raises:
        ValueError: The signal asks more than one forward pass.
    """
    checks.at_least(1, queries=queries)
    checks.positive(sigma=sigma)
    checks.one_of(AVERAGES, average=average)
    base = registry.make("signals", signal)
    if base.measure is None:
        raise ValueError(
            f"averaged: signal={signal!r} asks queries of its own; name a signal of one forward "
            "pass, such as loss, confidence or max_confidence."
        )

    def ask(probe, x_B, y_B, key_B):
        def copy(total_BC, k):
            noise_B = jax.vmap(
                lambda x, key: jax.random.normal(jax.random.fold_in(key, k), x.shape, jnp.float32)
            )(x_B, key_B)
            log_BC = jax.nn.log_softmax(probe.out(x_B + sigma * noise_B))
            return total_BC + (log_BC if average == "logits" else jnp.exp(log_BC)), None

        shape = jax.eval_shape(probe.out, x_B)
        total_BC, _ = jax.lax.scan(
            copy, jnp.zeros(shape.shape, jnp.float32), jnp.arange(queries, dtype=jnp.uint32)
        )
        mean_BC = total_BC / queries
        out_BC = mean_BC if average == "logits" else jnp.log(jnp.maximum(mean_BC, 1e-30))
        examples = Examples(x=x_B, y=y_B, task=classification(out_BC.shape[-1]))
        return base.measure(out_BC, examples)

    return Signal(None, base.sign, ask, "outputs", queries, tasks=("classification",))
