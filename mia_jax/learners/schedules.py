"""Learning-rate schedules and optimizers by name, from optax."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from mia_jax import checks


def learning_rate(*, schedule: str, peak: float, total_steps: int, warmup_steps: int = 0) -> optax.Schedule:
    """'constant', 'cosine' (peak * (1 + cos(pi t)) / 2, t from 0 to 1) or 'cosine_7_16' (peak * cos(7 pi t / 16): ends at a fifth of the peak, as
    published LiRA models were trained), after a linear warmup from 0 over `warmup_steps`.
    """
    checks.one_of(("constant", "cosine", "cosine_7_16"), schedule=schedule)
    checks.positive(learning_rate=peak)
    checks.at_least(0, warmup_steps=warmup_steps)
    if warmup_steps >= total_steps:
        raise ValueError(f"warmup covers {warmup_steps} of {total_steps} steps; it must end before training does.")
    if schedule == "constant":
        main = optax.constant_schedule(peak)
    elif schedule == "cosine_7_16":
        main = lambda step: peak * jnp.cos(7 * jnp.pi / 16 * jnp.minimum(step / (total_steps - warmup_steps), 1.0))  # noqa: E731
    else:
        main = optax.cosine_decay_schedule(peak, total_steps - warmup_steps)
    if not warmup_steps:
        return main
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup_steps), main], [warmup_steps])


def optimizer(*, name: str, rate, momentum: float, nesterov: bool, epsilon: float, weight_decay: float) -> optax.GradientTransformation:
    """sgd, momentum, adam or adamw. `weight_decay` is decoupled (w -= rate * decay * w) for every optimizer."""
    checks.one_of(("sgd", "momentum", "adam", "adamw"), optimizer=name)
    checks.at_least(0, weight_decay=weight_decay)
    if name == "adamw":
        return optax.adamw(rate, eps=epsilon, weight_decay=weight_decay)
    if name == "adam":
        scale = optax.scale_by_adam(eps=epsilon)
    elif name == "momentum":
        scale = optax.trace(decay=momentum, nesterov=nesterov)
    else:
        scale = optax.identity()
    decay = [optax.add_decayed_weights(weight_decay)] if weight_decay else []
    return optax.chain(scale, *decay, optax.scale_by_learning_rate(rate))
