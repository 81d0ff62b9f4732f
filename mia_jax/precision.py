"""The arithmetic of a run: 32 bits whatever jax_enable_x64 says, so that no environment variable changes who is sampled or what is trained."""

from __future__ import annotations

import contextlib

import jax

DEFAULTS = dict(matmul_precision=None, threefry_partitionable=True)  # of what changes the bits of trained models


def settings() -> dict:
    """What of JAX's configuration says how numbers are computed, as plain values: for run.json."""
    read = jax.config
    return dict(
        x64=bool(read.jax_enable_x64),
        dtype_promotion=str(read.jax_numpy_dtype_promotion),
        prng=str(read.jax_default_prng_impl),
        **_of_training(),
    )


def unusual() -> dict:
    """What of JAX's configuration changes the bits of trained models and is not at its default: part of what identifies a training; {} as a rule."""
    return {name: value for name, value in _of_training().items() if value != DEFAULTS[name]}


def _of_training() -> dict:
    matmul = jax.config.jax_default_matmul_precision
    return dict(matmul_precision=None if matmul in (None, "default") else matmul, threefry_partitionable=bool(jax.config.jax_threefry_partitionable))


@contextlib.contextmanager
def single():
    """Within it, and in this thread alone, JAX computes in 32 bits with its standard type promotion.

    Plans, noise, initial parameters, attacks and signals state the dtype of every array themselves. This covers what the package cannot state:
    optimizers, schedules, and the models, learners and signals of other people's modules. Results equal those of a run without jax_enable_x64.
    """
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def same_in_threads(work):
    """`work` with the calling thread's arithmetic, whichever thread runs it: JAX's settings of a `with` are those of one thread."""
    x64, promotion = jax.config.jax_enable_x64, jax.config.jax_numpy_dtype_promotion

    def inside(*args):
        with jax.enable_x64(x64), jax.numpy_dtype_promotion(promotion):
            return work(*args)

    return inside
