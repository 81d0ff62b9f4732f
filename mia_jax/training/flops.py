"""Counts the arithmetic of a program: the FLOPs of its products and convolutions.

A multiplication and an addition are two FLOPs. Everything else (activations, normalization, the
optimizer) is left out, as is usual where models are compared; it is a few percent of a network. The
count is that of the program as it is written, on any device and without compiling it. The steps of
a scan count as often as they run; a `while` loop, whose rounds nobody knows before, counts once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core


def count(function: Callable, *args) -> int:
    """Returns the FLOPs of function(*args); the arguments may be shapes.

    >>> import jax.numpy as jnp
    >>> a, b = jax.ShapeDtypeStruct((3, 4), jnp.float32), jax.ShapeDtypeStruct((4, 5), jnp.float32)
    >>> count(jnp.dot, a, b) == 2 * 3 * 4 * 5
    True
    """
    return _of(jax.make_jaxpr(function)(*args).jaxpr)


def _of(jaxpr) -> int:
    """Returns the FLOPs of the equations of a jaxpr."""
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation) -> int:
    """Returns the FLOPs of one equation."""
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2 * _size(equation.outvars[0]) * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        features = kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2 * _size(equation.outvars[0]) * math.prod(kernel) // features
    inside = [_of(jaxpr) for jaxpr in _jaxprs(params)]
    if name == "cond":
        return max(inside, default=0)
    return sum(inside) * (params["length"] if name == "scan" else 1)


def _jaxprs(params: dict[str, Any]) -> Iterator:
    """Yields the jaxprs among the parameters of an equation, those that it runs."""
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, core.ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, core.Jaxpr):
                yield part


def _size(variable) -> int:
    """Returns the number of elements of a variable."""
    return math.prod(variable.aval.shape)
