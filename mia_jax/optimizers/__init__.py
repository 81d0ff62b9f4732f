"""Provides the optimizers: those of optax by name, and one file per further optimizer.

A file has make(*, learning_rate, ...) -> optax.GradientTransformation. config.learner.optimizer is
'lion' or dict(name='lion', b1=0.9): every argument of optax.lion is a field, except the learning
rate, which is config.learner.learning_rate. A dotted name is a function ('optax.contrib.prodigy')
or a module with `make` ('my_pkg.my_optimizer').
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from mia_jax.optimizers import _signatures

# Arguments for what a training step does not provide: the loss along a line, and noise that differs
# between models.
MORE = ("linesearch", "key")


@functools.cache
def library() -> dict[str, Callable]:
    """Returns {name: function} of the usable optimizers of optax.

    These follow a schedule of learning rates and need gradients and parameters only.
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
    """Returns whether a function of optax makes a usable optimizer."""
    arguments = _signatures.parameters(function)
    return (
        "learning_rate" in arguments
        and not set(MORE) & set(arguments)
        and "Callable" in str(_signatures.hints(function).get("learning_rate"))
    )


def adapted(function: Callable) -> Callable:
    """Returns the function with a signature of the arguments that a config can hold."""
    return _signatures.plain(function, passed=("learning_rate",))
