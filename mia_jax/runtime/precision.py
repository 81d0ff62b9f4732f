"""Fixes the arithmetic of a run: 32 bits, whatever jax_enable_x64 says.

Hence no environment variable changes which examples are sampled or what is trained.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import jax

DEFAULTS = dict(
    matmul_precision=None, threefry_partitionable=True
)  # JAX's defaults of the settings that change the bits of trained models.


def settings() -> dict:
    """Returns the settings of JAX that affect numbers, as plain values for run.json."""
    read: Any = jax.config  # jax adds its fields at run time, where no type checker sees them
    return dict(
        x64=bool(read.jax_enable_x64),
        dtype_promotion=str(read.jax_numpy_dtype_promotion),
        prng=str(read.jax_default_prng_impl),
        **_of_training(),
    )


def unusual() -> dict:
    """Returns the settings of JAX that change trained models and are not at their defaults.

    They change the bits of a model, and so they are part of what identifies a training run. Usually
    the result is {}.
    """
    return {name: value for name, value in _of_training().items() if value != DEFAULTS[name]}


def _of_training() -> dict:
    """Returns the settings of JAX that change the bits of trained models."""
    read: Any = jax.config
    matmul = read.jax_default_matmul_precision
    return dict(
        matmul_precision=None if matmul in (None, "default") else matmul,
        threefry_partitionable=bool(read.jax_threefry_partitionable),
    )


@contextlib.contextmanager
def single():
    """Returns a context in which JAX computes in 32 bits, for the current thread only.

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
    x64, promotion, ranks = (
        jax.config.jax_enable_x64,
        jax.config.jax_numpy_dtype_promotion,
        jax.config.jax_numpy_rank_promotion,
    )

    def inside(*args):
        with (
            jax.enable_x64(x64),
            jax.numpy_dtype_promotion(promotion),
            jax.numpy_rank_promotion(ranks),
        ):
            return work(*args)

    return inside
