"""Builds the optimizer of a learning rule from a choice of optimizer and of schedule.

The choices are files of mia_jax/optimizers and mia_jax/schedules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from mia_jax import checks, registry


def optimizer(
    chosen: str | Mapping,
    *,
    learning_rate: float,
    schedule: str | Mapping,
    total_steps: int,
    epoch_steps: int,
) -> optax.GradientTransformation:
    """Returns the optimizer at the learning rate of the schedule.

    Args:
        chosen: A name, or {'name': ..., argument: value}.
        learning_rate: The largest learning rate, which the schedule starts from or reaches.
        schedule: A name, or {'name': ..., argument: value}.
        total_steps: Steps of the whole training, on which schedules end.
        epoch_steps: Steps per epoch.

    Raises:
        ValueError: There is no such choice or argument, or the optimizer needs more than gradients
            and parameters.
    """
    name, fields = parted(chosen)
    rate = learning_rates(
        schedule, learning_rate=learning_rate, total_steps=total_steps, epoch_steps=epoch_steps
    )
    transformation = registry.make("optimizers", name, fields, learning_rate=rate)
    _check_optimizer(transformation, name)
    return transformation


def learning_rates(
    chosen: str | Mapping, *, learning_rate: float, total_steps: int, epoch_steps: int
) -> Callable:
    """Returns the function step -> learning rate of the chosen schedule.

    `warmup_epochs` precede a schedule that has no `warmup_steps`: the rate rises linearly from 0,
    and the schedule takes the remaining steps.
    """
    name, fields = parted(chosen)
    checks.positive(learning_rate=learning_rate)
    warmup_epochs = fields.pop("warmup_epochs", 0.0)
    checks.at_least(0, warmup_epochs=warmup_epochs)
    if warmup_epochs and "warmup_steps" in registry.keywords("schedules", name):
        raise ValueError(
            f"warmup_epochs={warmup_epochs}: the schedule {name!r} has its own warm-up; set its "
            "warmup_steps."
        )
    warmup = round(warmup_epochs * epoch_steps)
    if warmup and warmup >= total_steps:
        raise ValueError(
            f"warmup covers {warmup} of {total_steps} steps; it must end before training does."
        )
    rate = registry.make(
        "schedules", name, fields, learning_rate=learning_rate, steps=total_steps - warmup
    )
    _check_schedule(rate, name)
    if not warmup:
        return rate
    return optax.join_schedules([optax.linear_schedule(0.0, learning_rate, warmup), rate], [warmup])


def parted(chosen: str | Mapping) -> tuple[str, dict]:
    """Returns (name, fields) of a choice, 'adam' or {'name': 'adam', 'b1': 0.9}."""
    if isinstance(chosen, str):
        return chosen, {}
    if "name" not in chosen:
        raise ValueError(f"{dict(chosen)!r} needs a name, as in dict(name='adam').")
    return chosen["name"], {k: v for k, v in chosen.items() if k != "name"}


def _check_schedule(rate, name: str) -> None:
    """Raises ValueError unless rate(step) is one number."""
    try:
        shape = jax.eval_shape(rate, jnp.int32(0)).shape
    except (TypeError, AttributeError) as error:
        raise ValueError(
            f"schedules/{name}: it must be a function step -> learning rate ({error})."
        ) from error
    if shape != ():
        raise ValueError(
            f"schedules/{name}: it returns an array of shape {shape} for one step; a learning rate "
            "is one number."
        )


def _check_optimizer(transformation, name: str) -> None:
    """Raises ValueError unless the optimizer needs gradients and parameters only.

    The optimizer is traced without computing anything.
    """
    if not (hasattr(transformation, "init") and hasattr(transformation, "update")):
        raise ValueError(
            f"optimizers/{name}: it made a {type(transformation).__name__} and must make an "
            "optax.GradientTransformation."
        )
    params = dict(
        kernel=jax.ShapeDtypeStruct((3, 2), jnp.float32),
        bias=jax.ShapeDtypeStruct((2,), jnp.float32),
    )
    try:
        jax.eval_shape(lambda p: transformation.update(p, transformation.init(p), p), params)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"optimizers/{name}: it cannot be used, because a training step gives gradients and "
            f"parameters only, without evaluating the loss again: {error}"
        ) from error
