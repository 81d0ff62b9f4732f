"""Reads jaxprs: their equations, constants and source lines, and operations with foreign rules.

A foreign rule of batching or differentiation is one that is neither JAX's nor this package's.
"""

from __future__ import annotations

import functools
import math

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from mia_jax.privacy.independence.values import Value, nobody, unknown

KNOWN = 2**20  # The number of elements of the largest constant that is evaluated.
# The modules whose rules of batching and differentiation are tested to keep examples separate.
OURS = "mia_jax."


def opaque(closed: ClosedJaxpr) -> str:
    """Returns the first operation of a program that is batched by its own code, '' without one.

    Such operations are callbacks and custom_vmap. For them vmap guarantees nothing.
    """
    for eqn in equations(closed):
        name = eqn.primitive.name
        if (
            "callback" in name
            or "ffi" in name
            or (name == "custom_vmap_call" and not ours(eqn.params["rule"]))
        ):
            return where(eqn)
    return ""


def derivatives(closed: ClosedJaxpr) -> str:
    """Returns the first operation with a foreign derivative (custom_vjp), '' without one.

    Such a derivative may be nonlinear in its cotangent.
    """
    for eqn in equations(closed):
        if eqn.primitive.name == "custom_vjp_call" and not ours(eqn.params["bwd"]):
            return where(eqn)
    return ""


def equations(jaxpr):
    """Yields the equations of a jaxpr and of all jaxprs inside it."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    for eqn in jaxpr.eqns:
        yield eqn
        for leaf in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda a: isinstance(a, ClosedJaxpr | Jaxpr)
        ):
            if isinstance(leaf, ClosedJaxpr | Jaxpr):
                yield from equations(leaf)


def ours(function) -> bool:
    """Returns whether a rule of batching or differentiation is defined in this package."""
    while not hasattr(function, "__code__"):
        inner = next(
            (getattr(function, name) for name in ("rule", "f", "func") if hasattr(function, name)),
            None,
        )
        if inner is None:
            return False
        function = inner
    return str(function.__module__).startswith(OURS)


def where(eqn) -> str:
    """Returns `primitive` (file:line) of an equation."""
    trace = eqn.source_info.traceback
    frames = (
        []
        if trace is None
        else [f for f in trace.frames if "/jax/" not in f.file_name and "/flax/" not in f.file_name]
    )
    frames = [
        f
        for f in frames
        if "/mia_jax/privacy/" not in f.file_name and "/mia_jax/learners/" not in f.file_name
    ]
    at = (
        f" ({'/'.join(frames[0].file_name.split('/')[-2:])}:{frames[0].line_num})" if frames else ""
    )
    return f"`{eqn.primitive.name}`{at}"


def live(jaxpr: Jaxpr, outputs_used) -> list[tuple]:
    """Returns (equation, which of its outputs are used) of those that the used outputs need."""
    needed = {
        v
        for v, is_used in zip(jaxpr.outvars, outputs_used, strict=True)
        if is_used and not isinstance(v, Literal)
    }
    equations_needed = []
    for eqn in reversed(jaxpr.eqns):
        used = [v in needed for v in eqn.outvars]
        if any(used):
            equations_needed.append((eqn, used))
            needed |= {v for v in eqn.invars if not isinstance(v, Literal)}
    return equations_needed[::-1]


def array_of(value):
    """Returns a constant as an array, or None if it is a key or too large."""
    key = jax.dtypes.issubdtype(getattr(value, "dtype", np.dtype(int)), jax.dtypes.prng_key)
    return None if key or math.prod(np.shape(value)) > KNOWN else np.asarray(value)


def literal(operand: Literal) -> Value:
    """Returns the Value of a literal."""
    return nobody(np.shape(operand.val), lambda: np.asarray(operand.val))


def constant(eqn, ins, output: int):
    """Returns the function that evaluates the constant which an equation computes.

    It returns None if the value is not a constant.
    """
    size = math.prod(getattr(eqn.outvars[output].aval, "shape", ()))
    if size > KNOWN or eqn.effects or any(v.known is unknown for v in ins):
        return unknown

    @functools.cache
    def known():
        values = [v.known() for v in ins]
        if any(v is None for v in values):
            return None
        try:
            with jax.ensure_compile_time_eval():
                result = eqn.primitive.bind(*values, **eqn.params)
            return np.asarray(result[output] if eqn.primitive.multiple_results else result)
        except Exception:
            return None

    return known
