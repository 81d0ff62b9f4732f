"""Provides the learning-rate schedules: those of optax by name, and one file per further schedule.

A file has make(*, learning_rate, steps, ...) -> schedule, which is a function step -> learning
rate. config.learner.schedule is 'cosine_decay_schedule' or dict(name='cosine_decay_schedule',
alpha=0.1). The rate at the peak (optax's `peak_value`, else `init_value` or `value`) is
config.learner.learning_rate. Numbers of steps (`decay_steps`, `transition_steps`) default to the
end of the training. A dotted name is a function or a module with `make`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from mia_jax.optimizers import _signatures

# The first of these arguments that a function of optax has is the learning rate.
PEAKS = ("peak_value", "value", "init_value")
ENDS = ("decay_steps", "transition_steps")


@functools.cache
def library() -> dict[str, Callable]:
    """Returns {name: function} of the schedules of optax with one initial or peak learning rate."""
    import optax

    functions = {
        name: value for name, value in vars(optax.schedules).items() if inspect.isfunction(value)
    }
    return {
        name: adapted(f)
        for name, f in sorted(functions.items())
        if any(peak in _signatures.parameters(f) for peak in PEAKS)
    }


def adapted(function: Callable) -> Callable:
    """Returns make(*, learning_rate, steps, ...) of a function of optax.

    A function that already has these arguments keeps them.
    """
    arguments = _signatures.parameters(function)
    if "learning_rate" in arguments:
        return _signatures.plain(function, passed=("learning_rate", "steps"))
    peak = next((name for name in PEAKS if name in arguments), None)
    if peak is None:
        raise ValueError(
            f"schedules: {getattr(function, '__name__', function)} has none of the arguments "
            f"learning_rate, {', '.join(PEAKS)}, "
            "so learner.learning_rate has no place in it."
        )
    # A warm-up starts at 0.
    starts = {"init_value": 0.0} if peak == "peak_value" and "init_value" in arguments else {}
    inner = _signatures.plain(
        function,
        passed=(peak,),
        defaults=starts | {name: None for name in ENDS if name in arguments},
    )

    @functools.wraps(inner)
    def make(*, learning_rate: float, steps: int, **fields):
        ends = {name: steps for name in ENDS if name in arguments and fields.get(name) is None}
        scales = {
            k: {int(at): scale for at, scale in v.items()}
            for k, v in fields.items()
            if isinstance(v, Mapping)
        }
        return function(**{peak: learning_rate} | starts | fields | ends | scales)

    fields = [p for p in inspect.signature(inner).parameters.values() if p.name != peak]
    given = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind)
        for name, kind in dict(learning_rate=float, steps=int).items()
    ]
    make.__signature__ = inspect.Signature([*given, *fields])
    make.__annotations__ = dict[str, Any](learning_rate=float, steps=int) | {
        p.name: p.annotation for p in fields
    }
    return make
