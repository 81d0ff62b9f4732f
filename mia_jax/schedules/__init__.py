"""Learning-rate schedules: those of optax, by the names of its functions, and one file each with
make(*, learning_rate, steps, ...) -> schedule.

config.learner.schedule = 'cosine_decay_schedule', or dict(name='cosine_decay_schedule', alpha=0.1).
The rate at the peak (optax's `peak_value`, else `init_value` or `value`) is
config.learner.learning_rate, and what is counted in steps ends with the training unless it is set
(`decay_steps`, `transition_steps`). A dotted name is a function or a module with `make`; a schedule
is a function step -> learning rate.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from mia_jax.optimizers import _signatures

PEAKS = (
    "peak_value",
    "value",
    "init_value",
)  # the first of these that a function of optax has is the learning rate
ENDS = ("decay_steps", "transition_steps")


@functools.cache
def library() -> dict[str, Callable]:
    """Returns {name: function} of the schedules in optax that have one learning rate to start from
    or to reach.
    """
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
    """Returns make(*, learning_rate, steps, ...) of a function of optax; one that has these
    arguments already keeps them.
    """
    own = _signatures.parameters(function)
    if "learning_rate" in own:
        return _signatures.plain(function, passed=("learning_rate", "steps"))
    peak = next((name for name in PEAKS if name in own), None)
    if peak is None:
        raise ValueError(
            f"schedules: {getattr(function, '__name__', function)} has none of the arguments "
            f"learning_rate, {', '.join(PEAKS)}, "
            "so learner.learning_rate has no place in it."
        )
    starts = (
        {"init_value": 0.0} if peak == "peak_value" and "init_value" in own else {}
    )  # of a warm-up
    inner = _signatures.plain(
        function, passed=(peak,), defaults=starts | {name: None for name in ENDS if name in own}
    )

    @functools.wraps(inner)
    def make(*, learning_rate: float, steps: int, **fields):
        ends = {name: steps for name in ENDS if name in own and fields.get(name) is None}
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
