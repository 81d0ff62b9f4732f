"""Optimizers: those of optax, by the names of its functions, and one file each with make(*,
learning_rate, ...) -> optax.GradientTransformation.

config.learner.optimizer = 'lion', or dict(name='lion', b1=0.9): every argument of optax.lion but
the learning rate, which is config.learner.learning_rate, is a field. A dotted name is a function
('optax.contrib.prodigy') or a module with `make` ('my_pkg.my_optimizer').
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from mia_jax.optimizers import _signatures

MORE = (
    "linesearch",
    "key",
    # an argument for what a training step does not give: the loss along a line, noise that differs
    # between models
)


@functools.cache
def library() -> dict[str, Callable]:
    """Returns {name: function} of the optimizers in optax: what follows a schedule of learning
    rates and needs gradients and parameters alone.
    """
    import optax

    functions = {
        name: value
        for name, value in vars(optax).items()
        if callable(value) and not isinstance(value, type)
    }
    return {
        name: adapted(f)
        for name, f in sorted(functions.items())
        if not name.startswith(("_", "scale_by_")) and _is_optimizer(f)
    }


def _is_optimizer(function: Callable) -> bool:
    own = _signatures.parameters(function)
    return (
        "learning_rate" in own
        and not set(MORE) & set(own)
        and "Callable" in str(_signatures.hints(function).get("learning_rate"))
    )


def adapted(function: Callable) -> Callable:
    """Returns the function with a signature of the arguments that a config can hold."""
    return _signatures.plain(function, passed=("learning_rate",))
