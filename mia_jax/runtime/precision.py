"""Fixes the arithmetic of a run: 32 bits, whatever jax_enable_x64 says, and full products.

Hence no environment variable changes which examples are sampled or what is trained.

A product of float32 matrices is not computed in float32 everywhere: JAX's default rounds the
factors to TF32 on NVIDIA GPUs and to bfloat16 on TPUs. A run asks for full float32, so that a GPU
is the same instrument as a CPU. `learner.precision` and `query.precision` choose less:

- float32: all products in full float32.
- tf32: products of the training, or of the queries, may round their factors to TF32 (on TPUs to
  three bfloat16 parts). A CPU has no such products and computes in float32.
- bfloat16: the network computes in bfloat16. Its parameters, outputs, running statistics and
  gradients are float32, and so are the loss, the optimizer and clipped norms.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mia_jax.runtime import machine

DEFAULT = "float32"
PRECISIONS = (DEFAULT, "tf32", "bfloat16")
# JAX's names of the precisions, on platforms whose products round by default.
_PRODUCTS = dict(float32="highest", tf32="tensorfloat32", bfloat16="highest")
DEFAULTS = dict(threefry_partitionable=True)  # of settings that change the bits of trained models


def settings() -> dict:
    """Returns the settings of JAX that affect numbers, as plain values for run.json."""
    read: Any = jax.config  # jax adds its fields at run time, where no type checker sees them
    return dict(
        x64=bool(read.jax_enable_x64),
        dtype_promotion=str(read.jax_numpy_dtype_promotion),
        prng=str(read.jax_default_prng_impl),
        matmul_precision=ambient_products(),
        **_of_training(),
    )


def ambient_products() -> str | None:
    """Returns what jax_default_matmul_precision is set to; None for JAX's default.

    A run does not follow it, see `products`.
    """
    read: Any = jax.config
    name = read.jax_default_matmul_precision
    return None if name in (None, "default") else str(name)


def unusual() -> dict:
    """Returns the settings of JAX that change trained models and are not at their defaults.

    They change the bits of a model, and so they are part of what identifies a training run. Usually
    the result is {}.
    """
    return {name: value for name, value in _of_training().items() if value != DEFAULTS[name]}


def _of_training() -> dict:
    """Returns the settings of JAX that change the bits of trained models."""
    read: Any = jax.config
    return dict(threefry_partitionable=bool(read.jax_threefry_partitionable))


def products(name: str):
    """Returns a context in which products of float32 matrices have this precision.

    It holds for the current thread. On a CPU products are always those of float32, and programs
    request nothing, which is fastest there.

    Args:
        name: one of PRECISIONS.
    """
    cpu = machine.platform() == "cpu"
    return jax.default_matmul_precision(None if cpu else _PRODUCTS[name])


def described(name: str, platform: str) -> str:
    """Returns how networks compute at a precision on a platform, for a line of the plan.

    >>> described('tf32', 'gpu'), described('tf32', 'cpu')
    ('tf32', 'float32 (a CPU has no tf32)')
    """
    return "float32 (a CPU has no tf32)" if (name, platform) == ("tf32", "cpu") else name


def computing(model, name: str):
    """Returns the Model whose network computes at this precision; `model` unless it is bfloat16.

    Then inputs and parameters are rounded to bfloat16 at the entry of the network. Outputs, running
    statistics and initial parameters keep their dtypes. A product of bfloat16 numbers is exact
    before it is added up, so no precision is requested for it.

    Args:
        model: a types.Model.
        name: one of PRECISIONS.
    """
    if name != "bfloat16":
        return model

    def apply(variables, x, **how):
        out, stats = _without_request(model.apply)(
            _rounded_variables(variables), _rounded(x), **how
        )
        old = variables.get("stats", {})
        if jax.tree.structure(old) == jax.tree.structure(stats):
            stats = jax.tree.map(lambda new, before: new.astype(before.dtype), stats, old)
        return _single(out), stats

    def inside(variables, x):
        return _single(_without_request(model.inside)(_rounded_variables(variables), _rounded(x)))

    return model._replace(
        apply=apply,
        inside=None if model.inside is None else inside,
        parts={k: _part(v) if callable(v) else v for k, v in model.parts.items()},
    )


def _part(function: Callable) -> Callable:
    """Returns a function of Model.parts that computes in bfloat16 and returns float32."""

    @functools.wraps(function)
    def computed(*args):
        return _single(_without_request(function)(*map(_rounded, args)))

    return computed


def _without_request(function: Callable) -> Callable:
    """Returns the function, traced without a requested precision of products."""

    def traced(*args, **how):
        with jax.default_matmul_precision(None):
            return function(*args, **how)

    return traced


def _rounded_variables(variables):
    """Returns the variables of a network with its parameters in bfloat16."""
    return {**variables, "params": _rounded(variables["params"])}


def _rounded(tree):
    """Returns the tree with its float32 leaves in bfloat16; keys and integers are unchanged."""
    return jax.tree.map(
        lambda a: a.astype(jnp.bfloat16) if getattr(a, "dtype", None) == jnp.float32 else a, tree
    )


def _single(tree):
    """Returns the tree with its bfloat16 leaves in float32."""
    return jax.tree.map(
        lambda a: a.astype(jnp.float32) if getattr(a, "dtype", None) == jnp.bfloat16 else a, tree
    )


@contextlib.contextmanager
def single():
    """Returns a context in which JAX computes in 32 bits, for the current thread only.

    Products have full float32 precision, see `products`.

    Types are promoted as usual; rank promotion raises an error, because [B] combined with [B,C] is
    a mistake that would silently broadcast to wrong numbers. User code that may promote ranks runs
    `as_the_user`.

    Plans, noise, initial parameters, attacks and signals state the dtype of every array themselves.
    This context covers what the package cannot state: optimizers, schedules, and the models,
    learners and signals of user-supplied modules. Results equal those of a run without
    jax_enable_x64.
    """
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("raise"),
        products(DEFAULT),
    ):
        yield


def as_the_user():
    """Returns a context for user-supplied code: ranks are promoted as in flax and NumPy."""
    return jax.numpy_rank_promotion("allow")


def lenient(made):
    """Returns a user-supplied Model or Attack whose functions run `as_the_user`."""

    def allowing(function):
        @functools.wraps(function)
        def traced(*args, **kwargs):
            with as_the_user():
                return function(*args, **kwargs)

        return traced

    return made._replace(
        **{field: allowing(value) for field, value in made._asdict().items() if callable(value)}
    )


def same_in_threads(work):
    """Returns `work` so that it uses the calling thread's arithmetic in whichever thread it runs.

    JAX's settings of a `with` block hold for one thread only.
    """
    x64, promotion, ranks, matmul = (
        jax.config.jax_enable_x64,
        jax.config.jax_numpy_dtype_promotion,
        jax.config.jax_numpy_rank_promotion,
        jax.config.jax_default_matmul_precision,
    )

    def inside(*args):
        with (
            jax.enable_x64(x64),
            jax.numpy_dtype_promotion(promotion),
            jax.numpy_rank_promotion(ranks),
            jax.default_matmul_precision(matmul),
        ):
            return work(*args)

    return inside
