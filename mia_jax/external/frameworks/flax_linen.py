"""Flax linen modules with their variables: (module, variables), a bound module, a TrainState."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np

from mia_jax.external import rows
from mia_jax.external.frameworks import Predictor

BATCH_SIZE = 1024
PASS = "pass (module, variables), where variables is {'params': ...} as module.init returns it"


def takes(model) -> bool:
    """Returns whether a model is a linen module, with variables or without, or a TrainState."""
    linen = sys.modules.get("flax.linen")
    if linen is None:
        return False
    if isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], linen.Module):
        return True
    return isinstance(model, linen.Module) or _is_train_state(model)


def predictor(model, *, batch_size: int | None, device=None) -> Predictor:
    """Returns the compiled module as a function of rows, in inference mode.

    `train`, `training`, `deterministic` and `use_running_average` are set where the module's
    `__call__` takes one of them, and for dropout and batch normalization that were not told.

    Args:
        model: (module, variables), a module that is bound to variables, or a TrainState (of its
            apply_fn, params and, where there are any, batch_stats).
        batch_size: rows per compiled call; None: 1,024.
        device: a jax.Device; None: JAX's default.

    Raises:
        ValueError: the module has no variables, or takes other arguments than (x) or (x, train).
    """
    import jax

    from mia_jax.models import _linen

    module, variables = _with_variables(model)
    try:
        flag = _linen.train_flag(module)
    except TypeError as error:
        raise ValueError(
            f"predict is a linen module: {error} Or pass a function of rows."
        ) from error
    given = {} if flag is None else {flag: not _linen.TRAIN[flag]}

    @jax.jit
    def apply(variables, x):
        with _linen.per_example(None, None, train=False):
            return module.apply(variables, x, **given)

    variables = jax.device_put(variables, device)
    size = BATCH_SIZE if batch_size is None else batch_size

    def ask(part) -> np.ndarray:
        return np.asarray(apply(variables, jax.device_put(rows.for_net(part), device)), np.float32)

    return Predictor(
        answer=lambda x: rows.in_batches(ask, x, size),
        form=None,
        classes=None,
        words=f"Flax linen {type(module).__name__}",
    )


def trainer(model) -> None:
    """Returns None: a module does not say how it is trained."""


def _is_train_state(model) -> bool:
    from_flax = any(kind.__module__.startswith("flax.") for kind in type(model).__mro__)
    return from_flax and hasattr(model, "apply_fn") and hasattr(model, "params")


def _with_variables(model) -> tuple:
    """Returns (module, variables); ValueError if there are none."""
    linen = sys.modules["flax.linen"]
    if isinstance(model, tuple):
        module, variables = model
        if not isinstance(variables, Mapping) or not variables:
            raise ValueError(
                f"predict is a tuple of a linen module and a {type(variables).__name__}; {PASS}."
            )
        return module, variables if "params" in variables else {"params": variables}
    if isinstance(model, linen.Module):
        if model.scope is None:
            raise ValueError(
                f"predict is the linen module {type(model).__name__} without its variables; {PASS}."
            )
        return model.unbind()
    module = getattr(model.apply_fn, "__self__", None)
    if not isinstance(module, linen.Module):
        raise ValueError(
            f"predict is a TrainState whose apply_fn is no method of a linen module; {PASS}."
        )
    variables = {"params": model.params}
    if getattr(model, "batch_stats", None):
        variables["batch_stats"] = model.batch_stats
    return module, variables
