"""The arithmetic of a run: 32 bits whatever jax_enable_x64 says, so that no environment variable
changes who is sampled or what is trained.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import jax

DEFAULTS = dict(
    matmul_precision=None, threefry_partitionable=True
)  # of what changes the bits of trained models


def settings() -> dict:
    """Returns what of JAX's configuration says how numbers are computed, as plain values: for
    run.json.
    """
    read: Any = jax.config  # jax adds its fields at run time, where no type checker sees them
    return dict(
        x64=bool(read.jax_enable_x64),
        dtype_promotion=str(read.jax_numpy_dtype_promotion),
        prng=str(read.jax_default_prng_impl),
        **_of_training(),
    )


def unusual() -> dict:
    """Returns what of JAX's configuration changes the bits of trained models and is not at its
    default: part of what identifies a training; {} as a rule.
    """
    return {name: value for name, value in _of_training().items() if value != DEFAULTS[name]}


def _of_training() -> dict:
    read: Any = jax.config
    matmul = read.jax_default_matmul_precision
    return dict(
        matmul_precision=None if matmul in (None, "default") else matmul,
        threefry_partitionable=bool(read.jax_threefry_partitionable),
    )


@contextlib.contextmanager
def single():
    """Within it, and in this thread alone, JAX computes in 32 bits, promotes types as usual, ranks
    not.

    Plans, noise, initial parameters, attacks and signals state the dtype of every array themselves.
    This covers what the package cannot state: optimizers, schedules, and the models, learners and
    signals of other people's modules. Results equal those of a run without jax_enable_x64. [B]
    beside [B,C] is a mistake that would broadcast to garbage without a word; code of a user's own
    that may promote ranks runs `as_the_user`.
    """
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("raise"),
    ):
        yield


def as_the_user():
    """Returns a context that promotes ranks as flax and NumPy do: for code of the user's own."""
    return jax.numpy_rank_promotion("allow")


def lenient(made):
    """Returns a Model or an Attack of the user's own with its functions run `as_the_user`."""

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
    """Returns `work` with the calling thread's arithmetic, whichever thread runs it: JAX's settings
    of a `with` are those of one thread.
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
